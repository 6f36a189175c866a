"""What a step needs, where a run stands, and both on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..card import card_of, set_card
from ..errors import UserError
from ..models import create_model
from ..processes import gathered
from ..recipes import Recipe
from ..samples import Split
from . import checkpoint
from .parallel import full, like
from .plan import Plan
from .probe import first_broken_weight
from .watch import Watch

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.wrappers import _FabricModule

BEST, LAST, RECIPE = "model.safetensors", "last.ckpt", "recipe.json"


@dataclass
class State:
    """Where a run stands; all of it is in the checkpoint."""

    step: int = 0  # steps done
    validated: int = 0  # epochs done, validation included
    best: tuple[float, float] | None = None  # on validation: the measure, minus the loss
    clips: int = 0  # read in this epoch
    # since the last line of the log: loss, weight, right answers, clips
    sums: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    broken: dict[str, str] = field(default_factory=dict)  # path -> reason
    learned: list[int] = field(default_factory=list)  # classes of which a clip was read, sorted
    # what each block added to its input half-way to where it should have woken up
    shares: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # noticed on the way, in words

    def add(self, loss: float, weight: float, right: float, clips: float) -> None:
        """The sums of one step."""
        a, b, c, d = self.sums
        self.sums = (a + loss, b + weight, c + right, d + clips)
        self.clips += int(clips)


@dataclass
class Run:
    """Everything a step needs."""

    out: Path
    recipe: Recipe
    plan: Plan
    split: Split
    fabric: Fabric
    network: nn.Module  # as created; `model` is the same network wrapped for this device
    model: _FabricModule
    optimizer: Optimizer
    state: State
    words: list[str]
    watch: Watch

    @property
    def measure(self) -> str:
        """What validation measures, larger is better."""
        return "mean average precision" if self.split.several else "accuracy"


def whole(run: Run) -> nn.Module:
    """The network with all its weights in this process. Every process calls it."""
    if run.plan.strategy == "ddp" or run.plan.processes == 1:
        return run.network
    card = card_of(run.network)
    with torch.random.fork_rng([]):
        network = create_model(**card.architecture).to(run.fabric.device)
    network.load_state_dict(full(run.network.state_dict()))
    set_card(network, card)
    return network


def save_state(run: Run) -> None:
    """Write last.ckpt: all that `start` needs to go on exactly here. Every process calls it.

    Raises `UserError`, and keeps the file there is, if a weight is not finite or the disk is full.
    """
    plan, fabric = run.plan, run.fabric
    run.watch.at(run.state.step, "saves")
    weights, optimizer = full(run.network.state_dict()), full(run.optimizer.state_dict())
    broken = first_broken_weight(weights)
    if broken is not None:
        raise UserError(
            f"after step {run.state.step}, {broken} is not finite, so training stops and the last"
            f" checkpoint stays as it is; train again with a lower learning rate, such as --lr"
            f" {plan.lr / 4:.3g}"
        )
    random = gathered(checkpoint.random_state(fabric.device))
    if fabric.is_global_zero:
        figures = {
            "steps": plan.steps,
            "step_clips": plan.step_clips,
            "batch": plan.batch,
            "processes": plan.processes,
            "mean": plan.card.mean,
            "std": plan.card.std,
            "card": card_of(run.network).to_json(),
        }
        state = {
            "model": weights,
            "optimizer": optimizer,
            "state": asdict(run.state),
            "random": random,
            "recipe": asdict(run.recipe),
            "plan": figures,
        }
        checkpoint.write(run.out / LAST, state)
    fabric.barrier()


def restore(run: Run, saved: dict[str, Any]) -> None:
    """Put a run back to where `save_state` found it. Every process calls it.

    Raises `UserError` if the steps or the network are others.
    """
    plan, fabric = run.plan, run.fabric
    before = saved["plan"]
    if (plan.steps, plan.step_clips) != (before["steps"], before["step_clips"]):
        raise UserError(
            f"the run in {run.out} has {before['steps']} steps of {before['step_clips']} clips, and"
            f" this call makes {plan.steps} of {plan.step_clips}: it cannot go on like that"
        )
    own = run.network.state_dict()
    weights = {name: like(t, own[name]) for name, t in saved["model"].items() if name in own}
    try:
        run.network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{run.out / LAST} does not fit the network of its recipe:"
            f" {str(error).splitlines()[-1].strip()}"
        ) from error
    run.optimizer.load_state_dict(_sharded(saved["optimizer"], run.optimizer))
    run.state = State(**saved["state"])
    same = (plan.processes, plan.batch) == (before["processes"], before["batch"])
    if same:
        checkpoint.set_random_state(saved["random"][fabric.global_rank], fabric.device)
    else:
        run.words.append(
            f"was {before['processes']} processes of {before['batch']} clips at a time, is now"
            f" {plan.processes} of {plan.batch}: goes on with the same steps, not to the last bit"
        )
    epoch = run.state.step // plan.steps_per_epoch
    if run.state.validated == plan.epochs:
        run.words.append(
            f"the run in {run.out} is finished: all its {plan.steps} steps are done, and there is"
            " nothing to resume; to train longer, start a new run with -o and more --epochs"
        )
        return
    run.words.append(f"goes on after step {run.state.step} of {plan.steps}, in epoch {epoch + 1}")


def _sharded(saved: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """A whole optimizer's state, each tensor shared out as its parameter is."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        index: {
            k: like(v, parameters[index]) if isinstance(v, Tensor) else v for k, v in of.items()
        }
        for index, of in saved["state"].items()
    }
    return {**saved, "state": state}

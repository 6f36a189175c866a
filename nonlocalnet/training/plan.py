"""Recipe + data set + machine -> a plan: every number concrete, and a sentence for each."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import Any

from ..card import Card
from ..errors import UserError
from ..machine import Machine
from ..models import MODELS
from ..presets import PRESETS
from ..recipes import Loss, Optimizer, Precision, Recipe, Schedule, ShiftKind, Strategy, check
from ..samples import Split
from ..shift import Direction
from .cards import derive_card

PAPER_STEP, PAPER_STEPS = 64, 400_000  # clips per step, steps (paper, section 4)
BASE_LR = {"pretrained": 0.01, "scratch": 0.1}  # for 64 clips: the paper; PySlowFast from scratch
ADAMW_LR = 5e-4  # for 64 clips; scaled by the square root, as is usual for Adam
SHIFTS: dict[ShiftKind, Direction] = {"offline": "both", "online": "past"}
IMBALANCE = 3.0  # classes are weighted where the largest has this many times the smallest
STEPS_WANTED, FEWEST_EPOCHS, MOST_EPOCHS = 1500, 30, 150
TINY = {name for name, (_, size) in MODELS.items() if size == "tiny"}


@dataclass(frozen=True)
class Plan:
    """A training run in concrete numbers; `words` says where each derived one comes from."""

    architecture: dict[str, Any]  # arguments of create_model
    card: Card  # without the architecture, which create_model puts in
    pretrained: str | None
    freeze_backbone: bool
    freeze_norm: bool
    freeze_later_norms: bool
    sync_norm: bool
    precise_norm: int  # steps
    epochs: int
    steps_per_epoch: int
    warmup_steps: int
    batch: int  # clips per forward pass and process
    accumulate: int  # forward passes per step and process
    processes: int
    optimizer: Optimizer
    schedule: Schedule
    milestones: tuple[float, ...]  # parts of the run
    warmup_from: float
    lr: float
    head_lr: float
    bias_lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    bias_decay: bool
    clip_grad: float
    loss: Loss
    class_weights: tuple[float, ...] | None
    precision: Precision
    seed: int
    workers: int
    strategy: Strategy
    save_seconds: float
    save_steps: int | None
    log_steps: int
    wake_steps: int  # after the warm-up
    words: tuple[str, ...]

    @property
    def step_clips(self) -> int:
        """Clips per step of the optimiser, over all processes."""
        return self.batch * self.accumulate * self.processes

    @property
    def steps(self) -> int:
        """Steps of the optimiser in the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def wake_step(self) -> int:
        """The step at which each block should have woken up, counted from 1."""
        return min(self.warmup_steps + self.wake_steps, self.steps)


def derive(recipe: Recipe, split: Split, machine: Machine, card: Card) -> Plan:
    """The plan of a run; `card` is the network's own, whose figures hold where nobody says more.

    Raises `UserError` for what cannot work: too few classes or clips, sizes that do not fit each
    other, options that contradict each other.
    """
    words: list[str] = []
    check(recipe)
    loss = _loss(recipe, split, words)
    _refuse(split, words)
    made = card.architecture
    card = derive_card(recipe, split.classes, card, words)
    if _stem(recipe) != recipe.stem:
        words.append(
            f"the stem {_stem(recipe)!r}, which halves {card.frames} frames; the paper's, made for"
            f" {Card().frames}, would leave an eighth of them"
        )
    if _causal(recipe) != recipe.causal:
        words.append(
            f"the blocks look back {_causal(recipe)} frames, as long as a clip, because an online"
            " network cannot look ahead (--causal)"
        )
    if recipe.pretrained is None and recipe.model not in TINY:
        words.append(
            "weights start at random, which takes thousands of clips; --pretrained imagenet starts"
            " from image features and takes far fewer"
        )
    step, batch, accumulate = _sizes(recipe, len(split.train), machine, words)
    per_epoch = len(split.train) // step
    left = len(split.train) - per_epoch * step
    if left:
        words.append(
            f"{per_epoch} steps an epoch, which leave out {left} clips drawn anew each time"
        )
    epochs = _epochs(recipe, len(split.train), step, per_epoch, words)
    if recipe.strategy == "fsdp":
        words.append(
            f"weights are shared out over {machine.processes} processes (FSDP)"
            if machine.processes > 1
            else "--strategy fsdp shares weights out over several processes; here is one"
        )
    workers = recipe.workers
    if workers is None:
        workers = max(1, min(16, machine.cores - 1))
        words.append(f"reading processes: {workers}, of cores there are {machine.cores}")
    derived: dict[str, Any] = {
        "architecture": made or architecture(recipe, len(split.classes)),
        "card": replace(card, activation="sigmoid" if loss == "bce" else "softmax"),
        "epochs": epochs,
        "steps_per_epoch": per_epoch,
        "warmup_steps": _warmup(recipe, epochs, per_epoch, words),
        "batch": batch,
        "accumulate": accumulate,
        "processes": machine.processes,
        "lr": _lr(recipe, step, words),
        "loss": loss,
        "class_weights": None if loss == "bce" else _class_weights(recipe, split, words),
        "precision": precision_of(recipe, machine, words),
        "workers": workers,
        "log_steps": recipe.log_steps or max(1, min(20, per_epoch // 5)),
        "words": tuple(words),
    }
    said = {f.name: getattr(recipe, f.name) for f in fields(Plan) if f.name not in derived}
    return Plan(**said, **derived)


def architecture(recipe: Recipe, classes: int) -> dict[str, Any]:
    """The recipe's network, as arguments of `create_model`."""
    dropout = recipe.dropout
    if dropout is None:
        dropout = 0.0 if recipe.model in TINY else 0.5  # 0.5: the paper
    said = {
        "stem": _stem(recipe),
        "head": recipe.head,
        "width": recipe.width,
        "pairwise": recipe.pairwise,
        "mode": recipe.mode,
        "causal": _causal(recipe),
        "shift": None if recipe.shift is None else SHIFTS[recipe.shift],
        "subsample": recipe.subsample,
        "scale": recipe.scale,
        "norm": recipe.norm,
        "zero_init": recipe.zero_init,
        "init": recipe.init,
        "preset": recipe.preset,
    }
    return {
        "name": recipe.model,
        "num_classes": classes,
        "non_local": recipe.non_local,
        "dropout": dropout,
        **{name: value for name, value in said.items() if value is not None},
    }


def _causal(recipe: Recipe) -> int | None:
    """Blocks of an online network have no frames to come: they look back as far as a clip."""
    ahead = recipe.shift == "online" and recipe.non_local and recipe.mode != "space"
    clip: int = recipe.frames or PRESETS["tsm"].card["frames"]
    return recipe.causal or (clip if ahead else None)


def _stem(recipe: Recipe) -> str | None:
    """The paper's first layers leave an eighth of the frames, which few frames cannot spare."""
    deep = recipe.model.startswith(("c2d_", "i3d_")) and recipe.model not in TINY
    few = recipe.frames is not None and recipe.frames < Card().frames
    plain = recipe.stem is None and recipe.preset is None
    return "slowfast" if plain and deep and few else recipe.stem


def _loss(recipe: Recipe, split: Split, words: list[str]) -> Loss:
    if not split.several:
        return recipe.loss or "cross_entropy"
    if recipe.loss == "cross_entropy":
        raise UserError(
            "these videos have several labels each, and --loss cross_entropy is for one: leave"
            " --loss out, or take bce"
        )
    if recipe.class_weights:
        raise UserError("--class-weights is for videos with one label each; these have several")
    words.append(
        "videos with several labels: each class is learned by itself (sigmoid, binary"
        " cross-entropy) and the network judged by mean average precision"
    )
    return "bce"


def _refuse(split: Split, words: list[str]) -> None:
    if len(split.classes) < 2:
        raise UserError(
            f"there is only one class, {split.classes[0]!r}: telling classes apart takes two"
            if split.classes
            else "there are no classes: the folder needs one sub-folder of videos per class"
        )
    counts = Counter(label for sample in split.train for label in sample.labels)
    empty = [name for i, name in enumerate(split.classes) if not counts[i]]
    named = ", ".join(map(repr, empty[:5])) + (" ..." if len(empty) > 5 else "")
    if len(split.classes) - len(empty) < 2 and not split.several:
        raise UserError(f"no training clips for {named}: add videos or remove the class")
    if empty:  # of a published list, whose labels keep their numbers
        words.append(f"warning: {len(empty)} classes are on no training video: {named}")


def _sizes(recipe: Recipe, clips: int, machine: Machine, words: list[str]) -> tuple[int, int, int]:
    """Clips per step, per forward pass, and passes per step and process."""
    unit = (recipe.batch or 1) * machine.processes
    step = recipe.accumulate_to or _step(clips, unit, words)
    if step % unit:
        raise UserError(
            f"a step of {step} clips (--accumulate-to) cannot be made of {machine.processes}"
            f" processes with {recipe.batch or 1} clips at a time: choose a multiple of {unit}"
        )
    if step > clips:
        raise UserError(
            f"a step of {step} clips takes at least as many training clips; there are {clips}:"
            " lower --accumulate-to or --batch"
        )
    share = step // machine.processes
    if recipe.batch is not None:
        return step, recipe.batch, share // recipe.batch
    fits = machine.fits or share
    batch = next(b for b in range(min(share, fits), 0, -1) if share % b == 0)
    passes = share // batch
    if passes > 1:
        words.append(
            f"{batch} clips at a time fit into the memory of {machine.device}, so {passes} passes"
            f" are added up to a step of {step}"
        )
        if batch < 4 and not recipe.freeze_norm:
            words.append(
                f"batch norm sees only {batch} clips at a time; --freeze-norm keeps the"
                " pretrained statistics instead"
            )
    return step, batch, passes


def _step(clips: int, unit: int, words: list[str]) -> int:
    """The paper's 64 clips; fewer where an epoch would have less than eight steps."""
    few = min(clips, max(4, clips // 8))
    step = PAPER_STEP if few >= PAPER_STEP else 2 ** int(math.log2(few))
    step = max(unit, step // unit * unit)
    if step != PAPER_STEP:
        why = f"there are {clips} to learn from" if few < PAPER_STEP else f"a multiple of {unit}"
        words.append(f"steps of {step} clips, not the paper's {PAPER_STEP}: {why}")
    return step


def _epochs(recipe: Recipe, clips: int, step: int, per_epoch: int, words: list[str]) -> int:
    if recipe.epochs is not None:
        return recipe.epochs
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(STEPS_WANTED / per_epoch)))
    text = f"{epochs} epochs, which are {epochs * per_epoch:,} steps of {step} clips"
    if clips >= 50_000:
        paper = round(PAPER_STEPS * PAPER_STEP / clips)
        text += f"; the paper's {PAPER_STEPS:,} steps of {PAPER_STEP} would be {paper} epochs here"
    words.append(text)
    return epochs


def _warmup(recipe: Recipe, epochs: int, per_epoch: int, words: list[str]) -> int:
    if recipe.warmup is not None:
        if not 0 <= recipe.warmup < epochs:
            raise UserError(
                f"--warmup {recipe.warmup:g} must be shorter than the run of {epochs} epochs"
            )
        return round(recipe.warmup * per_epoch)
    if recipe.pretrained is not None or recipe.schedule == "one_cycle":
        return 0
    steps = epochs * per_epoch // 20
    if steps:
        words.append(f"the learning rate rises over {steps} steps, because weights are random")
    return steps


def _lr(recipe: Recipe, step: int, words: list[str]) -> float:
    if recipe.lr is not None:
        return recipe.lr
    if recipe.optimizer == "adamw":
        rate = float(f"{ADAMW_LR * math.sqrt(step / PAPER_STEP):.4g}")
        words.append(
            f"learning rate {rate:g} = {ADAMW_LR:g} x the square root of {step}/{PAPER_STEP}:"
            f" scaled to the batch of {step}"
        )
        return rate
    fresh = recipe.pretrained is None or recipe.freeze_backbone
    base = BASE_LR["scratch" if fresh else "pretrained"]
    rate = float(f"{base * step / PAPER_STEP:.6g}")
    text = f"learning rate {rate:g} = {base:g} x {step}/{PAPER_STEP}: scaled to the batch of {step}"
    if fresh:
        text += "; 0.1 rather than the paper's 0.01, because what learns starts from random weights"
    words.append(text)
    return rate


def _class_weights(recipe: Recipe, split: Split, words: list[str]) -> tuple[float, ...] | None:
    counts = Counter(sample.label for sample in split.train)
    (large, most), (small, least) = counts.most_common()[0], counts.most_common()[-1]
    wanted = recipe.class_weights
    if wanted is None and most > IMBALANCE * least:
        wanted = True
        words.append(
            f"rare classes weigh more in the loss: {split.classes[large]!r} has {most} clips and"
            f" {split.classes[small]!r} {least}, more than {IMBALANCE:g} times fewer"
        )
    if not wanted:
        return None
    # each class that has clips the same sum of weights, and a mean weight of 1 over the clips
    total, k = len(split.train), len(counts)
    return tuple(total / (k * counts[i]) if counts[i] else 1.0 for i in range(len(split.classes)))


def precision_of(recipe: Recipe, machine: Machine, words: list[str]) -> Precision:
    """The number format of the forward pass."""
    if recipe.precision is not None:
        return recipe.precision
    if machine.bf16:
        words.append("bf16 mixed precision: this GPU computes it faster")
        return "bf16-mixed"
    return "fp32"

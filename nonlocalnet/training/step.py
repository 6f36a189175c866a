"""One step: the gradients of its clips added up, then the optimizer moves the weights."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from ..datasets import Broken
from ..errors import UserError
from ..transforms import normalize
from ..waking import measured
from .batches import Batch, step_keys
from .interrupt import Starved
from .journal import Journal, Rates
from .loss import LOSSES, labels_in, right
from .norms import SyncNorm
from .parallel import full
from .prepare import set_modes
from .probe import first_broken_module
from .state import Run, save_state


def gradient(
    run: Run, journal: Journal, batches: Iterator[Batch], rates: Rates, blocks: Sequence[str]
) -> tuple[Tensor, Batch]:
    """Adds up the gradients of a step; returns sums over its clips, and a batch.

    The sums: loss, weight, right answers, clips; and |z - x|^2, |x|^2 of each block to be measured.
    """
    sums, parts = torch.zeros(4 + 2 * len(blocks), dtype=torch.float64), run.plan.accumulate
    for part in range(parts):
        run.watch.at(run.state.step + 1, "reads clips")
        began = time.perf_counter()
        try:
            batch = next(batches)
        except Starved:
            if part == 0 and run.plan.processes == 1:  # nothing of this step is done yet
                save_state(run)
            raise
        came = time.perf_counter()
        run.watch.at(run.state.step + 1, "computes")
        note_broken(run, journal, batch.broken)
        run.state.learned = sorted({*run.state.learned, *labels_in(batch.labels)})
        with run.fabric.no_backward_sync(run.model, enabled=part + 1 < parts):
            sums += _forward_backward(run, batch, blocks)
        rates.add(len(batch.labels), batch.seconds, came - began, time.perf_counter() - came)
        journal.rates(rates)
    return sums, batch


def _forward_backward(run: Run, batch: Batch, blocks: Sequence[str]) -> Tensor:
    """Adds the gradient of the batch's summed loss. Returns its sums, as `gradient` does."""
    plan, device = run.plan, run.fabric.device
    if not len(batch.labels):
        if plan.processes > 1:
            with nothing_to_learn(run) as clip:
                run.fabric.backward(run.model(clip).sum() * 0)
        return torch.zeros(4 + 2 * len(blocks), dtype=torch.float64)
    targets = batch.labels.to(device, non_blocking=True)
    clips = normalize(batch.clips.to(device, non_blocking=True), plan.card)
    squares: dict[str, Tensor] = {}
    with measured(run.network, squares) if blocks else nullcontext():
        logits = run.model(clips).float()  # (B, 3, T, S, S) -> (B, K)
    weights = None
    if plan.class_weights is not None:
        weights = torch.tensor(plan.class_weights, device=device)
    loss, weight = LOSSES[plan.loss](logits, targets, weights)
    if not math.isfinite(loss.item()):
        raise _diverged(run, f"the loss is {loss.item()}", batch)
    run.fabric.backward(loss)
    hits = right(logits, targets).float()
    clip_count = torch.tensor([len(targets)], dtype=torch.float64)
    told = [torch.stack([loss.detach(), weight, hits]).cpu().double(), clip_count]
    nothing = torch.zeros(2)
    return torch.cat(told + [squares.get(name, nothing).cpu().double() for name in blocks])


@contextmanager
def nothing_to_learn(run: Run) -> Iterator[Tensor]:
    """A black clip, for a process whose files are all broken while the others wait for it.

    Within this context it moves no batch norm, here or elsewhere.
    """
    card = run.plan.card
    synced = [m for m in run.network.modules() if isinstance(m, SyncNorm) and m.training]
    run.network.eval()
    for norm in synced:  # the others' statistics go through all processes
        norm.train()
        norm.counts = False
    try:
        yield torch.zeros(1, 3, card.frames, card.crop, card.crop, device=run.fabric.device)
    finally:
        for norm in synced:
            norm.counts = True
        set_modes(run.network, run.plan)


def update(run: Run, weight: float, batch: Batch) -> float:
    """One step of the optimizer with the mean gradient; returns the gradient's length.

    Processes have averaged the gradients of their sums; `weight` is the sum over all of them. A
    step without a single readable clip changes nothing.
    """
    learning = [p for p in run.network.parameters() if p.grad is not None]
    norm = 0.0
    if weight > 0:
        for p in learning:
            assert p.grad is not None
            p.grad.mul_(run.plan.processes / weight)
        longest = run.plan.clip_grad or math.inf
        norm = float(full(torch.nn.utils.clip_grad_norm_(learning, longest)))
        if not math.isfinite(norm):
            raise _diverged(run, f"the gradient's length is {norm}", batch)
        run.optimizer.step()
    run.optimizer.zero_grad()
    return norm


def _diverged(run: Run, what: str, batch: Batch) -> UserError:
    plan, step = run.plan, run.state.step
    where = "unknown"
    alone = plan.strategy == "ddp" or plan.processes == 1  # has all weights
    if len(batch.labels) and alone:
        clips = normalize(batch.clips.to(run.fabric.device), plan.card)
        where = first_broken_module(run.network, clips)
    keys = step_keys(plan, len(run.split.train), step, run.fabric.global_rank)
    files = [run.split.train[index].path for part in keys for _, index in part]
    told = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
    return UserError(
        f"step {step + 1}: {what}, so training stops; the first number that is not finite is in"
        f" {where}; the files of this step: {told}. Nothing was overwritten. Train again with a"
        f" lower learning rate, such as --lr {plan.lr / 4:.3g}"
    )


def note_broken(run: Run, journal: Journal, broken: tuple[Broken, ...]) -> None:
    """Tell of each broken file once."""
    for file in broken:
        if file.path not in run.state.broken:
            run.state.broken[file.path] = file.reason
            journal.say(f"skipped {file.path}: {file.reason}")

"""Training: one loop, top to bottom.

A run is a folder: model.safetensors (the best so far), last.ckpt (everything needed to go on),
split.json, recipe.json, log.jsonl, tensorboard/. What a step computes depends on nothing but the
checkpoint, the seed and the step's number, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from .datasets import Broken, VideoDataset
from .errors import UserError
from .recipes import Recipe
from .training.batches import Batch, ViewReader, read_batches, step_keys
from .training.interrupt import Starved, Stop, Stopped, stop_on_signals
from .training.journal import Journal, Rates, read_log
from .training.plan import learning_rate
from .training.prepare import asleep, set_modes
from .training.probe import first_broken_module
from .training.run import BEST, Run, save_state, start, total
from .training.validate import validate
from .transforms import normalize
from .weights import save


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    path: the run folder; `load(path)` gives the best network. accuracy: its own, on one centre
    clip of each validation video; None if there was none. curves: the lines of log.jsonl. broken:
    the files that could not be read. words: what was derived and noticed.
    """

    path: Path
    accuracy: float | None
    curves: tuple[dict[str, Any], ...]
    broken: tuple[Broken, ...]
    words: tuple[str, ...]


def train(
    data: str | Path, recipe: Recipe, out: str | Path, resume: bool = False, quiet: bool = False
) -> TrainResult:
    """Train the recipe's network on a folder of videos, into the run folder `out`.

    data: class_name/*.mp4, with or without train/ and val/ above.
    resume: go on with the run in `out`, exactly where its last checkpoint is; what `recipe` leaves
        at its default is taken from the run.
    quiet: print nothing.

    Under torchrun every process calls this, and each takes its share of a step.

    Raises:
        UserError: whatever cannot work, in one sentence; it is a `Stopped` after Ctrl-C or
            SIGTERM, when the state has been saved. Nothing already written is damaged.
    """
    console = Console(quiet=quiet)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    # dropout and initial weights draw from torch's global generators: the caller's are put back
    with torch.random.fork_rng(devices), stop_on_signals() as stop:
        run = start(Path(data), recipe, Path(out), resume)
        folder = run.out if run.fabric.is_global_zero else None
        with Journal(folder, run.state.step, run.plan.steps, console) as journal:
            for sentence in run.words:
                journal.say(sentence)
            _all_steps(run, journal, stop)
            for sentence in _closing(run):
                journal.say(sentence)
    best = run.state.best
    return TrainResult(
        path=run.out,
        accuracy=None if best is None else best[0],
        curves=tuple(read_log(run.out)),
        broken=tuple(Broken(path, reason) for path, reason in sorted(run.state.broken.items())),
        words=tuple(run.words),
    )


def _all_steps(run: Run, journal: Journal, stop: Stop) -> None:
    plan, state, fabric = run.plan, run.state, run.fabric
    videos = VideoDataset(run.split.train, plan.card, plan.seed)
    pin = fabric.device.type == "cuda"
    batches = read_batches(videos, plan, state.step, fabric.global_rank, pin, stop)
    mine = run.split.val[fabric.global_rank :: plan.processes]
    alone = plan.processes == 1  # one of several must not leave the others waiting
    views = ViewReader(mine, plan.card, plan.workers, stop if alone else Stop())
    with closing(batches), closing(views):
        _steps(run, journal, stop, batches, views)


def _steps(
    run: Run, journal: Journal, stop: Stop, batches: Iterator[Batch], views: ViewReader
) -> None:
    plan, state, fabric = run.plan, run.state, run.fabric
    rates = Rates(plan.workers)
    saved, halt = time.monotonic(), 0.0
    while True:
        # first, because a run may have been stopped between an epoch and its validation
        if state.step == (state.validated + 1) * plan.steps_per_epoch:
            journal.rates(rates, now=True)
            _end_epoch(run, journal, views, stop)
            save_state(run)
            saved = time.monotonic()
        if halt or (plan.processes == 1 and stop.asked):
            save_state(run)
            raise Stopped(
                f"stopped by {stop.asked or 'a signal'} after step {state.step} of {plan.steps};"
                f" everything is saved: go on with --resume -o {run.out}"
            )
        if state.step == plan.steps:
            return

        rate = learning_rate(plan, state.step)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        set_modes(run.network, plan)
        sums, batch = _gradient(run, journal, batches, rates)
        # processes see signals and clocks differently, and must stop and save together
        overdue = fabric.is_global_zero and time.monotonic() - saved > plan.save_seconds
        wishes = torch.tensor([stop.asked is not None, overdue], dtype=torch.float64)
        *totals, halt, overdue = total(run, torch.cat([sums, wishes])).tolist()
        norm = _update(run, totals[1], batch)
        state.step += 1
        state.add(*totals)

        end = state.step % plan.steps_per_epoch == 0
        if end or state.step % plan.log_steps == 0:
            _log(run, journal, rates, {"lr": rate, "gradient": norm})
        journal.advance(state.step, (state.step - 1) // plan.steps_per_epoch, plan.epochs)
        due = overdue or (plan.save_steps is not None and state.step % plan.save_steps == 0)
        if due and not end:  # at the end of an epoch it is saved after the validation
            save_state(run)
            saved = time.monotonic()


def _gradient(
    run: Run, journal: Journal, batches: Iterator[Batch], rates: Rates
) -> tuple[Tensor, Batch]:
    """Adds up the gradients of a step; returns loss, weight, right answers, clips; a batch."""
    sums, parts = torch.zeros(4, dtype=torch.float64), run.plan.accumulate
    for part in range(parts):
        began = time.perf_counter()
        try:
            batch = next(batches)
        except Starved:
            if part == 0 and run.plan.processes == 1:  # nothing of this step is done yet
                save_state(run)
            raise
        came = time.perf_counter()
        _note_broken(run, journal, batch.broken)
        run.state.learned = sorted({*run.state.learned, *batch.labels.tolist()})
        with run.fabric.no_backward_sync(run.model, enabled=part + 1 < parts):
            sums += _forward_backward(run, batch)
        rates.add(len(batch.labels), batch.seconds, came - began, time.perf_counter() - came)
        journal.rates(rates)
    return sums, batch


def _forward_backward(run: Run, batch: Batch) -> Tensor:
    """Adds the gradient of the batch's summed loss. Returns loss, weight, right answers, clips."""
    plan, device = run.plan, run.fabric.device
    if not len(batch.labels):
        _take_part(run)
        return torch.zeros(4, dtype=torch.float64)
    labels = batch.labels.to(device, non_blocking=True)
    clips = normalize(batch.clips.to(device, non_blocking=True), plan.card)
    logits = run.model(clips).float()  # (B, 3, T, S, S) -> (B, K)
    weights = torch.ones(logits.shape[1], device=device)
    if plan.class_weights is not None:
        weights = torch.tensor(plan.class_weights, device=device)
    loss = F.cross_entropy(logits, labels, weights, reduction="sum")
    if not math.isfinite(loss.item()):
        raise _diverged(run, f"the loss is {loss.item()}", batch)
    run.fabric.backward(loss)
    right = (logits.argmax(1) == labels).sum()
    totals = torch.stack([loss.detach(), weights[labels].sum(), right.float()]).cpu().double()
    return torch.cat([totals, torch.tensor([len(labels)], dtype=torch.float64)])


def _take_part(run: Run) -> None:
    """Every process must take part in averaging gradients, also one whose files are all broken."""
    if run.plan.processes > 1:
        card = run.plan.card
        run.network.eval()  # a black clip must not move the batch norms
        clip = torch.zeros(1, 3, card.frames, card.crop, card.crop, device=run.fabric.device)
        run.fabric.backward(run.model(clip).sum() * 0)
        set_modes(run.network, run.plan)


def _update(run: Run, weight: float, batch: Batch) -> float:
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
        norm = float(torch.nn.utils.clip_grad_norm_(learning, longest))
        if not math.isfinite(norm):
            raise _diverged(run, f"the gradient's length is {norm}", batch)
        run.optimizer.step()
    run.optimizer.zero_grad()
    return norm


def _diverged(run: Run, what: str, batch: Batch) -> UserError:
    plan, step = run.plan, run.state.step
    where = "unknown"
    if len(batch.labels):
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


def _note_broken(run: Run, journal: Journal, broken: tuple[Broken, ...]) -> None:
    """Tell of each broken file once."""
    for file in broken:
        if file.path not in run.state.broken:
            run.state.broken[file.path] = file.reason
            journal.say(f"skipped {file.path}: {file.reason}")


def _log(run: Run, journal: Journal, rates: Rates, values: dict[str, float]) -> None:
    """A line with the mean loss and accuracy since the last line, which it closes."""
    state = run.state
    loss, weight, right, clips = state.sums
    if clips:
        values = {"loss": loss / weight, "accuracy": right / clips, **values}
    journal.write(state.step, (state.step - 1) // run.plan.steps_per_epoch, values)
    journal.note = f"loss {loss / max(weight, 1e-9):.3f}, {rates.now():.3g} clips/s"
    state.sums = (0.0, 0.0, 0.0, 0.0)


def _end_epoch(run: Run, journal: Journal, views: ViewReader, stop: Stop) -> None:
    """Validate, log, and keep the network if it is the best; undone if asked to stop meanwhile."""
    state, plan, fabric = run.state, run.plan, run.fabric
    _share_broken(run, journal)
    if not state.clips:
        first = min(state.broken)
        raise UserError(
            f"none of the training videos could be read ({len(state.broken)} files); the first is"
            f" {first}: {state.broken[first]}"
        )
    _note_lost_classes(run, journal)
    # one of several processes must not leave the others waiting
    stop = stop if plan.processes == 1 else Stop()
    result = validate(run.network, views, plan.batch, stop)
    if result is None:
        return
    _note_broken(run, journal, tuple(result.broken))
    _share_broken(run, journal)
    sums = torch.tensor([result.right, result.loss, result.videos], dtype=torch.float64)
    right, loss, videos = total(run, sums).tolist()
    text, better = "no validation video could be read", True
    if videos:
        rank = (right / videos, -loss / videos)
        better = state.best is None or rank > state.best
        state.best = rank if better else state.best
        text = f"validation accuracy {rank[0]:.3f} of {videos:.0f} clips, loss {-rank[1]:.3f}"
        values = {"validation accuracy": rank[0], "validation loss": -rank[1]}
        values |= {f"block {name}": share for name, share in result.blocks.items()}
        journal.write(state.step, state.validated, values)
    if better and fabric.is_global_zero:
        save(run.network, run.out / BEST)
    state.validated, state.clips = state.validated + 1, 0
    best = ", the best so far" if better and videos else ""
    journal.say(f"epoch {state.validated} of {plan.epochs}: {text}{best}")


def _share_broken(run: Run, journal: Journal) -> None:
    """What each process met, files and classes, becomes known to all. Every process calls it."""
    if run.plan.processes > 1:
        state = run.state
        found: list[tuple[dict[str, str], list[int]]] = [({}, [])] * run.plan.processes
        torch.distributed.all_gather_object(found, (state.broken, state.learned))
        for files, labels in found:
            state.learned = sorted({*state.learned, *labels})
            _note_broken(run, journal, tuple(starmap(Broken, files.items())))


def _lost_classes(run: Run) -> dict[str, str]:
    """Classes of which no training clip could be read so far, each with one of its files."""
    files: dict[int, list[str]] = {}
    for sample in run.split.train:
        files.setdefault(sample.label, []).append(sample.path)
    return {
        run.split.classes[label]: paths[0]
        for label, paths in sorted(files.items())
        if label not in run.state.learned and all(path in run.state.broken for path in paths)
    }


def _note_lost_classes(run: Run, journal: Journal) -> None:
    lost = _lost_classes(run)
    if not lost:
        return
    name, first = next(iter(lost.items()))
    names, there = ", ".join(map(repr, lost)), len({s.label for s in run.split.train})
    if there - len(lost) < 2:
        raise UserError(
            f"not one training video of {names} could be read, which leaves one class only; the"
            f" first is {first}: {run.state.broken[first]}; replace the files of that class"
        )
    if not run.state.validated:
        journal.say(
            f"warning: not one training video of {names} could be read, so the network cannot learn"
            f" to tell it; of {name!r}, {first}: {run.state.broken[first]}"
        )


def _closing(run: Run) -> list[str]:
    state, words = run.state, []
    if asleep(run.network):
        words.append(
            f"warning: {', '.join(asleep(run.network))} learned nothing: still the identity"
        )
    if state.best is not None:
        words.append(f"best validation accuracy {state.best[0]:.3f}, one clip a video: {run.out}")
    if _lost_classes(run):
        words.append(
            f"warning: the network never saw {', '.join(map(repr, _lost_classes(run)))}: not one"
            " training video of it could be read"
        )
    if state.broken:
        names = ", ".join(sorted(state.broken)[:20])
        words.append(f"{len(state.broken)} files could not be read: {names}")
    return words

"""Training: one loop, top to bottom.

A run is a folder: model.safetensors (the best so far), last.ckpt (everything needed to go on),
split.json, recipe.json, log.jsonl, tensorboard/. What a step computes depends on nothing but the
checkpoint, the seed and the step's number, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from .datasets import Broken, VideoDataset
from .listings.data import Data, as_data
from .processes import gathered
from .recipes import Recipe
from .training.batches import Batch, ViewReader, read_batches
from .training.epoch import end_epoch, lost_classes, share_broken
from .training.interrupt import Stop, Stopped, stop_on_signals
from .training.journal import Journal, Rates, read_log
from .training.parallel import launch, total
from .training.prepare import asleep, set_modes
from .training.run import open_run, start
from .training.schedule import learning_rate
from .training.state import Run, save_state, whole
from .training.step import gradient, update
from .training.wake import is_watched, shares_in, watch_waking
from .training.watch import speaking_once, watching
from .waking import named_blocks


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    path: the run folder; `load(path)` gives the best network. accuracy: its own, on one centre
    clip of each validation video, or the mean average precision where videos have several labels;
    None if there was none. curves: the lines of log.jsonl. broken:
    the files that could not be read. words: what was derived and noticed.
    """

    path: Path
    accuracy: float | None
    curves: tuple[dict[str, Any], ...]
    broken: tuple[Broken, ...]
    words: tuple[str, ...]


def train(
    data: Data | str | Path,
    recipe: Recipe,
    out: str | Path,
    resume: bool = False,
    quiet: bool = False,
) -> TrainResult:
    """Train the recipe's network on labelled videos, into the run folder `out`.

    data: class_name/*.mp4, with or without train/ and val/ above; or a list (see `listings`).
    resume: go on with the run in `out`, exactly where its last checkpoint is; what `recipe` leaves
        at its default is taken from the run.
    quiet: print nothing.

    Under torchrun every process calls this, and each takes its share of a step.

    Raises:
        UserError: whatever cannot work, in one sentence; it is a `Stopped` after Ctrl-C,
            SIGTERM or SIGUSR1, when the state has been saved. Nothing already written is damaged.
    """
    console = Console(quiet=quiet)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    # dropout and initial weights draw from torch's global generators: the caller's are put back
    with torch.random.fork_rng(devices), stop_on_signals() as stop:
        with speaking_once():
            opened = open_run(recipe, Path(out), resume)
            fabric = launch(opened.recipe)
        advice = f"Go on with --resume -o {out}"
        with watching(fabric, opened.recipe.hang_seconds, advice, stop) as watch:
            run = start(as_data(data), opened, Path(out), fabric, watch)
            folder = run.out if fabric.is_global_zero else None
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
        words=(*run.words, *run.state.notes),
    )


def _all_steps(run: Run, journal: Journal, stop: Stop) -> None:
    plan, state, fabric = run.plan, run.state, run.fabric
    videos = VideoDataset(run.split.train, plan.card, plan.seed)
    ahead = range(state.step, plan.steps)
    pin = fabric.device.type == "cuda"
    batches = read_batches(videos, plan, ahead, fabric.global_rank, pin, stop)
    mine = run.split.val[fabric.global_rank :: plan.processes]
    views = ViewReader(mine, plan.card, plan.workers, stop)
    with closing(batches), closing(views):
        _steps(run, journal, stop, batches, views)


def _steps(
    run: Run, journal: Journal, stop: Stop, batches: Iterator[Batch], views: ViewReader
) -> None:
    plan, state = run.plan, run.state
    rates = Rates(plan.workers)
    saved, halt = time.monotonic(), False
    while True:
        # first, because a run may have been stopped between an epoch and its validation
        if state.step == (state.validated + 1) * plan.steps_per_epoch:
            journal.rates(rates, now=True)
            halt = halt or not end_epoch(run, journal, views, stop)
            _save(run, journal)
            saved = time.monotonic()
        if halt or (plan.processes == 1 and stop.asked):
            _save(run, journal)
            asked = next(filter(None, gathered(stop.asked)), "a signal")
            raise Stopped(
                f"stopped by {asked} after step {state.step} of {plan.steps};"
                f" everything is saved: go on with --resume -o {run.out}"
            )
        if state.step == plan.steps:
            return

        halt, overdue = _step(run, journal, stop, batches, rates, saved)
        journal.advance(state.step, (state.step - 1) // plan.steps_per_epoch, plan.epochs)
        end = state.step % plan.steps_per_epoch == 0
        due = overdue or (plan.save_steps is not None and state.step % plan.save_steps == 0)
        if due and not end:  # at the end of an epoch it is saved after the validation
            _save(run, journal)
            saved = time.monotonic()


def _step(
    run: Run, journal: Journal, stop: Stop, batches: Iterator[Batch], rates: Rates, saved: float
) -> tuple[bool, bool]:
    """One step and its line in the log. Returns whether to stop after it, and whether to save.

    saved: when that was done last.
    """
    plan, state, number = run.plan, run.state, run.state.step + 1
    rate = learning_rate(plan, state.step)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["rate"]
    set_modes(run.network, plan)
    # the first: so that the curves begin where the network does
    logged = number == 1 or number % plan.log_steps == 0 or number % plan.steps_per_epoch == 0
    blocks = tuple(named_blocks(run.network)) if logged or is_watched(plan, number) else ()
    sums, batch = gradient(run, journal, batches, rates, blocks)
    # processes see signals and clocks differently, and must stop and save together
    overdue = run.fabric.is_global_zero and time.monotonic() - saved > plan.save_seconds
    run.watch.at(number, "adds up with the others")
    wishes = torch.tensor([stop.asked is not None, overdue], dtype=torch.float64)
    *totals, halt, overdue = total(run.fabric, torch.cat([sums, wishes])).tolist()
    shares = shares_in(blocks, totals[4:])
    watch_waking(run, journal, number, shares)  # while the gradients are there
    norm = update(run, totals[1], batch)
    state.step = number
    state.add(*totals[:4])
    if logged:
        told = {f"block {name}": share for name, share in shares.items()}
        _log(run, journal, rates, {"lr": rate, "gradient": norm, **told})
    return bool(halt), bool(overdue)


def _save(run: Run, journal: Journal) -> None:
    share_broken(run, journal)
    save_state(run)


def _log(run: Run, journal: Journal, rates: Rates, values: dict[str, float]) -> None:
    """A line with the mean loss and accuracy since the last line, which it closes."""
    state = run.state
    loss, weight, right, clips = state.sums
    if clips:
        hits = "first answer right" if run.split.several else "accuracy"
        values = {"loss": loss / weight, hits: right / clips, **values}
    journal.write(state.step, (state.step - 1) // run.plan.steps_per_epoch, values)
    journal.note = f"loss {loss / max(weight, 1e-9):.3f}, {rates.now():.3g} clips/s"
    state.sums = (0.0, 0.0, 0.0, 0.0)


def _closing(run: Run) -> list[str]:
    state, words = run.state, []
    if still := asleep(whole(run)):
        words.append(f"warning: {', '.join(still)} learned nothing: still the identity")
    if state.best is not None:
        words.append(
            f"best validation {run.measure} {state.best[0]:.3f}, one clip a video: {run.out}"
        )
    if lost_classes(run):
        words.append(
            f"warning: the network never saw {', '.join(map(repr, lost_classes(run)))}: not one"
            " training video of it could be read"
        )
    if state.broken:
        names = ", ".join(sorted(state.broken)[:20])
        words.append(f"{len(state.broken)} files could not be read: {names}")
    return words

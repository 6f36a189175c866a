"""The end of an epoch: what was read, how good the network is, and whether it is the best."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from functools import partial
from itertools import starmap
from typing import NamedTuple

import torch
from torch import nn

from ..datasets import Broken, VideoDataset
from ..errors import UserError
from ..precision import mean_average_precision
from ..processes import gathered
from ..transforms import normalize
from ..weights import save
from .batches import ViewReader, read_batches
from .interrupt import Starved, Stop
from .journal import Journal
from .norms import true_statistics
from .parallel import total
from .prepare import set_modes
from .state import BEST, Run, whole
from .step import note_broken, nothing_to_learn
from .validate import Validation, validate


class Judged(NamedTuple):
    """The network on the validation videos of all processes; larger is better in `rank`."""

    videos: int
    rank: tuple[float, float]  # accuracy or mean average precision, minus the loss


def end_epoch(run: Run, journal: Journal, views: ViewReader, stop: Stop) -> bool:
    """Validate, log, and keep the network if it is the best; nothing of it if asked to stop.

    Every process calls it; whether it was done is the same in each.
    """
    state, plan = run.state, run.plan
    share_broken(run, journal)
    if not state.clips:
        first = min(state.broken)
        raise UserError(
            f"none of the training videos could be read ({len(state.broken)} files); the first is"
            f" {first}: {state.broken[first]}"
        )
    _note_lost(run, journal)
    run.watch.at(state.step, "validates")
    _one_set_of_statistics(run)
    with _norms(run, stop):
        network = whole(run)
        judged = _judge(run, network, journal, views, stop)
        if judged is None:
            return False
        better = not judged.videos or state.best is None or judged.rank > state.best
        if better and run.fabric.is_global_zero:
            save(network, run.out / BEST)
    text = "no validation video could be read"
    if judged.videos:
        state.best = judged.rank if better else state.best
        measure, score, loss = run.measure, judged.rank[0], -judged.rank[1]
        text = f"validation {measure} {score:.3f} of {judged.videos} clips, loss {loss:.3f}"
        values = {f"validation {measure}": score, "validation loss": loss}
        journal.write(state.step, state.validated, values)
    state.validated, state.clips = state.validated + 1, 0
    best = ", the best so far" if better and judged.videos else ""
    journal.say(f"epoch {state.validated} of {plan.epochs}: {text}{best}")
    return True


def _judge(
    run: Run, network: nn.Module, journal: Journal, views: ViewReader, stop: Stop
) -> Judged | None:
    # one of several processes must not leave the others waiting
    if _any(run, stop.asked is not None):
        return None
    result = validate(network, views, run.plan.batch, stop, run.watch.moves)
    if _any(run, result is None) or result is None:
        return None
    note_broken(run, journal, tuple(result.broken))
    share_broken(run, journal)
    sums = torch.tensor([result.right, result.loss, result.videos], dtype=torch.float64)
    right, loss, videos = total(run.fabric, sums).tolist()
    if not videos:
        return Judged(0, (0.0, 0.0))
    score = _precision(run, result) if run.split.several else right / videos
    return Judged(int(videos), (score, -loss / videos))


def _any(run: Run, asked: bool) -> bool:
    """Whether it is so in any process. Every process calls it."""
    return bool(total(run.fabric, torch.tensor([float(asked)])).any())


def _precision(run: Run, mine: Validation) -> float:
    pairs = [pair for answers in gathered(mine.answers) for pair in answers]
    logits, targets = (torch.stack(side) for side in zip(*pairs, strict=True))
    found = mean_average_precision(logits.numpy(), targets.numpy())
    return 0.0 if math.isnan(found) else found  # not one video has a label


def _one_set_of_statistics(run: Run) -> None:
    """Each process has running statistics of its own; those of the first are validated and kept."""
    if run.plan.processes > 1:
        for buffer in run.network.buffers():
            torch.distributed.broadcast(buffer, 0)


def _norms(run: Run, stop: Stop) -> AbstractContextManager[None]:
    """Where the recipe asks for it: within, batch norms hold their true statistics."""
    if not run.plan.precise_norm:
        return nullcontext()
    set_modes(run.network, run.plan)
    return true_statistics(run.network, _passes(run, stop), partial(total, run.fabric))


def _passes(run: Run, stop: Stop) -> Iterator[None]:
    """Sends clips through the network that no epoch of the run has, and others each time."""
    plan, fabric = run.plan, run.fabric
    first = plan.steps + run.state.validated * plan.precise_norm
    steps = range(first, first + plan.precise_norm)
    videos = VideoDataset(run.split.train, plan.card, plan.seed)
    batches = read_batches(videos, plan, steps, fabric.global_rank, False, stop)
    with closing(batches), suppress(*[Starved] * (plan.processes == 1)):
        for batch in batches:
            if _any(run, stop.asked is not None):
                return  # the validation will not begin either
            with fabric.autocast():
                if len(batch.labels):
                    run.network(normalize(batch.clips.to(fabric.device), plan.card))
                elif plan.processes > 1:
                    with nothing_to_learn(run) as clip:
                        run.network(clip)
            run.watch.moves()
            yield


def share_broken(run: Run, journal: Journal) -> None:
    """What each process met, files and classes, becomes known to all. Every process calls it."""
    state = run.state
    for files, labels in gathered((state.broken, state.learned)):
        state.learned = sorted({*state.learned, *labels})
        note_broken(run, journal, tuple(starmap(Broken, files.items())))


def lost_classes(run: Run) -> dict[str, str]:
    """Classes of which no training clip could be read so far, each with one of its files."""
    files: dict[int, list[str]] = {}
    for sample in run.split.train:
        for label in sample.labels:
            files.setdefault(label, []).append(sample.path)
    return {
        run.split.classes[label]: paths[0]
        for label, paths in sorted(files.items())
        if label >= 0
        and label not in run.state.learned
        and all(path in run.state.broken for path in paths)
    }


def _note_lost(run: Run, journal: Journal) -> None:
    lost = lost_classes(run)
    if not lost:
        return
    name, first = next(iter(lost.items()))
    names, there = (
        ", ".join(map(repr, lost)),
        len({label for s in run.split.train for label in s.labels}),
    )
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

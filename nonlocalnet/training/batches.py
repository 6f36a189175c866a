"""Which clips a step learns from, and the processes that read them ahead of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..card import Card
from ..datasets import Broken, VideoDataset, ViewDataset, Views
from ..reading import as_it_is, loader, read
from ..samples import Sample
from .interrupt import NAMES, Starved, Stop
from .plan import Plan

Key = tuple[int, int]  # epoch, index
GRACE = 5.0  # seconds that a slow reader has to finish its batch when the run is to stop
ADVICE = "go on with --resume and fewer --workers"


def epoch_order(clips: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch: a permutation that depends on nothing but its arguments."""
    # a large odd factor keeps the seeds of (seed, epoch) pairs apart
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order: list[int] = torch.randperm(clips, generator=generator).tolist()
    return order


def step_keys(plan: Plan, clips: int, step: int, rank: int) -> list[list[Key]]:
    """The keys of a step, counted from 0 over the whole run: one list per forward pass."""
    epoch, place = divmod(step, plan.steps_per_epoch)
    return _cut(plan, epoch_order(clips, plan.seed, epoch), epoch, place, rank)


def _cut(plan: Plan, order: list[int], epoch: int, place: int, rank: int) -> list[list[Key]]:
    share = plan.batch * plan.accumulate
    first = place * plan.step_clips + rank * share
    keys = [(epoch, index) for index in order[first : first + share]]
    return [keys[i : i + plan.batch] for i in range(0, share, plan.batch)]


class StepSampler(Sampler[list[Key]]):
    """The batches of the steps of a range: one loader lasts over all epochs."""

    def __init__(self, plan: Plan, clips: int, steps: range, rank: int) -> None:
        self.plan, self.clips, self.steps, self.rank = plan, clips, steps, rank

    def __len__(self) -> int:
        return len(self.steps) * self.plan.accumulate

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = -1, list[int]()
        for step in self.steps:
            now, place = divmod(step, self.plan.steps_per_epoch)
            if now != epoch:
                epoch, order = now, epoch_order(self.clips, self.plan.seed, now)
            yield from _cut(self.plan, order, epoch, place, self.rank)


@dataclass(frozen=True)
class Batch:
    """What one forward pass learns from; broken files are beside it, not in it.

    clips: (B, 3, T, S, S) uint8, B = 0 if every file was broken. labels: (B,) int64, or (B, K)
    float32 where a video may have several.
    seconds: reading time, summed over the clips.
    """

    clips: Tensor
    labels: Tensor
    broken: tuple[Broken, ...]
    seconds: float

    def pin_memory(self) -> Batch:
        return Batch(self.clips.pin_memory(), self.labels.pin_memory(), self.broken, self.seconds)


class _Timed(Dataset[tuple[Any, float]]):
    """Each item with the seconds it took, measured in the process that reads it."""

    def __init__(self, videos: VideoDataset) -> None:
        self.videos = videos

    def __getitem__(self, key: Key) -> tuple[Any, float]:
        started = time.perf_counter()
        item = self.videos[key]
        return item, time.perf_counter() - started


def _collate(items: list[tuple[Any, float]]) -> Batch:
    good = [item for item, _ in items if not isinstance(item, Broken)]
    broken = tuple(item for item, _ in items if isinstance(item, Broken))
    clips = torch.stack([clip for clip, _ in good]) if good else torch.empty(0, dtype=torch.uint8)
    labels = torch.stack([torch.as_tensor(label) for _, label in good]) if good else torch.empty(0)
    return Batch(clips, labels, broken, sum(seconds for _, seconds in items))


def _leave_signals_to_parent(_: int) -> None:
    # Ctrl-C in a terminal and SIGTERM from a batch system reach every process of a run; the parent
    # still wants its batches to finish the step, and ends its readers by itself
    for number in NAMES:
        signal.signal(number, signal.SIG_IGN)


def read_batches(
    videos: VideoDataset, plan: Plan, steps: range, rank: int, pin: bool, stop: Stop
) -> Generator[Batch, None, None]:
    """The batches of these steps; `pin` holds them where a GPU copies them quickly.

    Neither reads nor moves torch's global random state. Raises `UserError` if a reading process
    dies, `Starved` if `stop` is asked for and no batch comes.
    """
    reader = loader(
        _Timed(videos),
        plan.workers,
        _collate,
        batch_sampler=StepSampler(plan, len(videos), steps, rank),
        begin=_leave_signals_to_parent,
        pin_memory=pin,
    )
    return read(reader, ADVICE, _until(stop))


class ViewReader:
    """The centre clip of each video, again and again, by reading processes that stay.

    Starting them anew for every validation would cost seconds where processes are not forked.
    """

    def __init__(self, samples: Sequence[Sample], card: Card, workers: int, stop: Stop) -> None:
        workers = min(workers, len(samples))
        self.count = len(samples)
        # one endless pass, because a loader with a time limit may miss it between two passes
        reader = loader(
            ViewDataset(samples, card, 1, 1),
            workers,
            as_it_is,
            batch_size=None,
            sampler=cycle(range(len(samples))),
            begin=_leave_signals_to_parent,
        )
        self.views = read(reader, ADVICE, _until(stop))

    def __iter__(self) -> Iterator[Views | Broken]:
        """Raises `UserError` and `Starved` as `read_batches` does."""
        return islice(self.views, self.count)

    def close(self) -> None:
        """End the reading processes."""
        self.views.close()


def _until(stop: Stop) -> Callable[[float], None]:
    """Ends a wait for the readers once somebody asks to stop and they had time to answer."""

    def waiting(seconds: float) -> None:
        if stop.asked and seconds >= GRACE:
            raise Starved(
                f"stopped by {stop.asked} while the reading processes gave nothing; go on with"
                " --resume, and with --workers 0 if they hang again"
            )

    return waiting

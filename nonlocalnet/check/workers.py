"""Processes that look at files, each file with a time limit; none can hang or stop the others."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from ..children import end, start
from ..samples import Sample
from .probe import Finding, probe


@dataclass(eq=False)
class _Worker:
    """A checking process, the file it is at, and what it has said about it so far."""

    pipe: Connection
    process: BaseProcess
    began: float = 0.0
    limit: float = 0.0  # seconds for the file
    found: Finding | None = None

    @property
    def left(self) -> float:
        return self.began + self.limit - time.monotonic()

    def give(self, sample: Sample, seconds: float) -> None:
        self.limit, self.found, self.began = seconds, None, time.monotonic()
        self.pipe.send(sample)

    def end(self) -> None:
        end(self.pipe, self.process)


def examine(
    samples: Iterable[Sample], workers: int, seconds: float
) -> Generator[tuple[Sample, Finding], None, None]:
    """(sample, what was found) in the order in which they are done; taken when there is room.

    Processes of our own, because a pool can neither end a task nor outlive a crash in a codec.
    """
    waiting = iter(samples)
    busy: dict[_Worker, Sample] = {}
    idle: list[_Worker] = []
    try:
        while True:
            while len(busy) < workers and (sample := next(waiting, None)) is not None:
                worker = idle.pop() if idle else _Worker(*start(_serve))
                worker.give(sample, seconds)
                busy[worker] = sample
            if not busy:
                return
            soonest = min(worker.left for worker in busy)
            ready = wait([w.pipe for w in busy], max(0.0, soonest))
            for worker in list(busy):
                found = _hear(worker, worker.pipe in ready)
                if found is None:
                    continue
                sample = busy.pop(worker)
                if worker.process.is_alive():
                    idle.append(worker)
                yield sample, replace(found, seconds=time.monotonic() - worker.began)
    finally:
        for worker in (*busy, *idle):
            worker.end()


def _hear(worker: _Worker, ready: bool) -> Finding | None:
    """The end of a file, if it has come: the worker's own word, its death, or its time limit."""
    if ready:
        try:
            worker.found = worker.pipe.recv()
        except (EOFError, OSError):
            worker.end()
            return Finding(reason="the decoder crashed on this file")
        if worker.found.reason or worker.found.complete:
            return worker.found
    if worker.left > 0:
        return None
    worker.end()
    late = Finding(reason=f"it could not be opened within {worker.limit:g} seconds")
    return replace(worker.found or late, limit=worker.limit)


def _serve(pipe: Connection) -> None:
    """A checking process: samples come in, findings go out, until nobody is there to read them."""
    parent = multiprocessing.parent_process()
    try:
        while parent is not None and parent.is_alive():
            if pipe.poll(1.0):
                sample = pipe.recv()
                for found in probe(sample):
                    pipe.send(found)
    except (EOFError, OSError, KeyboardInterrupt):
        return

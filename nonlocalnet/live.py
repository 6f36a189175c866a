"""Frames read ahead by a thread; of what does not wait, the oldest is dropped."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Self

from .feeds import Frame

AHEAD = 4  # frames of a file that are read before the network asks for them
FRESH = 2  # the same of a camera: each frame that waits makes the answers later
FINE = 1.02  # neighbouring bins of latency differ by this factor


class Ahead:
    """An iterator of the same frames, read by a thread of its own; a context manager.

    room: how many frames may wait. drop: where the network is slower than the feed, the oldest
    frame that waits is dropped, and counted in `dropped` if the network was to see it; else the
    feed waits. clock: give each frame at its time, as cameras do. wanted: asked again and again;
    once it says no, the frames end. `arrived` is when the newest frame that was handed out had been
    read, on `time.monotonic`.

    What reading raises is raised here, after the frames before it.
    """

    def __init__(
        self,
        frames: Iterator[Frame],
        room: int = AHEAD,
        *,
        drop: bool = False,
        clock: bool = False,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.dropped, self.arrived = 0, 0.0
        self._frames, self._room, self._drop, self._clock = frames, room, drop, clock
        self._wanted = wanted
        self._waiting: deque[tuple[float, Frame]] = deque()
        self._change = threading.Condition()
        self._ended, self._stopped = False, False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._thread.join(timeout=2.0)

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        with self._change:
            while not self._waiting and not self._ended and self._wanted():
                self._change.wait(timeout=0.2)
            if self._waiting and self._wanted():
                self.arrived, frame = self._waiting.popleft()
                self._change.notify_all()
                return frame
        if self._error is not None and self._wanted():
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def _read(self) -> None:
        began = None
        try:
            for frame in self._frames:
                if self._clock:
                    began = began or time.monotonic() - frame.seconds
                    time.sleep(max(0.0, began + frame.seconds - time.monotonic()))
                if not self._put(frame):
                    return
        except BaseException as error:  # whoever takes the frames is told
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _put(self, frame: Frame) -> bool:
        """Whether anybody still wants frames."""
        with self._change:
            while len(self._waiting) >= self._room and not self._stopped and not self._drop:
                self._change.wait()
            if len(self._waiting) >= self._room and self._drop:
                self._lose()
            self._waiting.append((time.monotonic(), frame))
            self._change.notify_all()
            return not self._stopped

    def _lose(self) -> None:
        lost = self._waiting.popleft()[1]
        self.dropped += lost.taken
        if lost.cut and self._waiting:  # the one that follows does not follow what came before
            arrived, frame = self._waiting[0]
            self._waiting[0] = arrived, replace(frame, cut=frame.cut or lost.cut)


class Latency:
    """Seconds from a frame to its answer: quantiles to 1 %, in memory that does not grow."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self._counts[round(math.log(max(seconds, 1e-6), FINE))] += 1

    def quantile(self, share: float) -> float:
        """The latency that this share of the answers does not exceed; NaN before the first."""
        left = math.ceil(share * self._counts.total())
        for place in sorted(self._counts):
            left -= self._counts[place]
            if left <= 0:
                return FINE**place
        return math.nan

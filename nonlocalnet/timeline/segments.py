"""What is told, moment by moment -> segments: from when to when which class."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

from ..smoothing import NONE
from .telling import Telling, Told


@dataclass(frozen=True)
class Segment:
    """A stretch of time in which one class is told, or none of them (`NONE`).

    start, end: seconds; half way between the times of two answers, or where the feed begins and
        ends. A class that had to be said by several answers begins with the first of them.
    score, top: mean and highest score of the class over `moments` answers; NaN for `NONE`.
    """

    start: float
    end: float
    label: int
    score: float = math.nan
    top: float = math.nan
    moments: int = 0

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def with_answer(self, told: Told) -> Segment:
        """One more answer belongs to it."""
        count = self.moments + 1
        if self.label == NONE:
            return replace(self, moments=count)
        new = float(told.scores[self.label])
        if count == 1:
            return replace(self, score=new, top=new, moments=1)
        mean = self.score + (new - self.score) / count
        return replace(self, score=mean, top=max(self.top, new), moments=count)

    def joined(self, later: Segment) -> Segment:
        """One segment of two with the same label."""
        count = self.moments + later.moments
        mean = (self.score * self.moments + later.score * later.moments) / max(count, 1)
        return Segment(self.start, later.end, self.label, mean, max(self.top, later.top), count)


class Track:
    """The segments of one row of a timeline, which follow each other without gap or overlap.

    agree: answers that a change takes; they belong to the segment that begins with them.
    shortest: a segment of fewer seconds goes to the one before it, the first to the one after.
    """

    def __init__(self, begin: float, agree: int = 1, shortest: float = 0.0) -> None:
        self.agree, self.shortest = agree, shortest
        self._now, self._last = Segment(begin, begin, NONE), begin
        self._waiting: deque[Told] = deque()  # answers that may turn out to be the next segment's
        self._held: Segment | None = None  # the segment before, which may still grow

    def add(self, label: int, told: Told) -> list[Segment]:
        """One more answer; the segments that nothing can change any more."""
        self._waiting.append(told)
        if label == self._now.label:
            if len(self._waiting) >= self.agree:
                self._take()
            return []
        edge, finished = self._now.start, []
        if self._now.moments:
            edge = (self._last + self._waiting[0].about) / 2
            finished = self._keep(replace(self._now, end=edge))
        self._now = Segment(edge, edge, label)
        self._take_all()
        return finished

    def finish(self, end: float) -> list[Segment]:
        """The feed ends, or breaks off: the segments that are left."""
        self._take_all()
        finished = self._keep(replace(self._now, end=end))
        return finished if self._held is None else [*finished, self._held]

    def _take(self) -> None:
        told = self._waiting.popleft()
        self._now, self._last = self._now.with_answer(told), told.about

    def _take_all(self) -> None:
        while self._waiting:
            self._take()

    def _keep(self, segment: Segment) -> list[Segment]:
        """Hold it until the next one is there; what was held is finished unless they join."""
        held = self._held
        if held is not None and segment.seconds < self.shortest:
            self._held = replace(held, end=segment.end)
            return []
        if held is not None and held.label == segment.label:
            self._held = held.joined(segment)
            return []
        if held is not None and held.seconds < self.shortest:
            self._held = replace(segment, start=held.start)
            return []
        self._held = segment
        return [] if held is None else [held]


class Segments:
    """The segments of a whole timeline: of one track, or of one per class that may be told.

    Where several classes may be told at once, the stretches without one are no segments.
    """

    def __init__(self, telling: Telling, shortest: float = 0.0) -> None:
        self.telling, self.shortest = telling, shortest
        self._tracks: list[Track] = []
        self._end = 0.0

    def add(self, told: Told) -> list[Segment]:
        """One more answer; the segments that nothing can change any more."""
        finished = []
        if told.moment.fresh or not self._tracks:
            finished = self.finish()
            agree, begin = self.telling.hysteresis.agree, told.moment.start
            rows = range(self.telling.tracks)
            self._tracks = [Track(begin, agree, self.shortest) for _ in rows]
        for i, track in enumerate(self._tracks):
            finished += track.add(self._label(i, told), told)
        self._end = told.moment.seconds
        return self._shown(finished)

    def finish(self) -> list[Segment]:
        """The feed ends: what is left."""
        left = [segment for track in self._tracks for segment in track.finish(self._end)]
        self._tracks = []
        return self._shown(left)

    def _label(self, track: int, told: Told) -> int:
        if self.telling.tracks == 1:
            return told.labels[0] if told.labels else NONE
        return track if track in told.labels else NONE

    def _shown(self, segments: list[Segment]) -> list[Segment]:
        several = self.telling.tracks > 1
        return [s for s in segments if s.seconds > 0 and not (several and s.label == NONE)]

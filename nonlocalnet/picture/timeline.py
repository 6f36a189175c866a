"""A timeline as a picture: classes against time, a bar per segment."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import check_place, replacing
from ..palette import colour_of
from ..smoothing import NONE
from ..timeline import Segment, Telling, Timeline, Told
from ..timeline.writers import clock
from . import ink
from .ink import FAINT, MARGIN, SMALL, TEXT, TITLE, Axes, Figure

WIDTH, ROW, LINE = 10.0, 0.24, 0.2  # inches
ROWS = 24  # classes at most: those told for longest
LETTERS = 34  # of a name
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)  # seconds
TICKS = 8
THINNEST = 0.006  # inches; shorter segments could not be seen


def draw_timeline(timeline: Timeline, path: str | os.PathLike[str] | None = None) -> bytes:
    """The picture as PNG bytes; also written to `path`, whole or not at all.

    timeline: see `read_timeline`. Raises `UserError` if it cannot be written.
    """
    data = ink.png(compose_timeline(timeline))
    if path is not None:
        with replacing(path) as unfinished:
            unfinished.write_bytes(data)
    return data


class Drawn:
    """Draws what a `Recorder` tells once it is at its end; hand it over as `also`.

    It keeps the segments until then, some hundred bytes each. facts: for the notes below it.
    """

    def __init__(self, path: Path, telling: Telling, facts: Mapping[str, Any]) -> None:
        check_place(path)
        self.path, self.telling = path, telling
        self._facts = {**facts, "told": telling.words()}
        self._segments: list[Segment] = []
        self._any = False  # where nothing was told, there is no picture

    def told(self, told: Told) -> None:
        self._any = True

    def segment(self, segment: Segment) -> None:
        self._segments.append(segment)

    def close(self, facts: Mapping[str, Any]) -> None:
        if not self._any:
            return
        segments = tuple(self._segments)
        draw_timeline(
            Timeline(self.telling.classes, segments, self._facts | dict(facts)), self.path
        )


def compose_timeline(timeline: Timeline) -> Figure:
    """The picture as a matplotlib figure."""
    by_class: dict[int, list[Segment]] = defaultdict(list)
    for segment in timeline.segments:
        by_class[segment.label].append(segment)
    told = sorted((k for k in by_class if k != NONE), key=lambda k: -_seconds(by_class[k]))
    shown = sorted(told[:ROWS])
    rows = [*shown, *([NONE] if NONE in by_class else [])]
    notes = _notes(timeline, len(told) - len(shown))
    foot = ink.lines(notes, WIDTH - 2 * MARGIN, SMALL)
    head = MARGIN + 1.6 * LINE
    height = head + ROW * max(len(rows), 1) + 2.4 * LINE + 0.16 * len(foot) + MARGIN
    figure = ink.blank(WIDTH, height)
    title = Path(str(timeline.facts.get("source", "Timeline"))).name
    ink.text(figure, MARGIN, height - MARGIN, title, TITLE, va="top", weight="bold")
    top = height - head
    left, right = _names(figure, rows, by_class, timeline, top), WIDTH - 2.5 * MARGIN
    bottom = top - ROW * max(len(rows), 1)
    part = ink.axes(figure, left, bottom, right - left, top - bottom)
    _bars(part, rows, by_class, right - left)
    _clock(figure, part, left, bottom)
    for i, line in enumerate(foot):
        y = bottom - 2.4 * LINE - 0.16 * i
        ink.text(figure, MARGIN, y, line, SMALL, color=FAINT)
    return figure


def _seconds(segments: Sequence[Segment]) -> float:
    return sum(segment.seconds for segment in segments)


def _names(
    figure: Figure,
    rows: Sequence[int],
    by_class: dict[int, list[Segment]],
    timeline: Timeline,
    top: float,
) -> float:
    """The name of each row and how long it is told; returns where the bars begin."""
    names = ["none of these" if k == NONE else timeline.classes[k] for k in rows]
    names = [n if len(n) <= LETTERS else n[: LETTERS - 1] + "…" for n in names]
    width = 0.6 * TEXT / 72 * max(map(len, names), default=8)
    for i, (label, name) in enumerate(zip(rows, names, strict=True)):
        y = top - ROW * (i + 0.5)
        ink.text(figure, MARGIN, y, name, TEXT, va="center")
        told = clock(_seconds(by_class[label]))
        ink.text(
            figure, 2 * MARGIN + width + 0.5, y, told, SMALL, va="center", ha="right", color=FAINT
        )
    return 3 * MARGIN + width + 0.5


def _bars(
    part: Axes, rows: Sequence[int], by_class: dict[int, list[Segment]], width: float
) -> None:
    everything = [segment for segments in by_class.values() for segment in segments]
    start = min((s.start for s in everything), default=0.0)
    end = max((s.end for s in everything), default=1.0)
    part.set_xlim(start, end)
    part.set_ylim(max(len(rows), 1), 0)
    least = (end - start) * THINNEST / width
    for i, label in enumerate(rows):
        red, green, blue = colour_of(label)
        spans = [(s.start, max(s.seconds, least)) for s in by_class[label]]
        colour = (red / 255, green / 255, blue / 255)
        part.broken_barh([(start, end - start)], (i + 0.12, 0.76), facecolors="#F1F1F1")
        part.broken_barh(spans, (i + 0.12, 0.76), facecolors=[colour], linewidth=0)


def _clock(figure: Figure, part: Axes, left: float, bottom: float) -> None:
    """Times along the bottom."""
    start, end = part.get_xlim()
    step = next((s for s in STEPS if (end - start) / s <= TICKS), STEPS[-1])
    width = part.get_position().width * WIDTH
    for tick in range(-(-int(start) // step) * step, int(end) + 1, step):
        if tick < start:
            continue
        x = left + (tick - start) / (end - start) * width
        ink.text(figure, x, bottom - 0.06, clock(tick), SMALL, va="top", ha="center", color=FAINT)
        part.axvline(tick, color="white", linewidth=0.6, alpha=0.6)


def _notes(timeline: Timeline, left_out: int) -> list[str]:
    facts = timeline.facts
    found = [str(facts["network"])] if "network" in facts else []
    found += [f"{facts['moments']:,} answers"] if "moments" in facts else []
    found += [str(word) for word in facts.get("told", ())]
    if left_out:
        found.append(f"{left_out} classes that were told for less time are not shown")
    return found

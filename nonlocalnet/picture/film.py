"""A sight as a film: the query's frame stays, the frames it looks at go by beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..files import check_regular
from ..look import Panel, Sight, percent, query_frame, shares
from ..video_writing import write_pictures
from . import ink
from .ink import FAINT, MARGIN, SMALL, TEXT, TITLE, Figure
from .sheet import facts_of
from .strip import LINE, equal_weight, heat

WIDTH, PANEL, BETWEEN, BARS = 9.0, 3.9, 0.6, 0.6  # inches
PACE = Fraction(1, 4)  # seconds a frame is shown
CRF = "20"


def draw_film(
    sight: Sight,
    path: str | os.PathLike[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the film of a sight, four frames of the clip a second; whole or not at all.

    progress: is told how many frames are done, and of how many.

    Raises `UserError` if it cannot be written.
    """
    check_regular(path)
    count = len(sight.frames)
    options = {"crf": CRF, "preset": "veryfast"}

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for frame in range(count):
            yield ink.pixels(compose_frame(sight, frame))
            progress(frame + 1, count)

    write_pictures(Path(path), pictures(), range(count), PACE, 12, options)


def compose_frame(sight: Sight, frame: int) -> Figure:
    """One frame of the film as a matplotlib figure."""
    look, room = sight.look, WIDTH - 2 * MARGIN
    height, width = sight.frames.shape[1:3]
    across = min(PANEL, PANEL * width / height)
    down = across * height / width
    name, *more = facts_of(sight)
    titles = ink.lines([name], room, TITLE, bold=True)
    caveat = look.caveat()
    words = ink.lines((*more, *look.words(), *([caveat] if caveat else [])), room, TEXT)
    head = MARGIN + 1.35 * LINE * len(titles) + LINE * len(words) + 0.35
    figure = ink.blank(WIDTH, head + down + BARS + 0.75)
    top = float(figure.get_figheight()) - MARGIN
    for line in titles:
        ink.text(figure, MARGIN, top, line, TITLE, va="top", weight="bold")
        top -= 1.35 * LINE
    for line in words:
        ink.text(figure, MARGIN, top, line, TEXT, va="top")
        top -= LINE
    bottom = top - 0.35 - down
    left = (WIDTH - 2 * across - BETWEEN) / 2
    right = left + across + BETWEEN
    own = query_frame(look, len(sight.frames))
    _head(
        figure,
        left,
        bottom + down,
        f"the {'query' if look.view == 'row' else 'place'}, {sight.when(own)}",
    )
    _head(figure, right, bottom + down, sight.when(frame))
    ink.image(ink.axes(figure, left, bottom, across, down), sight.frames[own].numpy(), across)
    step, start = look.grid[0]
    cell = min(max(round((frame - start) / step), 0), len(look.weights) - 1)
    weights = shares(look.weights.flatten()).view_as(look.weights).numpy()
    peak = float(np.abs(weights).max()) or 1.0
    part = ink.axes(figure, right, bottom, across, down)
    heat(part, sight, Panel(frame, cell), weights / peak, across)

    def place(corner: float, y: float, x: float) -> ink.Place:
        along = [min(max((p + 0.5) / s, 0), 1) for p, s in ((x, width), (y, height))]
        return corner + along[0] * across, bottom + (1 - along[1]) * down

    query = place(left, *look.query[1:])
    for key in reversed(look.keys):
        if key.cell[0] == cell:
            ends = query, place(right, *key.centre[1:])
            ends = ends if look.view == "row" else ends[::-1]
            ink.arrow(figure, *ends, key.weight / abs(look.keys[0].weight))
    ink.dot(figure, query)
    _bars(figure, sight, cell, bottom - 0.2 - BARS)
    return figure


def _head(figure: Figure, left: float, top: float, words: str) -> None:
    ink.text(figure, left, top + 0.06, words, SMALL, color=FAINT)


def _bars(figure: Figure, sight: Sight, cell: int, bottom: float) -> None:
    """The weight per frame of the grid, that which is shown in full colour."""
    parts, equal = sight.look.per_frame.sum(0).numpy(), equal_weight(sight.look)
    part = ink.axes(figure, MARGIN + 0.6, bottom, WIDTH - 2 * MARGIN - 0.6, BARS)
    part.set(xlim=(-0.5, max(len(parts), 4) - 0.5), ylim=(0, 1.1 * max(equal, *parts)))
    for i, weight in enumerate(parts):
        part.bar(i, weight, 0.7, color=ink.POSITIVE, alpha=1.0 if i == cell else 0.35)
    part.axhline(equal, color=FAINT, linewidth=0.7, linestyle=(0, (4, 3)))
    part.axhline(0, color=FAINT, linewidth=1)
    words = f"weight per frame · this one {percent(float(parts[cell]))} · dashed: if all were equal"
    ink.text(figure, MARGIN + 0.6, bottom - 0.2, words, SMALL, color=FAINT)

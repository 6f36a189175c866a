"""All that is drawn for one sight, from top to bottom: its figures in words; frames with the query
and arrows to its heaviest keys; the same frames darkened under all weights; the weight per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..look import Look, Panel, Sight, panels, percent, query_frame, shares
from . import ink
from .ink import FAINT, MARGIN, SMALL, TEXT, Axes, Figure

FRAMES = 8  # at most so many are shown
WIDTH = 13.0  # of the widest figure
LEFT, RIGHT, GAP = 0.95, 0.75, 0.08  # of the frames: room for names, for the scale, between them
PANEL, SINGLE = 2.4, 4.8  # largest width and height of a frame, and of the frame of an image
SMALL_PANEL = 1.5  # of the frames of a compact strip
LINE, LABEL, BARS, BELOW = 0.19, 0.2, 0.55, 0.38


@dataclass(frozen=True)
class Strip:
    """A sight and how it is laid out; `across` and `down` are the size of a frame.

    compact: only its words and the frames under all weights.
    """

    sight: Sight
    heading: tuple[str, ...]
    panels: tuple[Panel, ...]
    across: float
    down: float
    compact: bool = False

    @classmethod
    def of(cls, sight: Sight, heading: tuple[str, ...], compact: bool = False) -> Strip:
        count, height, width, _ = sight.frames.shape
        shown = panels(sight.look, count, FRAMES)
        largest = SMALL_PANEL if compact else PANEL if count > 1 else SINGLE
        room = (WIDTH - LEFT - RIGHT + GAP) / len(shown) - GAP
        across = min(room, largest, largest * width / height)
        return cls(sight, heading, shown, across, across * height / width, compact)

    @property
    def span(self) -> float:
        """Width of the row of frames."""
        return len(self.panels) * (self.across + GAP) - GAP

    @property
    def width(self) -> float:
        return LEFT + self.span + RIGHT

    @property
    def abridged(self) -> bool:
        """Whether the grid of keys has frames that are not shown."""
        return len(self.panels) < len(self.sight.look.weights)

    def height(self, width: float) -> float:
        """Of the whole strip in a figure of that width."""
        words = LINE * len([*self.heading, *self._words(width)])
        if self.compact:
            return words + LABEL + self.down + BELOW / 2
        bars = BARS + GAP if self.has_bars else 0
        return words + LABEL + 2 * self.down + GAP + bars + BELOW

    def draw(self, figure: Figure, top: float) -> None:
        for i, line in enumerate([*self.heading, *self._words(float(figure.get_figwidth()))]):
            weight = "normal" if i else "bold"
            ink.text(figure, MARGIN, top, line, TEXT, va="top", weight=weight)
            top -= LINE
        top -= LABEL + self.down
        self._draw_times(figure, top)
        if self.compact:
            self._draw_weights(figure, top)
            ink.dot(figure, self._on_figure(self._home, top, *self.sight.look.query[1:]))
            return
        self._draw_frames(figure, top)
        self._draw_arrows(figure, top)
        top -= GAP + self.down
        self._draw_weights(figure, top)
        if self.has_bars:
            self._draw_bars(figure, top - GAP - BARS)

    @property
    def has_bars(self) -> bool:
        return len(self.sight.look.weights) > 1 and not self.compact

    def _words(self, width: float) -> list[str]:
        keys, shown = self.sight.look.keys, {panel.cell for panel in self.panels}
        hidden = sum(key.cell[0] not in shown for key in keys)
        what = f"{hidden} of these {len(keys)} {self._heavy} are in frames not shown"
        note = (what,) if hidden and not self.compact else ()
        caveat = self.sight.look.caveat()
        phrases = (*self.sight.look.words(), *note, *((caveat,) if caveat else ()))
        return ink.lines(phrases, width - 2 * MARGIN, TEXT)

    @property
    def _heavy(self) -> str:
        return "keys" if self.sight.look.view == "row" else "queries"

    def _left(self, index: int) -> float:
        return LEFT + index * (self.across + GAP)

    def _name(self, figure: Figure, middle: float, words: str) -> None:
        """What a row shows, to the left of it."""
        style = {"color": FAINT, "ha": "right", "va": "center"}
        ink.text(figure, LEFT - 0.12, middle, words, SMALL, **style)

    @property
    def _home(self) -> int:
        """Which of the panels the query lies in."""
        frame = query_frame(self.sight.look, len(self.sight.frames))
        return next(i for i, panel in enumerate(self.panels) if panel.frame == frame)

    def _draw_times(self, figure: Figure, bottom: float) -> None:
        for i, panel in enumerate(self.panels):
            x, y = self._left(i) + self.across / 2, bottom + self.down + 0.05
            weight = "bold" if i == self._home else "normal"
            ink.text(figure, x, y, self.sight.when(panel.frame), SMALL, ha="center", weight=weight)

    def _draw_frames(self, figure: Figure, bottom: float) -> None:
        look = self.sight.look
        heavy = f"the {len(look.keys)}\nheaviest\n{self._heavy}"
        self._name(figure, bottom + self.down / 2, heavy)
        for i, panel in enumerate(self.panels):
            part = ink.axes(figure, self._left(i), bottom, self.across, self.down)
            ink.image(part, self.sight.frames[panel.frame].numpy(), self.across)

    def _draw_arrows(self, figure: Figure, bottom: float) -> None:
        look = self.sight.look
        place = {panel.cell: i for i, panel in enumerate(self.panels)}
        start = self._on_figure(self._home, bottom, *look.query[1:])
        for key in reversed(look.keys):  # so that the heaviest lies on top
            if key.cell[0] in place:
                end = self._on_figure(place[key.cell[0]], bottom, *key.centre[1:])
                ends = (start, end) if look.view == "row" else (end, start)
                ink.arrow(figure, *ends, key.weight / abs(look.keys[0].weight))
        ink.dot(figure, start)

    def _on_figure(self, index: int, bottom: float, y: float, x: float) -> ink.Place:
        """Where a pixel of that frame of the row lies."""
        _, height, width, _ = self.sight.frames.shape
        right = min(max((x + 0.5) / width, 0), 1) * self.across
        up = (1 - min(max((y + 0.5) / height, 0), 1)) * self.down
        return self._left(index) + right, bottom + up

    def _draw_weights(self, figure: Figure, bottom: float) -> None:
        look = self.sight.look
        weights = shares(look.weights.flatten()).view_as(look.weights).numpy()
        peak = float(np.abs(weights).max())
        self._name(figure, bottom + self.down / 2, f"all {look.seen}\nweights")
        for i, panel in enumerate(self.panels):
            part = ink.axes(figure, self._left(i), bottom, self.across, self.down)
            heat(part, self.sight, panel, weights / (peak or 1), self.across)
        if peak:
            self._draw_scale(figure, bottom, peak)

    def _draw_scale(self, figure: Figure, bottom: float, peak: float) -> None:
        """What the colours stand for, to the right of the frames."""
        signed = self.sight.look.negative > 0
        left = LEFT + self.span + GAP
        ink.ramp(ink.axes(figure, left, bottom, 0.1, self.down), -1.0 if signed else 0.0, 1.0)
        ends = [(1.0, percent(peak), "top"), (0.0, "0", "bottom")]
        if signed:
            ends[1:] = [(0.5, "0", "center"), (0.0, f"−{percent(peak)}", "bottom")]
        for height, words, va in ends:
            x, y = left + 0.14, bottom + height * self.down
            ink.text(figure, x, y, words, SMALL, color=FAINT, va=va)

    def _draw_bars(self, figure: Figure, bottom: float) -> None:
        look = self.sight.look
        positive, negative = look.per_frame.numpy()
        equal, slot = equal_weight(look), self.span / len(positive)
        high = 1.5 * max(equal, float((positive + negative).max()))
        self._name(figure, bottom + BARS / 2, "weight\nper frame")
        part = ink.axes(figure, LEFT, bottom, self.span, BARS)
        part.set(xlim=(0, self.span), ylim=(0, high))
        part.axhline(0, color=FAINT, linewidth=1)
        part.axhline(equal, color=FAINT, linewidth=0.7, linestyle=(0, (4, 3)), zorder=3)
        shown = {panel.cell: i for i, panel in enumerate(self.panels)}
        for cell, (more, less) in enumerate(zip(positive, negative, strict=True)):
            x = (cell + 0.5) * slot
            if not self.abridged:  # each bar below its frame
                x = self._left(shown[cell]) + self.across / 2 - LEFT
            _bar(part, x, min(0.5, 0.7 * slot), more, less, 1.0 if cell in shown else 0.4)
            if slot > 0.45:
                # above the line of equal weights, which would strike it through
                y = bottom + BARS * max(more + less, equal) / high + 0.03
                ink.text(figure, LEFT + x, y, percent(more + less), SMALL, ha="center")
        if self.abridged:
            for x, frame, ha in (
                (0.0, 0, "left"),
                (self.span, len(self.sight.frames) - 1, "right"),
            ):
                when = self.sight.when(frame)
                style = {"color": FAINT, "va": "top", "ha": ha}
                ink.text(figure, LEFT + x, bottom - 0.04, when, SMALL, **style)


def heat(
    part: Axes, sight: Sight, panel: Panel, weights: NDArray[np.float64], width: float
) -> None:
    """A frame in dark grey under its weights (T', H', W') in -1..1."""
    # each pixel takes the cell with the nearest centre, as a query does
    rows, columns = (
        np.floor((np.arange(size) - start) / step + 0.5).astype(int).clip(0, cells - 1)
        for size, cells, (step, start) in zip(
            sight.frames.shape[1:3], weights.shape[1:], sight.look.grid[1:], strict=True
        )
    )
    ink.image(part, ink.dimmed(sight.frames[panel.frame].numpy()), width)
    cells = weights[panel.cell][np.ix_(rows, columns)]
    part.imshow(ink.colours(cells), interpolation="nearest", aspect="auto")


def _bar(part: Axes, x: float, width: float, more: float, less: float, alpha: float) -> None:
    part.bar(x, more, width, color=ink.POSITIVE, alpha=alpha)
    if less:
        bars = part.bar(x, less, width, more, color=ink.NEGATIVE, alpha=alpha)
        for bar in bars:
            bar.set(hatch="////", edgecolor="white")


def equal_weight(look: Look) -> float:
    """The weight per frame if all weights were equal, of the frames that are seen."""
    frames, height, width = look.weights.shape
    return 1 / frames if look.mode == "time" else height * width / look.seen

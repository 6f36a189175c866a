"""What one position looks at, as a value: the row of a non-local block's map and its figures.

Points are (frame, y, x); frames and pixel centres lie at whole numbers. `attention` makes these
values, `picture` draws them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .layers import Grid
from .transforms import Box

Point = tuple[float, float, float]  # frame, y, x
Cell = tuple[int, int, int]
View = Literal["row", "column"]  # what a position looks at; who looks at it


@dataclass(frozen=True)
class Key:
    """One of the heaviest keys of a row: its weight, its cell, and the centre of that cell."""

    weight: float
    cell: Cell
    centre: Point


@dataclass(frozen=True, eq=False)
class Look:
    """What one query position looks at, in one block; or which queries look at one position.

    The first is a row of the map over all keys. The second, view "column", holds of each query
    the share of its weight on this key; read "query" for "key" then, and "key" for "query".

    Weights may be negative (dot product, functions of the user's), so shares, entropy and
    departure are those of the distribution |w| / sum |w|; for a softmax that is the row itself.

    network, block, pairwise, mode: names; the block is named by the module it follows, and by
        nothing where there is none, as in NL-means.
    awake: False while the block's output is exactly its input, so that the map is without effect.
    exact: whether centres follow from the network's strides and paddings; if not, the cells are
        taken to divide the clip evenly.
    sample: which clip of the batch.
    query: the point asked for; cell: where it fell on the block's grid; centre: of that cell.
    weights: (T', H', W') float64 over the grid of keys, zero where the query does not see.
    grid: (stride, offset) per axis: key cell k is centred at offset + stride * k.
    seen: number of keys the query sees.
    keys: the heaviest by |w|, heaviest first, at most `top`, weights of zero left out.
    share, uniform: what the `top` heaviest keys hold together, and what as many would hold if
        all weights were equal.
    negative: share of the negative weights.
    entropy: in nats; relative_entropy: divided by that of equal weights, so 1 is "everywhere".
    dependence: of the block in this clip: the mean total variation distance, 0 to 1, of rows from
        their average, for queries spread over the clip. Near 0, it looks at the same places
        whatever the query.
    departure: of this row from that average; NaN in a column.
    received: in a column, how much weight the position gets from all queries together, for 1 that
        it would get if all weights were equal; NaN in a row.
    """

    network: str
    block: str
    pairwise: str
    mode: str
    awake: bool
    exact: bool
    sample: int
    query: Point
    cell: Cell
    centre: Point
    weights: Tensor
    grid: Grid
    seen: int
    top: int
    keys: tuple[Key, ...]
    share: float
    uniform: float
    negative: float
    entropy: float
    relative_entropy: float
    dependence: float
    departure: float = math.nan
    received: float = math.nan
    view: View = "row"

    @property
    def per_frame(self) -> Tensor:
        """Shares of |w| by frame of the key grid, positive and negative ones: (2, T'), sum 1."""
        parts = shares(self.weights.flatten()).view_as(self.weights)
        return torch.stack([parts.clamp(min=0), -parts.clamp(max=0)]).sum((2, 3))

    def words(self) -> tuple[str, ...]:
        """The figures that say how much there is to see in this map, one phrase each."""
        if not self.keys:
            what = "row" if self.view == "row" else "column"
            return (f"every weight of this {what} is zero",)
        phrases = [
            f"top-{self.top} hold {percent(self.share)} (uniform {percent(self.uniform)})",
            f"entropy {self.entropy:.2f} nats, {percent(self.relative_entropy)} of uniform",
        ]
        if self.view == "row":
            phrases.append(
                f"differs {percent(self.departure)} from the average map"
                f" (all queries: {percent(self.dependence)})"
            )
        else:
            phrases.append(f"receives {self.received:.2g} times an equal share")
        return (*phrases, f"{percent(self.negative)} negative") if self.negative else (*phrases,)

    def caveat(self) -> str:
        """What the pairwise function by itself makes of any map; often nothing."""
        if self.pairwise != "concatenation" or self.view != "row":
            return ""
        active = int((self.weights != 0).sum())
        return (
            f"concatenation orders all keys alike: every query with at least {self.top} active keys"
            f" has the same top-{self.top}, and queries differ in how many are active (here"
            f" {active} of {self.seen})"
        )

    def moved(self, scale: Point, shift: Point) -> Look:
        """The same look in other coordinates, scale * p + shift on each axis."""

        def move(point: Point) -> Point:
            t, y, x = (p * a + b for p, a, b in zip(point, scale, shift, strict=True))
            return t, y, x

        t, h, w = (
            (step * a, start * a + b)
            for (step, start), a, b in zip(self.grid, scale, shift, strict=True)
        )
        return dataclasses.replace(
            self,
            query=move(self.query),
            centre=move(self.centre),
            grid=(t, h, w),
            keys=tuple(dataclasses.replace(key, centre=move(key.centre)) for key in self.keys),
        )


def percent(share: float) -> str:
    """A share as text with two figures: 63 %, 6.3 %, 0.63 %, 0.06 %."""
    value = 100 * share
    if 0 < value < 0.005:
        return "< 0.01 %"
    places = 0 if value >= 9.95 or value == 0 else 1 if value >= 0.995 else 2
    return f"{value:.{places}f} %"


def shares(weights: Tensor) -> Tensor:
    """Signed shares w / sum |w| of rows (..., Q); zeros if all weights are."""
    total = weights.abs().sum(-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1)


def centre_of(cell: Cell, grid: Grid) -> Point:
    """The point at the centre of a cell."""
    t, y, x = (start + step * i for i, (step, start) in zip(cell, grid, strict=True))
    return t, y, x


@dataclass(frozen=True, eq=False)
class Sight:
    """A look together with the frames it belongs to: all that a picture of it needs.

    frames: (T, H, W, 3) uint8, the clip in whose pixels the look's points are.
    seconds: time of each frame in its video; None where there is no clock.
    path: the video, if there is one. box: the square of the video's frame that `frames` show.
    """

    look: Look
    frames: Tensor
    seconds: tuple[float, ...] | None = None
    path: str = ""
    box: Box | None = None

    def in_video(self) -> Look:
        """The look with y and x in pixels of the original video; frames stay the clip's."""
        if self.box is None:
            return self.look
        top, left, side = self.box
        scale = side / self.frames.shape[1]
        return self.look.moved(
            (1, scale, scale), (0, top + (scale - 1) / 2, left + (scale - 1) / 2)
        )

    def when(self, frame: int) -> str:
        """The time of a frame of the clip in words; an image has none."""
        if self.seconds is not None:
            return f"{self.seconds[frame]:.2f} s"
        return f"frame {frame}" if len(self.frames) > 1 else ""

    def where(self) -> str:
        """The query in words: from, or in a column to, which pixel, and when."""
        _, y, x = self.in_video().query
        when = self.when(query_frame(self.look, len(self.frames)))
        way = "from" if self.look.view == "row" else "to"
        return f"{way} x {x:.0f}, y {y:.0f}" + (f" at {when}" if when else "")


@dataclass(frozen=True)
class Panel:
    """A frame that is shown, and the frame of the key grid that it stands for."""

    frame: int
    cell: int


def panels(look: Look, frames: int, at_most: int) -> tuple[Panel, ...]:
    """The frames to show, in order: at most one for each frame of the key grid.

    Always the query's own; of a longer grid also those that hold most of the heaviest keys' weight
    (all but two), and then those furthest in time from the ones chosen before.
    """
    step, start = look.grid[0]
    centres = [start + step * cell for cell in range(look.weights.shape[0])]
    query = query_frame(look, frames)
    # halves go down: a cell over frames 0 and 1 is shown by frame 0
    nearest = [min(max(math.ceil(c - 0.5), 0), frames - 1) for c in centres]
    own = min(range(len(centres)), key=lambda cell: abs(centres[cell] - query))
    nearest[own] = query
    held = [0.0] * len(centres)
    for key in look.keys:
        held[key.cell[0]] += abs(key.weight)
    chosen = [own]
    for cell in sorted(range(len(held)), key=lambda cell: -held[cell])[: at_most - 2]:
        if cell not in chosen and held[cell]:
            chosen.append(cell)
    while len(chosen) < min(at_most, len(centres)):
        away = [min(abs(cell - other) for other in chosen) for cell in range(len(centres))]
        chosen.append(away.index(max(away)))
    return tuple(Panel(nearest[cell], cell) for cell in sorted(chosen))


def query_frame(look: Look, frames: int) -> int:
    """The frame that a query lies in."""
    return min(max(math.ceil(look.query[0] - 0.5), 0), frames - 1)

"""What chosen positions look at, and who looks at them: a non-local block's map on the clip.

The paper's Figure 3 in numbers; `picture` draws them. Points are (frame, y, x) in the clip given to
the network; frames and pixel centres lie at whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from .errors import UserError
from .layers import Grid
from .look import Cell, Key, Look, Point, View, centre_of, shares
from .scene import Scene, scenes, spread

Unit = Literal["pixel", "fraction"]


def attend(
    model: nn.Module,
    clip: Tensor,
    queries: Sequence[Sequence[float]] | None = None,
    block: str | Sequence[str] | None = None,
    top: int = 20,
    *,
    unit: Unit = "pixel",
    count: int = 3,
    view: View = "row",
) -> tuple[Look, ...]:
    """What query positions of a clip look at, in one or more of the network's non-local blocks.

    The clip goes through the network as usual, in eval mode and without gradients; afterwards
    every module is back in the mode it had.

    Args:
        model: a network with non-local blocks, made here or edited by `insert`.
        clip: normalised, as the network takes it: (3, T, H, W) or (N, 3, T, H, W). For a network
            of images (its first convolution is 2-D), (3, H, W) or (N, 3, H, W).
        queries: points (frame, y, x), or (y, x) for images. None: `count` of them are chosen in
            the last of the blocks, those whose rows differ most from the average query's row and
            from each other.
        block: the module that the block follows, such as "layer3.4", or several, or "all". None:
            the last block.
        top: how many of the heaviest keys to name; the paper draws 20.
        unit: of the queries: "pixel" (frames and pixels), or "fraction" of the clip's length,
            height and width.
        count: how many queries to choose.
        view: "row", what the point looks at; "column", which queries look at it.

    Returns:
        One `Look` per clip, query and block, in this order.

    Raises:
        UserError: a network without that block, a query outside the clip.
        ValueError: a clip of another shape, features that do not belong to one clip each.
    """
    if top < 1 or count < 1:
        raise ValueError(f"top and count must be at least 1, not {top} and {count}")
    clips = scenes(model, clip, block)
    size = clips[0][0].size
    points = None if queries is None else [as_point(query, size, unit) for query in queries]
    looks: list[Look] = []
    for of_clip in clips:
        maps = [Map(scene) for scene in of_clip]
        asked = maps[-1].informative(count) if points is None else points
        by_block = [m.looks(asked, top, view) for m in maps]
        looks += [look for of_query in zip(*by_block, strict=True) for look in of_query]
    return tuple(looks)


class Map:
    """The map of a block in a scene, and what its rows are like.

    cells: queries spread over the clip, of those that see most keys. shares: (q, Q), their rows.
    average: (Q,), the mean of these. dependence: how far they are from it, see `Look`.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        sees = {cell: scene.sees(cell) for cell in spread(scene.cells)}
        self.cells = [cell for cell, keys in sees.items() if keys == max(sees.values())]
        rows = zip(self.cells, scene.rows(self.cells), strict=True)
        self.shares = torch.stack([scene.shares(*row) for row in rows])
        self.average = self.shares.mean(0)
        self.dependence = float((self.shares - self.average).abs().sum(1).mean() / 2)

    def informative(self, count: int) -> list[Point]:
        """The centres of the queries whose rows tell most, as `attend` chooses them."""
        chosen = _informative(self.shares, self.average, count)
        return [centre_of(self.cells[i], self.scene.grid) for i in chosen]

    def looks(self, points: Sequence[Point], top: int, view: View) -> list[Look]:
        """One look per point."""
        if not points:
            return []
        return (self._rows if view == "row" else self._columns)(points, top)

    def _rows(self, points: Sequence[Point], top: int) -> list[Look]:
        scene, found = self.scene, []
        cells = [scene.cell(point) for point in points]
        for point, cell, weights in zip(points, cells, scene.rows(cells), strict=True):
            row = scene.shares(cell, weights)
            average = self.average
            if len(row) < len(average):  # see `Scene.shares`
                average = shares(average[-len(row) :])
            look = self._look(point, cell, weights, row, top, "row")
            departure = float((row - average).abs().sum() / 2)
            found.append(replace(look, departure=departure))
        return found

    def _columns(self, points: Sequence[Point], top: int) -> list[Look]:
        scene, found = self.scene, []
        keys = [scene.key_cell(point) for point in points]
        for point, key, weights in zip(points, keys, scene.columns(keys), strict=True):
            equal = scene.equal(key)
            column = shares(weights[equal > 0])
            look = self._look(point, key, weights, column, top, "column")
            found.append(replace(look, received=float(weights.abs().sum() / equal.sum())))
        return found

    def _look(
        self,
        point: Point,
        cell: Cell,
        weights: Tensor,
        parts: Tensor,
        top: int,
        view: View,
    ) -> Look:
        """A look without what only one of the views has. parts: shares of what is seen."""
        scene, seen, sizes = self.scene, len(parts), parts.abs()
        here, there = scene.grid, scene.key_grid
        if view == "column":
            here, there = there, here
        entropy = float(-torch.special.xlogy(sizes, sizes).sum())
        flat = weights.flatten()
        order = flat.abs().argsort(descending=True, stable=True)[: min(top, seen)].tolist()
        return Look(
            network=scene.network,
            block=scene.name,
            pairwise=scene.pairwise,
            mode=scene.block.mode,
            awake=scene.block.is_awake(),
            exact=scene.exact,
            sample=scene.sample,
            query=point,
            cell=cell,
            centre=centre_of(cell, here),
            weights=weights,
            grid=there,
            seen=seen,
            top=top,
            keys=tuple(_key(weights, i, there) for i in order if flat[i]),
            share=float(sizes.sort(descending=True).values[:top].sum()),
            uniform=min(top, seen) / seen,
            negative=float(parts.clamp(max=0).abs().sum()),
            entropy=entropy,
            relative_entropy=entropy / math.log(seen) if seen > 1 else 1.0,
            dependence=self.dependence,
            view=view,
        )


def _key(weights: Tensor, index: int, grid: Grid) -> Key:
    _, height, width = weights.shape
    cell = (index // (height * width), index // width % height, index % width)
    return Key(float(weights[cell]), cell, centre_of(cell, grid))


def as_point(query: Sequence[float], size: Cell, unit: Unit = "pixel") -> Point:
    """A query as (frame, y, x), checked to lie in the clip."""
    frames, height, width = size
    point = (0.0, *query) if len(query) == 2 and frames == 1 else tuple(query)
    if len(point) == 3 and unit == "fraction":
        point = tuple(p * s - 0.5 for p, s in zip(point, size, strict=True))
        if frames == 1:
            point = (0.0, *point[1:])
    if len(point) != 3 or not all(-0.5 <= p <= s - 0.5 for p, s in zip(point, size, strict=True)):
        raise UserError(
            f"query {tuple(query)} does not lie in the clip: expected (frame, y, x) in {unit}s of"
            f" {frames} frames of {height} x {width}"
        )
    return point[0], point[1], point[2]


def _informative(rows: Tensor, average: Tensor, count: int) -> list[int]:
    """The rows (q, Q) that tell most: each the furthest from the average and those before it.

    Distance is total variation. Farthest-first traversal (Gonzalez 1985), begun at the average.
    """
    chosen: list[int] = []
    nearest = (rows - average).abs().sum(1)
    for _ in range(min(count, len(rows))):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (rows - rows[chosen[-1]]).abs().sum(1))
        nearest[chosen] = -1  # where all rows are alike, not the same one again
    return chosen

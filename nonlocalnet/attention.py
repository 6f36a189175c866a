"""What chosen positions look at: rows of a non-local block's map, on the pixels of the clip.

The paper's Figure 3 in numbers; `picture` draws them. A row holds the weights f(x_i, x_j) / C(x)
of one query position i over all key positions j. Only the rows asked for are computed, from what
the block received in an ordinary forward pass.

Points are (frame, y, x) in the clip given to the network; frames and pixel centres lie at whole
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from .block import NonLocalBlock
from .card import Card
from .errors import UserError
from .layers import Grid
from .look import Cell, Key, Look, Point, centre_of, shares
from .mobilenet import MobileNet3d
from .positions import visible
from .resnet import ResNet3d
from .surgery import blocks

Box = tuple[slice, slice, slice]
Unit = Literal["pixel", "fraction"]

CANDIDATES = 64  # at most so many queries make the average map; the automatic ones are among them


def attend(
    model: nn.Module,
    clip: Tensor,
    queries: Sequence[Sequence[float]] | None = None,
    block: str | None = None,
    top: int = 20,
    *,
    unit: Unit = "pixel",
    count: int = 3,
) -> tuple[Look, ...]:
    """What query positions of a clip look at, in one of the network's non-local blocks.

    The clip goes through the network as usual, in eval mode and without gradients; afterwards
    every module is back in the mode it had.

    Args:
        model: a network with non-local blocks, made here or edited by `insert`.
        clip: normalised, as the network takes it: (3, T, H, W) or (N, 3, T, H, W). For a network
            of images (its first convolution is 2-D), (3, H, W) or (N, 3, H, W).
        queries: points (frame, y, x), or (y, x) for images. None: `count` of them are chosen,
            those whose rows differ most from the average query's row and from each other.
        block: the module that the block follows, such as "layer3.4". None: the last block.
        top: how many of the heaviest keys to name; the paper draws 20.
        unit: of the queries: "pixel" (frames and pixels), or "fraction" of the clip's length,
            height and width.
        count: how many queries to choose.

    Returns:
        One `Look` per clip and query, clip after clip.

    Raises:
        UserError: a network without that block, a query outside the clip.
        ValueError: a clip of another shape, features that do not belong to one clip each.
    """
    if top < 1 or count < 1:
        raise ValueError(f"top and count must be at least 1, not {top} and {count}")
    name, found = _choose(model, block)
    batch = _batch(model, clip)
    scene = _scene(model, name, found, batch, _received(model, found, name, batch))
    points = None if queries is None else [_point(query, scene.size, unit) for query in queries]
    cells = [scene.cell(point) for point in points or []]
    spread = _spread(scene.cells)
    rows = scene.rows([*cells, *spread])  # (N, queries, T', H', W')
    looks: list[Look] = []
    for sample, maps in enumerate(rows):
        common = torch.stack(
            [scene.row(c, w) for c, w in zip(spread, maps[len(cells) :], strict=True)]
        )
        average = common.mean(0)
        asked = list(zip(points or [], cells, maps, strict=False))
        if points is None:
            chosen = _informative(common, average, count)
            asked = [(scene.centre(spread[i]), spread[i], maps[i]) for i in chosen]
        looks += [scene.look(sample, *query, average, top) for query in asked]
    return tuple(looks)


@dataclass(frozen=True, eq=False)
class _Scene:
    """A block, the features it received, and where their cells lie in the clip."""

    network: str
    name: str
    block: NonLocalBlock
    x: Tensor  # (N, C, *positions)
    size: Cell  # frames, height and width of the clip
    cells: Cell  # of the features
    grid: Grid  # of the features
    exact: bool

    @property
    def key_grid(self) -> Grid:
        # a key cell that pools k feature cells is centred between them
        pooled = _three(self.block.key_stride(self.x.shape[2:]))
        t, h, w = (
            (step * k, start + step * (k - 1) / 2)
            for (step, start), k in zip(self.grid, pooled, strict=True)
        )
        return t, h, w

    def cell(self, point: Point) -> Cell:
        """The cell whose centre is nearest."""
        t, h, w = (
            min(max(math.floor((p - start) / step + 0.5), 0), size - 1)
            for p, (step, start), size in zip(point, self.grid, self.cells, strict=True)
        )
        return t, h, w

    def centre(self, cell: Cell) -> Point:
        return centre_of(cell, self.grid)

    def rows(self, cells: Sequence[Cell]) -> Tensor:
        """(N, len(cells), T', H', W') on the CPU."""
        axes = self.x.dim() - 2
        with torch.inference_mode():
            rows = self.block.rows(self.x, [cell[3 - axes :] for cell in cells])
            rows = rows.double().cpu()
        rows = rows.clone()  # an ordinary tensor, which inference mode does not give
        if not bool(torch.isfinite(rows).all()):
            raise UserError(
                "the block's weights are not numbers (NaN or infinity): the network is damaged or"
                " its training diverged, so there is nothing to look at; use another checkpoint"
            )
        return rows if axes == 3 else rows.unsqueeze(2)

    def row(self, cell: Cell, weights: Tensor) -> Tensor:
        """The shares of the keys that a query sees, (Q,): comparable between queries."""
        block = self.block
        seen = visible(cell, block.mode, block.temporal_group, block.causal)
        return shares(weights[seen].flatten())

    def look(
        self, sample: int, point: Point, cell: Cell, weights: Tensor, average: Tensor, top: int
    ) -> Look:
        row = self.row(cell, weights)
        seen = len(row)
        sizes = row.abs()
        entropy = float(-torch.special.xlogy(sizes, sizes).sum())
        order = weights.abs().flatten().argsort(descending=True, stable=True)[: min(top, seen)]
        pairwise = self.block.pairwise
        return Look(
            network=self.network,
            block=self.name,
            pairwise=pairwise if isinstance(pairwise, str) else "custom",
            mode=self.block.mode,
            awake=self.block.is_awake(),
            exact=self.exact,
            sample=sample,
            query=point,
            cell=cell,
            centre=self.centre(cell),
            weights=weights,
            grid=self.key_grid,
            seen=seen,
            top=top,
            keys=tuple(self._key(weights, int(i)) for i in order if weights.flatten()[i]),
            share=float(sizes.sort(descending=True).values[:top].sum()),
            uniform=min(top, seen) / seen,
            negative=float(row.clamp(max=0).abs().sum()),
            entropy=entropy,
            relative_entropy=entropy / math.log(seen) if seen > 1 else 1.0,
            departure=float((row - average).abs().sum() / 2),
        )

    def _key(self, weights: Tensor, index: int) -> Key:
        _, height, width = weights.shape
        cell = (index // (height * width), index // width % height, index % width)
        return Key(float(weights[cell]), cell, centre_of(cell, self.key_grid))


def _scene(model: nn.Module, name: str, block: NonLocalBlock, batch: Tensor, x: Tensor) -> _Scene:
    if len(x) != len(batch):
        raise ValueError(
            f"the block after {name!r} received features {tuple(x.shape)} for a batch of"
            f" {len(batch)}; attend needs features that belong to one clip each"
        )
    size, cells = _three(batch.shape[2:]), _three(x.shape[2:])
    grid = _grid(model, name)
    card = getattr(model, "card", None)
    network = card.architecture.get("name") if isinstance(card, Card) else None
    return _Scene(
        network or type(model).__name__,
        name,
        block,
        x,
        size,
        cells,
        grid or _even(size, cells),
        grid is not None,
    )


def _choose(model: nn.Module, name: str | None) -> tuple[str, NonLocalBlock]:
    found = blocks(model)
    if not found:
        raise UserError(
            f"this {type(model).__name__} has no non-local block, so there is no map to look at;"
            " train one with --non-local, or insert() a block"
        )
    name = list(found)[-1] if name is None else name
    if name not in found:
        raise UserError(f"no non-local block after {name!r}; there is one after {', '.join(found)}")
    return name, found[name]


def _batch(model: nn.Module, clip: Tensor) -> Tensor:
    """The clip as a batch of clips or images, where the network's weights are."""
    convs = (m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
    axes = 2 if isinstance(next(convs, None), nn.Conv2d) else 3
    batch = clip.unsqueeze(0) if clip.dim() == axes + 1 else clip
    # a network of 2-D layers may still take clips and fold their frames itself
    if not batch.is_floating_point() or batch.dim() not in {axes + 2, 5} or 0 in batch.shape:
        expected = "(3, T, H, W) or (N, 3, T, H, W)" if axes == 3 else "(3, H, W) or (N, 3, H, W)"
        raise ValueError(
            f"expected a normalised float tensor {expected}, not {clip.dtype} {tuple(clip.shape)}"
        )
    weight = next((p for p in model.parameters() if p.is_floating_point()), batch)
    return batch.to(weight.device, weight.dtype)


def _received(model: nn.Module, block: NonLocalBlock, name: str, batch: Tensor) -> Tensor:
    """What the block gets for its input when the network sees the batch."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with _listening(block) as inputs, torch.inference_mode():
            model(batch)
    finally:
        # one by one: a frozen part may have been in eval mode inside a training network
        for module, training in modes:
            module.training = training
    if len(inputs) != 1:
        raise ValueError(
            f"the block after {name!r} was called {len(inputs)} times in one forward pass; attend"
            " needs it called once"
        )
    return inputs[0]


@contextmanager
def _listening(block: NonLocalBlock) -> Iterator[list[Tensor]]:
    inputs: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    try:
        yield inputs
    finally:
        handle.remove()


def _grid(model: nn.Module, name: str) -> Grid | None:
    """The exact grid of a block's features, where the network knows it."""
    if not isinstance(model, ResNet3d | MobileNet3d):
        return None
    try:
        return model.grid(name)
    except ValueError:  # a place inside a block
        return None


def _even(size: Cell, cells: Cell) -> Grid:
    """Cells that divide the clip evenly: cell i is centred at (i + 1/2) size / cells - 1/2."""
    t, h, w = ((s / c, s / c / 2 - 0.5) for s, c in zip(size, cells, strict=True))
    return t, h, w


def _three(shape: Sequence[int]) -> Cell:
    """(T, H, W); an image has one frame."""
    if not 2 <= len(shape) <= 3:
        raise ValueError(f"attend is for images and clips; positions came as {tuple(shape)}")
    return (1, shape[0], shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])


def _point(query: Sequence[float], size: Cell, unit: Unit) -> Point:
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


def _spread(cells: Cell) -> list[Cell]:
    """At most `CANDIDATES` cells spread evenly over a grid, without its border where there is room.

    Zero padding makes the rows of border cells unlike all others, and says nothing of the clip.
    """
    borders = [0, *(int(size >= 4) for size in cells[1:])]
    inner = [size - 2 * border for size, border in zip(cells, borders, strict=True)]
    steps = [1, 1, 1]
    while math.prod(-(-c // s) for c, s in zip(inner, steps, strict=True)) > CANDIDATES:
        counts = [c / s for c, s in zip(inner, steps, strict=True)]
        steps[counts.index(max(counts))] += 1
    axes = (
        range(border + step // 2, border + size, step)
        for border, size, step in zip(borders, inner, steps, strict=True)
    )
    return [(t, h, w) for t, h, w in product(*axes)]


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

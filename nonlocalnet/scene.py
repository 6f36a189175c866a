"""A non-local block as it stands in a network that sees a clip: its features, and where they lie.

A row of its map holds the weights f(x_i, x_j) / C(x) of one query i over all keys j, a column those
of all queries on one key. Only what is asked for is computed, from what the block received in an
ordinary forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor, nn

from .block import NonLocalBlock
from .card import Card
from .errors import UserError
from .grids import Axes, tracing
from .layers import Grid
from .look import Cell, Point, shares
from .mobilenet import MobileNet3d
from .modes import evaluating
from .positions import visible
from .resnet import ResNet3d
from .surgery import blocks

CANDIDATES = 64  # at most so many queries make the average map; the automatic ones are among them
WEIGHTS_AT_ONCE = 1 << 21  # 16 MB


@dataclass(frozen=True, eq=False)
class Scene:
    """A block, the features it received, and where their cells lie in the clip.

    sample: which clip of the batch. x: (1, C, *positions) of this clip.
    size: frames, height and width of the clip; cells: those of the features.
    grid: of the features, (stride, offset) per axis; exact: whether it follows from the network's
    layers; if not, the cells are taken to divide the clip evenly.
    """

    network: str
    name: str
    block: NonLocalBlock
    sample: int
    x: Tensor
    size: Cell
    cells: Cell
    grid: Grid
    exact: bool

    @cached_property
    def pooled(self) -> Cell:
        """Cells of the features per key cell."""
        return three(self.block.key_stride(self.x.shape[2:]))

    @cached_property
    def keys(self) -> Cell:
        """Size of the grid of keys."""
        return three(self.block.key_grid(self.x.shape[2:]))

    @cached_property
    def key_grid(self) -> Grid:
        # a key cell that pools k feature cells is centred between them
        t, h, w = (
            (step * k, start + step * (k - 1) / 2)
            for (step, start), k in zip(self.grid, self.pooled, strict=True)
        )
        return t, h, w

    @property
    def pairwise(self) -> str:
        """The name of the pairwise function; "custom" is one of the user's."""
        return self.block.pairwise if isinstance(self.block.pairwise, str) else "custom"

    def cell(self, point: Point) -> Cell:
        """The cell of the features whose centre is nearest."""
        return nearest(point, self.grid, self.cells)

    def key_cell(self, point: Point) -> Cell:
        """The cell of the keys whose centre is nearest."""
        return nearest(point, self.key_grid, self.keys)

    def rows(self, cells: Sequence[Cell]) -> Tensor:
        """(len(cells), T', H', W') float64 on the CPU, over the grid of keys."""
        axes = self.x.dim() - 2
        with torch.inference_mode():
            rows = self.block.rows(self.x, [cell[3 - axes :] for cell in cells])[0]
            rows = rows.double().cpu()
        rows = rows.clone()  # an ordinary tensor, which inference mode does not give
        if not bool(torch.isfinite(rows).all()):
            raise UserError(
                "the block's weights are not numbers (NaN or infinity): the network is damaged or"
                " its training diverged, so there is nothing to look at; use another checkpoint"
            )
        return rows if axes == 3 else rows.unsqueeze(1)

    def every_row(self) -> Iterator[tuple[list[Cell], Tensor]]:
        """The rows of all queries in order, some at a time, as (cells, rows)."""
        for some in self.portions():
            yield some, self.rows(some)

    def portions(self) -> Iterator[list[Cell]]:
        """All queries in order, as many at once as have a bounded number of weights."""
        cells = [(t, h, w) for t, h, w in product(*map(range, self.cells))]
        at_once = max(1, WEIGHTS_AT_ONCE // math.prod(self.keys))
        for i in range(0, len(cells), at_once):
            yield cells[i : i + at_once]

    def columns(self, keys: Sequence[Cell]) -> Tensor:
        """What share of each query's weight falls on some keys: (len(keys), T, H, W), signed.

        Zero where the query does not see the key. Memory is that of the result.
        """
        t, h, w = (torch.tensor(axis) for axis in zip(*keys, strict=True))
        parts = []
        for _, rows in self.every_row():
            parts.append(shares(rows.flatten(1)).view_as(rows)[:, t, h, w])
        return torch.cat(parts).mT.unflatten(1, self.cells)

    def seen(self, cell: Cell) -> tuple[slice, ...]:
        """The part of the grid of keys that a query sees."""
        block = self.block
        return visible(cell, block.mode, block.temporal_group, block.causal)

    def sees(self, cell: Cell) -> int:
        """How many keys a query sees."""
        return torch.empty(self.keys)[self.seen(cell)].numel()

    def shares(self, cell: Cell, weights: Tensor) -> Tensor:
        """The shares of the keys that a query sees, comparable between queries.

        Causal queries near the beginning see fewer, which are the last of what others see.

        weights: (T', H', W'), its row -> (Q,).
        """
        return shares(weights[self.seen(cell)].flatten())

    def equal(self, key: Cell) -> Tensor:
        """The share of each query's weight on a key if all weights were equal: (T, H, W)."""
        found = torch.zeros(self.cells, dtype=torch.float64)
        queries = key[1:] if self.block.mode == "time" else (slice(None), slice(None))
        for t in range(self.cells[0]):
            seen = torch.zeros(self.keys)
            seen[self.seen((t, *key[1:]))] = 1
            found[(t, *queries)] = seen[key] / seen.sum()
        return found


def scenes(
    model: nn.Module, clip: Tensor, names: str | Sequence[str] | None = None
) -> tuple[tuple[Scene, ...], ...]:
    """The named blocks in a network that sees some clips, for each clip; one forward pass.

    The network runs in eval mode and without gradients; afterwards every module is in the mode it
    had.

    clip: (3, T, H, W) or (N, 3, T, H, W), normalised; of an image network (3, H, W) or
        (N, 3, H, W).
    names: modules that blocks follow, such as "layer3.4". None: the last block. "all": all.

    Raises `UserError` for a network without that block, `ValueError` for a clip of another shape
    and for features that do not belong to one clip each.
    """
    found = _choose(model, names)
    batch = as_batch(model, clip)
    received: dict[str, list[Tensor]] = {name: [] for name in found}
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        known = stack.enter_context(tracing(model, batch.shape[2:]))
        for name, block in found.items():
            keep = received[name].append
            hook = block.register_forward_pre_hook(lambda _, args, keep=keep: keep(args[0]))
            stack.callback(hook.remove)
        with torch.inference_mode():
            model(batch)
    made = [
        _scenes(model, name, block, batch, received[name], known) for name, block in found.items()
    ]
    return tuple(zip(*made, strict=True))


def _scenes(
    model: nn.Module,
    name: str,
    block: NonLocalBlock,
    batch: Tensor,
    inputs: Sequence[Tensor],
    known: dict[tuple[int, ...], Axes | None],
) -> Iterator[Scene]:
    """One block, clip by clip."""
    if len(inputs) != 1:
        raise ValueError(
            f"the block after {name!r} was called {len(inputs)} times in one forward pass; attend"
            " needs it called once"
        )
    (x,) = inputs
    if len(x) != len(batch):
        raise ValueError(
            f"the block after {name!r} received features {tuple(x.shape)} for a batch of"
            f" {len(batch)}; attend needs features that belong to one clip each"
        )
    size, cells = three(batch.shape[2:]), three(x.shape[2:])
    grid = _own_grid(model, name) or _traced(known.get(tuple(x.shape[2:])))
    card = getattr(model, "card", None)
    network = card.architecture.get("name") if isinstance(card, Card) else None
    network = network or type(model).__name__
    exact, grid = grid is not None, grid or _even(size, cells)
    for i in range(len(x)):
        yield Scene(network, name, block, i, x[i : i + 1], size, cells, grid, exact)


def _choose(model: nn.Module, names: str | Sequence[str] | None) -> dict[str, NonLocalBlock]:
    found = blocks(model)
    if not found:
        raise UserError(
            f"this {type(model).__name__} has no non-local block, so there is no map to look at;"
            " train one with --non-local, or insert() a block"
        )
    if names is None or names == "all":
        names = list(found) if names else list(found)[-1:]
    names = [names] if isinstance(names, str) else names
    for name in names:
        if name not in found:
            there = ", ".join(found)
            raise UserError(f"no non-local block after {name!r}; there is one after {there}")
    return {name: found[name] for name in names}


def as_batch(model: nn.Module, clip: Tensor) -> Tensor:
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


def _own_grid(model: nn.Module, name: str) -> Grid | None:
    """The grid of a block's features, where the network knows it by itself."""
    if not isinstance(model, ResNet3d | MobileNet3d):
        return None
    try:
        return model.grid(name)
    except ValueError:  # a place inside a block
        return None


def _traced(axes: Axes | None) -> Grid | None:
    if axes is None:
        return None
    t, h, w = axes if len(axes) == 3 else ((1.0, 0.0), *axes)
    return t, h, w


def _even(size: Cell, cells: Cell) -> Grid:
    """Cells that divide the clip evenly: cell i is centred at (i + 1/2) size / cells - 1/2."""
    t, h, w = ((s / c, s / c / 2 - 0.5) for s, c in zip(size, cells, strict=True))
    return t, h, w


def three(shape: Sequence[int]) -> Cell:
    """(T, H, W); an image has one frame."""
    if not 2 <= len(shape) <= 3:
        raise ValueError(f"attend is for images and clips; positions came as {tuple(shape)}")
    return (1, shape[0], shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])


def nearest(point: Point, grid: Grid, cells: Cell) -> Cell:
    """The cell of a grid whose centre is nearest to a point."""
    t, h, w = (
        min(max(math.floor((p - start) / step + 0.5), 0), size - 1)
        for p, (step, start), size in zip(point, grid, cells, strict=True)
    )
    return t, h, w


def spread(cells: Cell) -> list[Cell]:
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

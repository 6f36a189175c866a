"""Features as rows of positions: which there are, which of them see each other, which are pooled.

Positions are ordered as (T, H, W). What sees each other shares a row of the batch: the frames of a
group ("space" is a group of one frame), or the times of one place ("time").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Mode = Literal["spacetime", "space", "time"]


def to_tokens(x: Tensor) -> Tensor:
    """(N, C, *positions) -> (N, P, C), a view where x is channels-last."""
    return x.flatten(2).transpose(1, 2)


def to_rows(x: Tensor) -> Tensor:
    """`to_tokens` for several products: copied at once where each product would copy it."""
    tokens = to_tokens(x)
    return tokens if x.shape[0] == 1 else tokens.contiguous()


def to_grid(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """(N, P, C) -> (N, C, *grid), a view that is channels-last."""
    return tokens.transpose(1, 2).unflatten(2, tuple(grid))


def fold(tokens: Tensor, frames: int, mode: Mode, group: int | None) -> Tensor:
    """(N, P, C) -> (N', P', C), where N' is N times the groups of frames, or times the places."""
    if mode == "time":
        return tokens.unflatten(1, (frames, -1)).transpose(1, 2).flatten(0, 1)
    if group is not None:
        return tokens.unflatten(1, (frames // group, -1)).flatten(0, 1)
    return tokens


def unfold(y: Tensor, shape: Sequence[int], mode: Mode, group: int | None) -> Tensor:
    """(N', P', D) -> (N, P, D): the way back from `fold`, for features of shape (N, C, T, H, W)."""
    n, frames = shape[0], shape[2]
    if mode == "time":
        return y.unflatten(0, (n, shape[3] * shape[4])).transpose(1, 2).flatten(1, 2)
    if group is not None:
        return y.unflatten(0, (n, frames // group)).flatten(1, 2)
    return y


def locate(
    query: Sequence[int], grid: Sequence[int], mode: Mode, group: int | None
) -> tuple[int, int]:
    """Where a position lies after `fold`: its fold, and its row there.

    Raises `ValueError` if it does not lie on the grid.
    """
    if len(query) != len(grid) or any(not 0 <= q < s for q, s in zip(query, grid, strict=False)):
        raise ValueError(f"query {tuple(query)} does not lie on the grid {tuple(grid)}")
    flat = 0
    for q, s in zip(query, grid, strict=True):
        flat = flat * s + q
    if mode == "time":
        t, h, w = query
        return h * grid[2] + w, t
    if group is not None:
        own = query[0] // group
        return own, flat - own * group * grid[1] * grid[2]
    return 0, flat


def visible(
    query: Sequence[int], mode: Mode, group: int | None, causal: int | None = None
) -> tuple[slice, ...]:
    """The part of the grid of keys that a position sees, a slice per axis.

    group: frames that see each other. causal: how many frames are seen, its own the last.
    """
    if len(query) != 3:
        return (slice(None),) * len(query)
    t, h, w = query
    frames = slice(None)
    if group is not None:
        frames = slice(t // group * group, (t // group + 1) * group)
    elif causal is not None:
        frames = slice(max(0, t - causal + 1), t + 1)
    if mode == "time":
        return frames, slice(h, h + 1), slice(w, w + 1)
    return frames, slice(None), slice(None)


def window(grid: Sequence[int], cells: Sequence[int] | None = None) -> tuple[int, ...]:
    """Cells that one pooled key stands for: two along every axis of space, if no others are given.

    Frames are pooled only where `cells` says so, an axis of length one never.
    """
    if cells is None:
        cells = (1, 2, 2) if len(grid) == 3 else (2,) * len(grid)
    if len(cells) != len(grid):
        raise ValueError(f"features have {len(grid)} axes of positions, and cells came as {cells}")
    return tuple(min(c, size) for c, size in zip(cells, grid, strict=True))


def pool(x: Tensor, cells: Sequence[int] | None = None) -> Tensor:
    """The paper's sub-sampling: max pooling of 1x2x2 (or 2x2, or 2) cells, or of those given."""
    cells = window(x.shape[2:], cells)
    if x.dim() == 3:
        return F.max_pool1d(x, cells)
    if x.dim() == 4:
        return F.max_pool2d(x, cells)
    if (x.is_contiguous() and x.shape[2]) or cells[0] > 1:  # torch's 3-D pooling refuses no frames
        return F.max_pool3d(x, cells)
    # (N, C, T, H, W) as frames (N T, C, H, W): a view where x is channels-last
    frames = F.max_pool2d(x.transpose(1, 2).flatten(0, 1), cells[1:])
    return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)

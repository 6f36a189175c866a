"""D, C and M of `patch_sum` in plain torch, for every device, with gradients of every order.

One offset between i and j at a time. A backward pass forms the weights of a row of offsets again,
so that what is kept does not grow with the window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def sums(
    x: Tensor,
    frames: int,
    pixels: int,
    times: Sequence[float],
    space: Sequence[float],
    scale: float | Tensor,
    shift: float | Tensor,
    first: int,
    last: int,
    largest: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `patch_sum.patch_sums`, whose arguments these are."""
    length = x.shape[2] - len(times) + 1
    D = C = M = x.new_zeros(())
    for dt in range(max(-frames, 1 - last), min(frames, length - 1 - first) + 1):
        low, high = max(first, -dt), min(last, length - dt)
        for dy in range(-pixels, pixels + 1):
            row = (x, dt, dy, pixels, times, space, scale, shift, low, high)
            if torch.is_grad_enabled():
                found = checkpoint(_row, *row, use_reentrant=False)
            else:
                found = _row(*row)
            # frames that have no neighbour at dt get nothing
            d, c, m = (F.pad(s, (0, 0, 0, 0, low - first, last - high)) for s in found)
            D, C = D + d, C + c
            M = torch.maximum(M, m) if largest else M
    return D, C, M if largest else None


def _row(
    x: Tensor,
    dt: int,
    dy: int,
    pixels: int,
    times: Sequence[float],
    space: Sequence[float],
    scale: float | Tensor,
    shift: float | Tensor,
    low: int,
    high: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The part of the offsets (dt, dy, -pixels..pixels), for frames low to high."""
    p, pt = len(space), len(times)
    h, w = x.shape[3] - p + 1, x.shape[4] - p + 1
    here = x[:, :, low : high + pt - 1]
    there = x[:, :, low + dt : high + dt + pt - 1]
    values = here[:, :, pt // 2 : pt // 2 + high - low, p // 2 : p // 2 + h, p // 2 : p // 2 + w]
    D, C = torch.zeros_like(values), torch.zeros_like(values[:, :1])
    M = torch.zeros_like(C)
    for dx in range(-pixels, pixels + 1):
        if dt == dy == dx == 0 or abs(dy) >= h or abs(dx) >= w:
            continue
        top, bottom = max(0, -dy), min(h, h - dy)
        left, right = max(0, -dx), min(w, w - dx)
        a = here[..., top : bottom + p - 1, left : right + p - 1]
        b = there[..., top + dy : bottom + dy + p - 1, left + dx : right + dx + p - 1]
        d2 = _patches((a - b).square().sum(1, keepdim=True), times, space)
        f = torch.exp(-(scale * d2 - shift).clamp(min=0))
        t, y = pt // 2, p // 2
        size = f.shape[2:]
        rise = (b - a)[:, :, t : t + size[0], y : y + size[1], y : y + size[2]] * f
        around = (left, w - right, top, h - bottom)
        D, C = D + F.pad(rise, around), C + F.pad(f, around)
        M = torch.maximum(M, F.pad(f, around))
    return D, C, M


def _patches(e: Tensor, times: Sequence[float], space: Sequence[float]) -> Tensor:
    """Weighted sums of e (N, 1, T, H, W) over patches, wherever one is whole."""
    for axis, weights in ((2, times), (3, space), (4, space)):
        length = e.shape[axis] - len(weights) + 1
        parts = [g * e.narrow(axis, k, length) for k, g in enumerate(weights)]
        e = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
    return e

"""D, C and M of `patch_sum` on CUDA: each program keeps the sums of some pixels to its end.

Patches are compared number by number, from the cache; a pair is weighed twice, once for each of its
pixels, so that no two programs write to one place and the same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 256  # of pixels and channels that a program holds


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
    x = x.detach().contiguous()
    n, channels = x.shape[:2]
    length, h, w = (
        size - len(g) + 1 for size, g in zip(x.shape[2:], (times, space, space), strict=True)
    )
    D = x.new_empty(n, channels, last - first, h, w)
    C, M = (x.new_empty(n, 1, last - first, h, w) for _ in range(2))
    numbers = x.new_tensor([float(scale), float(shift), *times, *space])
    tile = triton.next_power_of_2(channels)
    block = max(16, NUMBERS // tile)
    with torch.cuda.device_of(x):
        _sum_pixels[(n * (last - first), triton.cdiv(h * w, block))](
            *(x, numbers, D, C, M, first, last - first, length, h, w, frames, pixels),
            CHANNELS=channels,
            DEPTH=len(times),
            SIDE=len(space),
            TILE=tile,
            BLOCK=block,
            LARGEST=largest,
            enable_fp_fusion=True,
        )
    return D, C, M if largest else None


# A size that changes from call to call is no reason to compile again.
_kernel = triton.jit(do_not_specialize=["first", "count", "length", "h", "w", "frames", "pixels"])


@_kernel
def _sum_pixels(
    x_ptr: tl.tensor,
    numbers_ptr: tl.tensor,
    D_ptr: tl.tensor,
    C_ptr: tl.tensor,
    M_ptr: tl.tensor,
    first: tl.tensor,
    count: tl.tensor,
    length: tl.tensor,
    h: tl.tensor,
    w: tl.tensor,
    frames: tl.tensor,
    pixels: tl.tensor,
    CHANNELS: tl.constexpr,
    DEPTH: tl.constexpr,
    SIDE: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    LARGEST: tl.constexpr,
) -> None:
    """Some pixels of one frame: x (N, CHANNELS, length + DEPTH - 1, h + SIDE - 1, w + SIDE - 1)."""
    sample = (tl.program_id(0) // count).to(tl.int64)
    frame = tl.program_id(0) % count
    t = first + frame
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    y, x = i // w, i % w
    c = tl.arange(0, TILE)
    row = w + SIDE - 1
    plane = (row * (h + SIDE - 1)).to(tl.int64)
    volume = plane * (length + DEPTH - 1)
    x_ptr += sample * CHANNELS * volume + t * plane
    at = c[:, None] * volume + (y * row + x)[None, :]
    inside = (c < CHANNELS)[:, None] & (i < h * w)[None, :]
    scale, shift = tl.load(numbers_ptr), tl.load(numbers_ptr + 1)
    middle = at + (DEPTH // 2) * plane + (SIDE // 2) * row + SIDE // 2
    own = tl.load(x_ptr + middle, mask=inside, other=0.0)
    D = tl.zeros_like(own)
    C = tl.sum(D, 0)
    M = C
    for dt in range(tl.maximum(-frames, -t), tl.minimum(frames, length - 1 - t) + 1):
        for dy in range(-pixels, pixels + 1):
            for dx in range(-pixels, pixels + 1):
                seen = (y + dy >= 0) & (y + dy < h) & (x + dx >= 0) & (x + dx < w)
                seen = seen & ((dt != 0) | (dy != 0) | (dx != 0))
                both = inside & seen[None, :]
                to = dt * plane + dy * row + dx
                d2 = tl.zeros_like(C)
                for k in range(DEPTH):
                    for down in range(SIDE):
                        g = tl.load(numbers_ptr + 2 + k) * tl.load(numbers_ptr + 2 + DEPTH + down)
                        for across in range(SIDE):
                            here = at + k * plane + down * row + across
                            a = tl.load(x_ptr + here, mask=both, other=0.0)
                            b = tl.load(x_ptr + here + to, mask=both, other=0.0)
                            g2 = g * tl.load(numbers_ptr + 2 + DEPTH + across)
                            d2 += g2 * tl.sum((a - b) * (a - b), 0)
                f = tl.exp(-tl.maximum(scale * d2 - shift, 0.0))
                f = tl.where(seen, f, 0.0)
                moved = tl.load(x_ptr + middle + to, mask=both, other=0.0)
                D += tl.where(both, f[None, :] * (moved - own), 0.0)
                C += f
                if LARGEST:
                    M = tl.maximum(M, f)
    pixel = (sample * CHANNELS + c)[:, None] * count + frame
    tl.store(D_ptr + pixel * (h * w) + i[None, :], D, mask=inside)
    pixel = (sample * count + frame) * (h * w) + i
    tl.store(C_ptr + pixel, C, mask=i < h * w)
    if LARGEST:
        tl.store(M_ptr + pixel, M, mask=i < h * w)

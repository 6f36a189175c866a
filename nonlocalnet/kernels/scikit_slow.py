"""The sums of `patch_sum` as scikit-image's slow mode forms them, to compare with it.

Its program departs from its definition in two places, and so do these: exp is Schraudolph's
approximation (Neural Computation 11, 1999), some per cent off; and a distance of which all rows but
the last are more than CUT_OFF, in units of h^2, counts as infinite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .patch_sum import Search, Sums

CUT_OFF = 5.0
SLOPE, START = 2**20 / 0.6931471805599453, 1023 * 2**20 - 60801


def fast_exp(z: Tensor) -> Tensor:
    """e^z, roughly: z scaled and written into the upper half of a float64."""
    return ((SLOPE * z).trunc().long() + START << 32).view(torch.float64)


def scikit_slow_sums(
    x: Tensor, search: Search, first: int, last: int, largest: bool = False
) -> Sums:
    """As `patch_sum.patch_sums` of images, in float64 and without gradients."""
    from .patch_sum import Sums

    x = x.detach().double()
    p, reach = len(search.space), search.pixels
    h, w = x.shape[3] - p + 1, x.shape[4] - p + 1
    space = torch.tensor(search.space, dtype=torch.float64)
    taps = float(search.scale) * space[:, None] * space
    less = float(search.shift) * space[:, None] * space  # of all channels together
    D, C = x.new_zeros(*x.shape[:3], h, w), x.new_zeros(len(x), 1, x.shape[2], h, w)
    middle = slice(p // 2, p // 2 + h), slice(p // 2, p // 2 + w)
    values = x[..., middle[0], middle[1]]
    for dy in range(-min(reach, h - 1), min(reach, h - 1) + 1):
        for dx in range(-min(reach, w - 1), min(reach, w - 1) + 1):
            if dy == dx == 0:
                continue
            top, bottom, left, right = max(0, -dy), min(h, h - dy), max(0, -dx), min(w, w - dx)
            here = x[..., top : bottom + p - 1, left : right + p - 1]
            there = x[..., top + dy : bottom + dy + p - 1, left + dx : right + dx + p - 1]
            e = (here - there).square().sum(1, keepdim=True)
            rows, columns = bottom - top, right - left
            distance = torch.zeros_like(e[..., :rows, :columns])
            seen = distance <= CUT_OFF
            for i in range(p):
                seen = seen & (distance <= CUT_OFF)
                for j in range(p):
                    part = e[..., i : i + rows, j : j + columns]
                    distance = distance + (taps[i, j] * part - less[i, j])
            f = fast_exp(-distance.clamp(min=0)) * seen
            inside = (..., slice(top, bottom), slice(left, right))
            moved = values[..., top + dy : bottom + dy, left + dx : right + dx]
            D[inside] += f * (moved - values[inside])
            C[inside] += f
    return Sums(D[:, :, first:last], C[:, :, first:last], None)

"""D, C and M of `patch_sum` on a CPU, compiled by Numba.

f_ij = f_ji, so each pair is weighed once: what i gains, j loses. For each offset from i to j the
squared differences of some rows are formed, added up down and across, and become weights; three
offsets side by side are then added to D and C at once. What is read again stays in the caches.

A slab of the picture is cut into eight strips that lie side by side in memory, number by number:
(rows, columns, LANES). A step to the next column is a step of eight numbers, and so what a
processor adds at once is never out of line, whatever the offset.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .numba_form import pool
from .patch_sum_slab import BOX, LANES, SIDE, add_slab

SLAB, SHARES = 256, 4  # rows of a picture at most, fewer if it has not so many slabs to share out
SPARE = 8  # columns that are computed, but not used, where the last ones make no whole four


class _Task(NamedTuple):
    """A slab of a pair of frames: rows `top` and on, `strip` rows a strip."""

    sample: int
    here: int
    there: int
    top: int
    rows: int
    strip: int


def sums(
    x: Tensor,
    frames: int,
    pixels: int,
    times: Sequence[float],
    space: Sequence[float],
    scale: float,
    shift: float,
    first: int,
    last: int,
    largest: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `patch_sum.patch_sums`, whose arguments these are; added in float64."""
    x = x.detach()
    n, channels = x.shape[:2]
    length, h, w = (
        size - len(g) + 1 for size, g in zip(x.shape[2:], (times, space, space), strict=True)
    )
    reach = min(pixels, max(h, w) - 1)
    total = torch.zeros(n, channels + 1 + largest, last - first, h, w, dtype=torch.float64)
    wide = F.pad(x, (reach + SIDE, reach + SIDE + SPARE, reach, reach + SLAB + LANES))
    tasks = [
        _Task(sample, here, there, top, min(slab, h - top), -(-min(slab, h - top) // LANES))
        for slab in [min(SLAB, max(4 * LANES, -(-h // SHARES)))]
        for sample in range(n)
        for here in range(length)
        for there in range(here, min(length, here + frames + 1))
        if first <= here < last or first <= there < last
        for top in range(0, h, slab)
    ]
    dtype = np.float64 if x.dtype == torch.float64 else np.float32
    taps = np.array([*space, *[0.0] * (-len(space) % 4)], dtype)
    planes = np.repeat(np.array(times, dtype), channels)
    box = len(space) >= BOX and len(set(space)) == 1  # then sums need no weights
    if box:
        scale = scale * space[0] ** 2
    numbers = taps, planes, dtype(scale / math.log(2)), dtype(shift / math.log(2)), len(space), box

    def run(task: _Task) -> list[tuple[int, Tensor]]:
        return _sums_of_slab(wide, task, reach, channels, largest, h, w, numbers)

    threads = torch.get_num_threads()
    for k in range(0, len(tasks), 2 * threads):  # no more results than that wait to be added
        some = tasks[k : k + 2 * threads]
        several = threads > 1 and len(some) > 1
        found = pool(os.getpid(), threads).map(run, some) if several else map(run, some)
        for task, parts in zip(some, found, strict=True):
            for frame, part in parts:
                if first <= frame < last:
                    _add(total[task.sample, :, frame - first], part, task, reach, largest)
    D, C, M = (part.to(x.dtype) for part in total.split((channels, 1, int(largest)), 1))
    return D, C, M if largest else None


def _sums_of_slab(
    wide: Tensor,
    task: _Task,
    reach: int,
    channels: int,
    largest: bool,
    h: int,
    w: int,
    numbers: tuple[Any, ...],
) -> list[tuple[int, Tensor]]:
    """(frame, its part of the sums in strips) of both frames of a pair, which may be one."""
    depth, patch = len(numbers[1]) // channels, numbers[4]
    strips = [
        _strips(wide[task.sample, :, t : t + depth], task, reach, patch)
        for t in (task.here, task.there)
    ]
    shape = channels + 1 + largest, task.strip + 2 * reach, strips[0].shape[2]
    same = task.here == task.there
    parts = [torch.zeros(shape, dtype=torch.float64) for _ in range(1 if same else 2)]
    add_slab(
        *(t.numpy() for t in (*strips, parts[0], parts[-1])),
        *numbers,
        *(channels, depth // 2 * channels, same, largest),
        *(task.top, task.rows, task.strip, h, w, reach),
    )
    return list(zip((task.here, task.there)[: len(parts)], parts, strict=True))


def _strips(planes: Tensor, task: _Task, reach: int, patch: int) -> Tensor:
    """(C, pt, H', W') -> (pt C, rows, W' LANES): strips of a slab, number by number."""
    planes = planes.transpose(0, 1).flatten(0, 1)
    columns = planes.shape[2]
    rows = task.strip + 2 * reach + patch - 1
    a, b, c = planes.stride()
    start = planes.storage_offset() + task.top * b
    size, step = (planes.shape[0], rows, columns, LANES), (a, b, c, task.strip * b)
    return planes.as_strided(size, step, start).reshape(planes.shape[0], rows, columns * LANES)


def _add(total: Tensor, part: Tensor, task: _Task, reach: int, largest: bool) -> None:
    """Strips, with the rows around them that they wrote to, back into (C, H, W)."""
    h, w = total.shape[1:]
    part = part.unflatten(2, (-1, LANES))[:, :, reach + SIDE : reach + SIDE + w]
    for lane in range(LANES):
        start = task.top + lane * task.strip - reach
        low, high = max(0, -start), min(part.shape[1], h - start)
        if low >= high:
            continue
        into, new = total[:, start + low : start + high], part[:, low:high, :, lane]
        added = len(total) - largest
        into[:added] += new[:added]
        if largest:
            torch.maximum(into[added:], new[added:], out=into[added:])

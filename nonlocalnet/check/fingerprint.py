"""What a video looks like, in 40 bytes: the same after another encoder, size or rate.

Five frames, at fixed parts of the length, become 64 bits each: the signs of the lowest 8 x 8
frequencies of the grey picture, against their median. Cuts, crops and mirror images are not
recognised. Two videos of one fixed camera may well have the same: equal looks are a reason to look.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PARTS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the length
SIDE = 32  # pixels that a frame is averaged to
FLAT = 4.0  # grey levels of deviation, below which the signs are noise
BITS = 64 * len(PARTS)
NEAREST = 32  # bits of BITS that may differ; see docs/log.md for what it finds and what it does not
TABLES, SAMPLED = 24, 24  # hash tables, and bits in each
NEIGHBOURS = 16  # of a video in a table that are compared with it

Prints = NDArray[np.uint64]


def places(count: int) -> list[int]:
    """The numbers of the frames that are looked at, of `count` in all."""
    return [round(part * (count - 1)) for part in PARTS]


def look_of(frame: Tensor) -> int | None:
    """64 bits of a picture (H, W, 3); None for one without contrast."""
    grey = frame.float().mean(-1)[None, None]  # (H, W, 3) -> (1, 1, H, W)
    small = torch.nn.functional.adaptive_avg_pool2d(grey, SIDE)[0, 0].numpy()
    if small.std() < FLAT:
        return None
    angle = np.pi / (2 * SIDE) * np.outer(np.arange(8), 2 * np.arange(SIDE) + 1)
    waves = (np.cos(angle) @ small @ np.cos(angle).T).ravel()  # (64,) of a cosine transform
    signs = waves > np.median(waves[1:])
    signs[0] = False  # the brightness
    return int(np.packbits(signs).view(">u8")[0])


def fingerprint(looks: dict[int, int | None], count: int) -> str:
    """The looks of the frames at `places(count)` as hexadecimal; empty if most are flat.

    looks: frame number -> its look.
    """
    found = [looks.get(place) for place in places(count)]
    if sum(look is not None for look in found) < 3:
        return ""
    return "".join(f"{look or 0:016x}" for look in found)


def to_row(text: str) -> list[int]:
    """The five numbers of a fingerprint; zeros for none."""
    return [int(text[i : i + 16] or "0", 16) for i in range(0, 16 * len(PARTS), 16)]


def alike(prints: Prints, seconds: NDArray[np.float32]) -> NDArray[np.int64]:
    """Pairs of videos (pairs, 2) that look alike and are about as long, each pair once, sorted.

    prints: (videos, 5), zeros for none. seconds: (videos,) lengths.

    Not every pair is compared: those whose bits agree at `SAMPLED` random places, in one of
    `TABLES` draws. Two that differ in 20 bits are missed about once in 200 times; of a crowd that
    agrees, each is compared with its next `NEIGHBOURS`. So time grows with the number of videos
    and not with its square.
    """
    there = np.flatnonzero(prints.any(1))
    prints, seconds = prints[there], seconds[there]
    generator = np.random.default_rng(0)
    count = len(there)
    found = [np.empty(0, np.int64)]  # a pair (a, b) with a < b is the number a * count + b
    for _ in range(TABLES):
        key = _sampled(prints, generator.permutation(BITS)[:SAMPLED])
        order = np.lexsort((*prints.T, key))
        for step in range(1, NEIGHBOURS + 1):
            left, right = order[:-step], order[step:]
            both = key[left] == key[right]
            if not both.any():
                break
            a, b = np.minimum(left, right)[both], np.maximum(left, right)[both]
            near = _near(prints, seconds, a, b)
            found.append(a[near] * count + b[near])
        found = [_distinct(np.concatenate(found))]
    return there[np.stack(np.divmod(found[0], max(1, count)), 1)]


def _sampled(prints: Prints, bits: NDArray[np.int64]) -> NDArray[np.int64]:
    key = np.zeros(len(prints), np.int64)
    for bit in bits:
        key = key << 1 | (prints[:, bit // 64] >> np.uint64(bit % 64) & np.uint64(1)).astype(int)
    return key


def _distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted, each once. (`np.unique` hashes such numbers badly: minutes instead of seconds.)"""
    numbers.sort()
    return numbers[np.flatnonzero(np.diff(numbers, prepend=-1))]


def _near(
    prints: Prints, seconds: NDArray[np.float32], a: NDArray[np.int64], b: NDArray[np.int64]
) -> NDArray[np.bool_]:
    apart = np.bitwise_count(prints[a] ^ prints[b]).sum(1, dtype=np.int64)
    longer = np.maximum(seconds[a], seconds[b])
    as_long = np.abs(seconds[a] - seconds[b]) <= 0.05 * longer + 0.2
    return (apart <= NEAREST) & as_long

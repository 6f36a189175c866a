"""What one pixel is made of: the weights that NL-means gives to all others, and their sight."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .denoise import Plan, mirrored
from .look import Cell, Key, Look, Sight

SPREAD = 4  # by as many pixels down and across, whose weights make the average


class Pixel(NamedTuple):
    """A pixel of a video; of an image, frame is 0."""

    frame: int
    y: int
    x: int


def weights_of(x: Tensor, pixel: Pixel, plan: Plan) -> Tensor:
    """f(x_i, x_j) / C_i for pixel i of x (1, C, T, H, W): (T, H, W) float64.

    The sum of them times x is the pixel's new value. They are zero outside its window. In a mirror
    image (border="reflect") pixels are met twice, and hold both weights.
    """
    if plan.options.weights == "scikit-image":
        raise ValueError(
            "weights are shown of what is exact: uniform or gaussian, not scikit-image"
        )
    x = x.double()
    reach = plan.reach(x)
    mirror = reach if plan.options.border == "reflect" else 0
    search = plan.search(reach, x.shape[1])
    half = plan.patch // 2
    padded = mirrored(x, len(search.times) // 2, half + mirror)[0]  # (C, T, H, W)
    t, y, x_at = pixel.frame, pixel.y + mirror, pixel.x + mirror
    sides = search.times, search.space, search.space
    size = [n - len(g) + 1 for n, g in zip(padded.shape[1:], sides, strict=True)]
    # the part in which it looks
    parts = [
        (max(0, at - far), min(n, at + far + 1))
        for at, far, n in zip((t, y, x_at), (search.frames, reach, reach), size, strict=True)
    ]
    own = padded[:, t : t + len(search.times), y : y + plan.patch, x_at : x_at + plan.patch]
    d2 = torch.zeros([high - low for low, high in parts], dtype=torch.float64)
    for a, time in enumerate(search.times):
        for b, down in enumerate(search.space):
            for c, across in enumerate(search.space):
                spans = zip(parts, (a, b, c), strict=True)
                there = [slice(low + k, high + k) for (low, high), k in spans]
                difference = padded[:, *there] - own[:, a, b, c, None, None, None]
                d2 += time * down * across * difference.square().sum(0)
    f = torch.exp(-(float(search.scale) * d2 - float(search.shift)).clamp(min=0))
    here = tuple(at - low for at, (low, _) in zip((t, y, x_at), parts, strict=True))
    f[here] = 0.0
    f[here] = {"own": 1.0, "largest": float(f.max()), "none": 0.0}[plan.options.centre]
    if not f.sum():
        f[here] = 1.0
    return _folded(f / f.sum(), parts, mirror, x.shape[2:])


def _folded(f: Tensor, parts: list[tuple[int, int]], mirror: int, size: torch.Size) -> Tensor:
    """Weights of a part of the mirrored image, added up where its pixels come from."""
    whole = torch.zeros(size, dtype=f.dtype)
    numbers = torch.arange(whole.numel()).view(1, 1, *size)
    there = mirrored(numbers, 0, mirror)[0, 0]
    there = there[tuple(slice(low, high) for low, high in parts)]
    return whole.view(-1).index_add_(0, there.flatten(), f.flatten()).view(size)


def look_at(x: Tensor, pixel: Pixel, plan: Plan, top: int = 20) -> Look:
    """The same as the value that pictures are drawn from; x: (1, C, T, H, W).

    Raises `ValueError` for a pixel that is not there.
    """
    size = x.shape[2:]
    if not all(0 <= at < n for at, n in zip(pixel, size, strict=True)):
        raise ValueError(
            f"there is no pixel x {pixel.x}, y {pixel.y} in {size[2]} x {size[1]} pixels; they are"
            " counted from 0 at the top left"
        )
    weights = weights_of(x, pixel, plan)
    row = weights.flatten()
    seen = _seen(x, pixel, plan)
    others = _spread_rows(x, pixel.frame, plan)
    average = others.mean(0)
    entropy = float(-torch.special.xlogy(row, row).sum())
    order = row.argsort(descending=True, stable=True)[: min(top, seen)]
    cells = [_cell(int(i), size) for i in order if row[i]]
    return Look(
        network="NL-means",
        block="",
        pairwise=f"patch {plan.patch}, {plan.options.weights}; {plan.words()}",
        mode="spacetime",
        awake=True,
        exact=True,
        sample=0,
        query=(float(pixel.frame), float(pixel.y), float(pixel.x)),
        cell=(pixel.frame, pixel.y, pixel.x),
        centre=(float(pixel.frame), float(pixel.y), float(pixel.x)),
        weights=weights,
        grid=((1.0, 0.0), (1.0, 0.0), (1.0, 0.0)),
        seen=seen,
        top=top,
        keys=tuple(
            Key(float(weights[c]), c, (float(c[0]), float(c[1]), float(c[2]))) for c in cells
        ),
        share=float(row[order].sum()),
        uniform=min(top, seen) / seen,
        negative=0.0,
        entropy=entropy,
        relative_entropy=entropy / math.log(seen) if seen > 1 else 1.0,
        dependence=float((others - average).abs().sum(1).mean() / 2),
        departure=float((row - average).abs().sum() / 2),
    )


def _cell(index: int, size: torch.Size) -> Cell:
    _, height, width = size
    return index // (height * width), index // width % height, index % width


def _seen(x: Tensor, pixel: Pixel, plan: Plan) -> int:
    """How many pixels lie in a pixel's window."""
    reach = plan.reach(x)
    far = plan.options.frames // 2, reach, reach
    spans = (
        min(n, at + k + 1) - max(0, at - k)
        for at, k, n in zip(pixel, far, x.shape[2:], strict=True)
    )
    return math.prod(spans)


def _spread_rows(x: Tensor, frame: int, plan: Plan) -> Tensor:
    """The rows of pixels spread over a frame, one after the other."""
    down, across = (
        torch.linspace(0, n - 1, SPREAD + 2)[1:-1].round().long().tolist() for n in x.shape[3:]
    )
    rows = [weights_of(x, Pixel(frame, i, j), plan).flatten() for i in down for j in across]
    return torch.stack(rows)


def sight_of(
    x: Tensor,
    pixel: Pixel,
    plan: Plan,
    shown: Tensor,
    seconds: tuple[float, ...] | None = None,
    path: str = "",
) -> Sight:
    """What `picture.draw` takes; shown: (T, H, W, 3) uint8, the frames of x."""
    return Sight(look_at(x, pixel, plan), shown, seconds, path)

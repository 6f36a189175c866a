"""How frames look to a network: the crop, its size, the flip, and the scale of the numbers.

A crop is a square of the original picture, found first; then only that square is resized. It
stays uint8 until `normalize`, which runs on the device of the network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from .card import WHOLE, Card, Cropping
from .errors import UserError


class Box(NamedTuple):
    """A square of the original picture in whole pixels: rows top ... top + side - 1, and so on.

    The pixel centre (row i, column j) of the crop, c pixels wide, lies in the original picture at
    row top + (i + 0.5) * side / c - 0.5 and column left + (j + 0.5) * side / c - 0.5, with pixel
    centres at integers.
    """

    top: int
    left: int
    side: int


def train_box(height: int, width: int, card: Card, generator: Generator) -> Box:
    """A random square: as if the short side were resized to U{jitter} and `crop` cut out of it.

    Paper, section 4.1: short side random in 256 to 320 pixels (whole numbers, both included), 224
    crop. The place is uniform over all whole-pixel places in the original.
    """
    low, high = card.jitter
    if not 1 <= card.crop <= low <= high:
        raise UserError(
            f"the training crop must fit the scale jitter: expected 1 <= crop <= jitter, got a crop"
            f" of {card.crop} and a short side from {low} to {high}; choose a smaller crop"
        )
    short = int(torch.randint(low, high + 1, (), generator=generator))
    side = _side(height, width, card.crop, short)
    top = int(torch.randint(height - side + 1, (), generator=generator))
    left = int(torch.randint(width - side + 1, (), generator=generator))
    return Box(top, left, side)


# Where the test crops lie, in halves of what is left over along and across the longer side, and
# whether their mirror images follow. The first of those in the middle is the centre crop.
_MIDDLE, _THREE = ((1, 1),), ((0, 1), (1, 1), (2, 1))
_FIVE = ((0, 0), (2, 0), (0, 2), (2, 2), (1, 1))
PLACES: dict[int, tuple[tuple[tuple[int, int], ...], bool]] = {
    1: (_MIDDLE, False),
    3: (_THREE, False),  # Caffe2 code, PySlowFast
    5: (_FIVE, False),  # TSN, TSM
    6: (_THREE, True),  # Caffe2 code, TEST_FULLY_CONV_FLIP
    10: (_FIVE, True),  # TSN, TSM
}


def centre_crop(crops: int) -> int | None:
    """Which of several test crops is the centre one; the whole frame is none."""
    return None if crops == WHOLE else PLACES[crops][0].index((1, 1))


def crop_boxes(height: int, width: int, card: Card, crops: int) -> list[Box]:
    """The squares of the test crops, without their mirror images.

    One lies in the middle, three at the start (left or top), the middle and the end (right or
    bottom) of the longer side, five in the corners and the middle; six and ten are three and five
    and their mirror images.
    """
    if crops not in PLACES:
        raise UserError(f"crops: expected one of {', '.join(map(str, PLACES))}, got {crops}")
    if not 1 <= card.test_crop <= card.short_side:
        raise UserError(
            f"the test crop must fit the short side: expected 1 to {card.short_side}, got"
            f" {card.test_crop}; choose a smaller crop or a larger short side"
        )
    side = _side(height, width, card.test_crop, card.short_side)
    rows, columns = height - side, width - side  # what is left over
    places, _ = PLACES[crops]
    if width >= height:
        return [Box(rows * across // 2, columns * along // 2, side) for along, across in places]
    return [Box(rows * along // 2, columns * across // 2, side) for along, across in places]


def train_transform(frames: Tensor, card: Card, generator: Generator) -> Tensor:
    """Random scale, crop and flip, one for the whole clip.

    (T, H, W, 3) uint8 -> (3, T, crop, crop) uint8. Flips left and right with probability 0.5 if
    `card.flip` (switch it off where classes differ by direction); the flip is drawn in any case.
    Raises `UserError` if the card's crop does not fit its jitter.
    """
    _check(frames)
    height, width = frames.shape[1:3]
    if card.cropping == "jitter":
        clip = _cut(frames, train_box(height, width, card, generator), card.crop)
    else:
        rows, columns = multi_scale_box(height, width, card.cropping, generator)
        clip = frames[:, rows, columns].permute(0, 3, 1, 2)  # (T, 3, h, w)
        clip = _resized(clip, (card.crop, card.crop)).transpose(0, 1).contiguous()
    flip = bool(torch.randint(2, (), generator=generator)) and card.flip
    return clip.flip(-1) if flip else clip


def test_crops(frames: Tensor, card: Card, crops: int) -> Tensor:
    """The test crops of one clip: (T, H, W, 3) uint8 -> (crops, 3, T, test_crop, test_crop) uint8.

    `WHOLE` is the frame itself, its short side resized to card.short_side (paper, section 4.1:
    fully-convolutional inference): (1, 3, T, h, w).

    Raises `UserError` for a number that is not in `CROPS`, or a card whose crop does not fit.
    """
    _check(frames)
    height, width = frames.shape[1:3]
    if crops == WHOLE:
        ratio = card.short_side / min(height, width)
        size = round(height * ratio), round(width * ratio)
        return _resized(frames.permute(0, 3, 1, 2), size).transpose(0, 1).contiguous()[None]
    boxes = crop_boxes(height, width, card, crops)
    cut = torch.stack([_cut(frames, box, card.test_crop) for box in boxes])
    return torch.cat([cut, cut.flip(-1)]) if PLACES[crops][1] else cut


def normalize(clips: Tensor, card: Card) -> Tensor:
    """(..., 3, T, H, W) uint8 -> float32, (x / 255 - mean) / std per channel, on the same device.

    The only place where pixels become floating point.
    """
    if clips.dtype != torch.uint8 or clips.ndim < 4 or clips.shape[-4] != 3:
        raise TypeError(
            f"clips: expected uint8 of shape (..., 3, T, H, W), got {clips.dtype}"
            f" {tuple(clips.shape)}"
        )
    mean = torch.tensor(card.mean, device=clips.device).reshape(3, 1, 1, 1)
    std = torch.tensor(card.std, device=clips.device).reshape(3, 1, 1, 1)
    return clips.to(torch.float32).div_(255).sub_(mean).div_(std)


def _side(height: int, width: int, crop: int, short: int) -> int:
    """Pixels of the original that `crop` pixels show when the short side becomes `short`.

    Rounded to the nearest whole number, halves up.
    """
    smaller = min(height, width)
    return max((2 * crop * smaller + short) // (2 * short), 1)


def _cut(frames: Tensor, box: Box, size: int) -> Tensor:
    """(T, H, W, 3) -> (3, T, size, size): bilinear, antialiased when it shrinks."""
    top, left, side = box
    square = frames[:, top : top + side, left : left + side].permute(0, 3, 1, 2)  # (T, 3, b, b)
    return _resized(square, (size, size)).transpose(0, 1).contiguous()


def _resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """(T, 3, h, w) -> (T, 3, *size)."""
    if pictures.shape[2:] == size:
        return pictures
    return functional.interpolate(
        pictures, size=size, mode="bilinear", align_corners=False, antialias=True
    )


def _check(frames: Tensor) -> None:
    if (
        frames.dtype != torch.uint8
        or frames.ndim != 4
        or frames.shape[-1] != 3
        or not frames.numel()
    ):
        raise TypeError(
            f"frames: expected uint8 of shape (T, H, W, 3), none of them 0, got {frames.dtype}"
            f" {tuple(frames.shape)}"
        )


# Sides as parts of the short side, by how many places in that list height and width may differ,
# and where crops lie, in quarters of what is left over.
_CORNERS = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))
_BETWEEN = ((2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3))
CROPPINGS: dict[Cropping, tuple[tuple[float, ...], int, tuple[tuple[int, int], ...]]] = {
    "tsn": ((1, 0.875, 0.75, 0.66), 1, _CORNERS + _BETWEEN),  # TSN, TSM
    "mmaction": ((1, 0.8), 0, _CORNERS),  # MMAction2's I3D
}


def multi_scale_box(
    height: int, width: int, cropping: Cropping, generator: Generator
) -> tuple[slice, slice]:
    """A random rectangle of one of several sizes at one of several places: rows and columns.

    Each pair of sizes and each place is as likely as any other (TSN's multi-scale cropping). The
    rectangle becomes a square, so that with `tsn` pictures are stretched by up to 1.17.
    """
    scales, apart, places = CROPPINGS[cropping]
    sides = [max(1, int(min(height, width) * scale)) for scale in scales]
    sizes = [
        (h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= apart
    ]
    h, w = sizes[int(torch.randint(len(sizes), (), generator=generator))]
    down, across = places[int(torch.randint(len(places), (), generator=generator))]
    top, left = (height - h) // 4 * down, (width - w) // 4 * across
    return slice(top, top + h), slice(left, left + w)

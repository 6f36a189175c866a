"""How frames look: crops against torchvision, boxes by exact arithmetic, degenerate sizes."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from nonlocalnet import transforms
from nonlocalnet.card import Card, Cropping
from nonlocalnet.errors import UserError
from nonlocalnet.transforms import multi_scale_box, train_transform

SMALL = Card(short_side=32, crop=28, test_crop=32, jitter=(32, 40))
sides = st.integers(1, 300)
seeds = st.integers(0, 2**31)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int, height: int, width: int) -> Tensor:
    """(T, H, W, 3) uint8, waves a few dozen pixels long, different in each channel and frame."""
    t, y, x, c = np.ogrid[:count, :height, :width, :3]
    waves = np.sin(y / 17 + c) * np.cos(x / 23 - c + t / 3)
    return torch.from_numpy((127.5 + 120 * waves).round().astype(np.uint8))


def noise(count: int, height: int, width: int) -> Tensor:
    return torch.randint(256, (count, height, width, 3), dtype=torch.uint8, generator=seeded(0))


def resized_whole(frames: Tensor, short: int) -> Tensor:
    """The other order: torchvision resizes the whole frame. (T, H, W, 3) -> (3, T, h, w)"""
    return v2.functional.resize(frames.permute(0, 3, 1, 2), [short], antialias=True).transpose(0, 1)


def difference(a: Tensor, b: Tensor) -> tuple[float, int]:
    """Mean and largest difference in grey levels."""
    apart = (a.int() - b.int()).abs()
    return float(apart.float().mean()), int(apart.max())


# boxes


@given(sides, sides, st.integers(1, 64), st.integers(0, 40), st.integers(0, 40), seeds)
def test_train_box(height: int, width: int, crop: int, more: int, range_: int, seed: int) -> None:
    card = Card(crop=crop, jitter=(crop + more, crop + more + range_))
    top, left, side = transforms.train_box(height, width, card, seeded(seed))
    assert 0 <= top <= height - side
    assert 0 <= left <= width - side
    exact = [Fraction(crop * min(height, width), short) for short in card.jitter]
    assert max(1, exact[1] - Fraction(1, 2)) <= side <= max(1, exact[0] + Fraction(1, 2))


def test_train_box_reaches_every_scale_and_place() -> None:
    card = Card(crop=8, jitter=(8, 10))
    generator = seeded(0)
    found = {tuple(transforms.train_box(10, 11, card, generator)) for _ in range(4000)}
    # 8 pixels of a short side of 8, 9, 10 are 10, 9 (8.9) and 8 pixels of the original 10
    every = {(y, x, s) for s in (10, 9, 8) for y in range(11 - s) for x in range(12 - s)}
    assert found == every


@given(sides, sides, st.integers(1, 64), st.integers(0, 40))
def test_three_boxes_span_the_longer_side(height: int, width: int, crop: int, more: int) -> None:
    card = Card(test_crop=crop, short_side=crop + more)
    boxes = transforms.crop_boxes(height, width, card, 3)
    side = boxes[0].side
    exact = Fraction(crop * min(height, width), crop + more)
    assert side == max(1, int(exact + Fraction(1, 2)))
    across, along = (1, 0) if height > width else (0, 1)  # of (top, left)
    extent = max(height, width)
    assert [box[along] for box in boxes] == [0, (extent - side) // 2, extent - side]
    assert {box[across] for box in boxes} == {(min(height, width) - side) // 2}
    assert {box.side for box in boxes} == {side}
    assert transforms.crop_boxes(height, width, card, 1) == [boxes[1]]


def test_the_papers_three_crops() -> None:
    """256 x 340: three squares of 256 at 0, 42 and 84."""
    boxes = transforms.crop_boxes(256, 340, Card(), 3)
    assert boxes == [(0, 0, 256), (0, 42, 256), (0, 84, 256)]
    assert transforms.crop_boxes(340, 256, Card(), 3) == [(0, 0, 256), (42, 0, 256), (84, 0, 256)]


# pixels


def test_without_a_change_of_size_pixels_are_copied() -> None:
    frames = noise(3, 32, 44)
    left, centre, right = transforms.test_crops(frames, SMALL, 3)
    plain = frames.permute(3, 0, 1, 2)
    assert torch.equal(left, plain[..., :32])
    assert torch.equal(centre, plain[..., 6:38])
    assert torch.equal(right, plain[..., 12:])


@pytest.mark.parametrize("size", [(512, 680), (680, 512), (300, 400), (128, 200), (256, 340)])
def test_test_crops_equal_resizing_first(size: tuple[int, int]) -> None:
    """At the borders of a crop the two orders see different neighbours; else rounding at most."""
    frames = smooth(2, *size)
    whole = resized_whole(frames, 256)  # (3, T, h, w)
    crops = transforms.test_crops(frames, Card(), 3)
    assert crops.shape == (3, 3, 2, 256, 256)
    height, width = whole.shape[-2:]
    for share, crop in enumerate(crops):
        top, left = (height - 256) * share // 2, (width - 256) * share // 2
        expected = whole[..., top : top + 256, left : left + 256]
        mean, largest = difference(crop, expected)
        # a box in whole pixels may lie up to a pixel beside the other's (at 300 x 400 it does), and
        # these waves change by 8 grey levels per pixel at most
        assert mean < 1.5
        assert largest <= 5


def test_inside_of_a_crop_equals_resizing_first() -> None:
    """Where the box falls on whole pixels, everything but the border is equal to a grey level."""
    card = Card(short_side=256, test_crop=224)
    frames = noise(2, 512, 512)
    expected = resized_whole(frames, 256)[..., 16:240, 16:240]
    found = transforms.test_crops(frames, card, 1)[0]
    assert difference(found[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])[1] <= 1
    frames = smooth(2, 512, 512)
    expected = resized_whole(frames, 256)[..., 16:240, 16:240]
    assert difference(transforms.test_crops(frames, card, 1)[0], expected)[1] <= 3


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_train_crop_is_its_box_resized(seed: int) -> None:
    card = Card(crop=24, jitter=(30, 40))
    frames = smooth(2, 61, 83)
    found = transforms.train_transform(frames, card, seeded(seed))
    top, left, side = transforms.train_box(61, 83, card, seeded(seed))
    square = frames[:, top : top + side, left : left + side].permute(0, 3, 1, 2)
    expected = v2.functional.resize(square, [24, 24], antialias=True).transpose(0, 1)
    assert found.shape == (3, 2, 24, 24)
    assert found.dtype == torch.uint8
    assert torch.equal(found, expected) or torch.equal(found, expected.flip(-1))


def test_pixel_centres_lie_where_the_box_says() -> None:
    """A ramp along the columns shows at each pixel of the crop where that pixel came from."""
    ramp = torch.arange(200, dtype=torch.uint8)[None, None, :, None].expand(1, 90, 200, 3)
    card = Card(short_side=60, test_crop=40)
    for box, crop in zip(
        transforms.crop_boxes(90, 200, card, 3),
        transforms.test_crops(ramp.contiguous(), card, 3),
        strict=True,
    ):
        place = box.left + (torch.arange(40) + 0.5) * box.side / 40 - 0.5
        inner = slice(1, -1)
        assert (crop[0, 0, 20, inner] - place[inner]).abs().max() <= 0.51


def test_flip_is_for_the_whole_clip_and_only_if_allowed() -> None:
    frames = smooth(4, 28, 28)
    card = Card(crop=28, jitter=(28, 28))
    plain = frames.permute(3, 0, 1, 2)
    flipped = 0
    for seed in range(200):
        found = transforms.train_transform(frames, card, seeded(seed))
        assert torch.equal(found, plain) or torch.equal(found, plain.flip(-1))
        flipped += torch.equal(found, plain.flip(-1))
        still = dataclasses.replace(card, flip=False)
        assert torch.equal(transforms.train_transform(frames, still, seeded(seed)), plain)
    assert 70 < flipped < 130


def test_the_draws_do_not_depend_on_the_flip() -> None:
    frames = noise(2, 50, 60)
    kept = dataclasses.replace(SMALL, flip=False)
    first, second = seeded(5), seeded(5)
    transforms.train_transform(frames, SMALL, first)
    transforms.train_transform(frames, kept, second)
    assert torch.equal(first.get_state(), second.get_state())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), seeds)
def test_every_size_works(height: int, width: int, seed: int) -> None:
    """Smaller than the crop, one pixel, long strips: enlarged, and of the colour they had."""
    colour = torch.tensor([10, 130, 250], dtype=torch.uint8)
    frames = colour.expand(2, height, width, 3).contiguous()
    train = transforms.train_transform(frames, SMALL, seeded(seed))
    assert train.shape == (3, 2, 28, 28)
    for crops in (1, 3):
        test = transforms.test_crops(frames, SMALL, crops)
        assert test.shape == (crops, 3, 2, 32, 32)
        for found in (train, *test):
            assert torch.equal(found, colour.reshape(3, 1, 1, 1).expand_as(found))


def test_results_hold_no_larger_memory() -> None:
    frames = noise(2, 100, 100)
    card = Card(crop=28, jitter=(100, 100))
    for found in (
        transforms.train_transform(frames, card, seeded(0)),
        transforms.test_crops(frames, SMALL, 3),
    ):
        assert found.is_contiguous()
        assert found.untyped_storage().nbytes() == found.numel()


# numbers


@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (6, 3, 2, 4, 5), (2, 3, 3, 2, 4, 5)])
def test_normalize(shape: tuple[int, ...]) -> None:
    card = Card(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    clip = torch.randint(256, shape, dtype=torch.uint8, generator=seeded(1))
    before = clip.clone()
    found = transforms.normalize(clip, card)
    assert found.dtype == torch.float32
    assert torch.equal(clip, before)
    for channel in range(3):
        exact = (clip.select(-4, channel).double() / 255 - card.mean[channel]) / card.std[channel]
        torch.testing.assert_close(found.select(-4, channel).double(), exact, atol=1e-6, rtol=1e-6)


# wrong input


def test_wrong_cards_are_told_in_words() -> None:
    frames = noise(1, 40, 40)
    for card in (
        Card(crop=224, jitter=(200, 320)),
        Card(crop=224, jitter=(320, 256)),
        Card(crop=1, jitter=(0, 320)),
    ):
        with pytest.raises(UserError, match="training crop must fit the scale jitter"):
            transforms.train_transform(frames, card, seeded(0))
    with pytest.raises(UserError, match="expected 1 to 200, got 256"):
        transforms.test_crops(frames, Card(short_side=200), 1)
    for crops in (2, 4, 9):
        with pytest.raises(UserError, match=f"expected one of 1, 3, 5, 6, 10, got {crops}"):
            transforms.test_crops(frames, Card(), crops)


def test_wrong_tensors() -> None:
    good = noise(2, 40, 40)
    for wrong in (good.float(), good[0], good[..., :1], good[:0], good[:, :0], good.movedim(-1, 0)):
        with pytest.raises(TypeError, match=r"uint8 of shape \(T, H, W, 3\)"):
            transforms.train_transform(wrong, SMALL, seeded(0))
        with pytest.raises(TypeError, match=r"uint8 of shape \(T, H, W, 3\)"):
            transforms.test_crops(wrong, SMALL, 1)
    for wrong in (good.movedim(-1, 0).float(), good, good[0]):
        with pytest.raises(TypeError, match=r"uint8 of shape \(\.\.\., 3, T, H, W\)"):
            transforms.normalize(wrong, SMALL)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60)])
def test_many_crops_of_one_clip(height: int, width: int) -> None:
    """Against slices: nothing is resized, so each crop is a square of the frame."""
    frames = noise(2, height, width)
    card = Card(short_side=60, test_crop=40)
    pictures = frames.permute(3, 0, 1, 2)  # (3, T, H, W)

    def at(row: int, column: int) -> torch.Tensor:
        return pictures[:, :, row : row + 40, column : column + 40]

    bottom, right = height - 40, width - 40
    corners = {(0, 0), (0, right), (bottom, 0), (bottom, right)}
    middle = at(bottom // 2, right // 2)
    five = transforms.test_crops(frames, card, 5)
    assert all(any(torch.equal(crop, at(*place)) for crop in five[:4]) for place in corners)
    ten, six = (transforms.test_crops(frames, card, crops) for crops in (10, 6))
    three = transforms.test_crops(frames, card, 3)
    for crops, cut in ((1, transforms.test_crops(frames, card, 1)), (3, three), (5, five)):
        assert torch.equal(cut[transforms.centre_crop(crops)], middle)
    for plain, doubled in ((five, ten), (three, six)):
        assert torch.equal(doubled[: len(plain)], plain)
        assert torch.equal(doubled[len(plain) :], plain.flip(-1))


def test_the_whole_frame() -> None:
    frames = noise(2, 64, 96)
    whole = transforms.test_crops(frames, Card(short_side=64, test_crop=8), 0)
    assert torch.equal(whole, frames.permute(3, 0, 1, 2)[None])
    smaller = transforms.test_crops(frames, Card(short_side=32, test_crop=8), 0)
    assert smaller.shape == (1, 3, 2, 32, 48)
    assert transforms.centre_crop(0) is None


@pytest.mark.parametrize(("cropping", "sizes", "places"), [("tsn", 10, 13), ("mmaction", 2, 5)])
def test_multi_scale_boxes(cropping: Cropping, sizes: int, places: int) -> None:
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(3000):
        rows, columns = multi_scale_box(100, 160, cropping, generator)
        assert 0 <= rows.start < rows.stop <= 100
        assert 0 <= columns.start < columns.stop <= 160
        seen.add((rows.start, rows.stop, columns.start, columns.stop))
    shapes = {(b - a, d - c) for a, b, c, d in seen}
    assert len(shapes) == sizes
    assert (100, 100) in shapes
    small = min(shapes)  # the smallest has room for each place to be another
    assert len({box for box in seen if (box[1] - box[0], box[3] - box[2]) == small}) == places
    if cropping == "tsn":  # sides are one step apart at most
        assert shapes >= {(66, 66), (66, 75), (75, 66), (87, 100)}
        assert (66, 100) not in shapes
    else:
        assert shapes == {(100, 100), (80, 80)}


def test_multi_scale_crops_are_resized_rectangles() -> None:
    card = Card(crop=8, jitter=(8, 8), cropping="tsn", flip=False)
    rows = torch.arange(40, dtype=torch.uint8)[:, None, None].expand(40, 64, 3)
    frames = rows.repeat(2, 1, 1, 1)
    clip = train_transform(frames, card, torch.Generator().manual_seed(3))
    assert clip.shape == (3, 2, 8, 8)
    box, _ = multi_scale_box(40, 64, "tsn", torch.Generator().manual_seed(3))
    height = (box.stop - box.start) / 8
    middles = box.start + height * (torch.arange(8) + 0.5) - 0.5
    assert (clip[0, 0, :, 0] - middles).abs()[1:-1].max() <= 0.5
    again = train_transform(frames, card, torch.Generator().manual_seed(3))
    assert torch.equal(clip, again)

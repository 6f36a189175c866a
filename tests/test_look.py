"""Looks and sights as values: their words, coordinates, and the frames that stand for them."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nonlocalnet import transforms
from nonlocalnet.card import Card
from nonlocalnet.look import Key, Look, Panel, Sight, panels, percent, query_frame, shares

LOOK = Look(
    network="i3d_tiny",
    block="layer2.0",
    pairwise="embedded_gaussian",
    mode="spacetime",
    awake=True,
    exact=True,
    sample=0,
    query=(5.0, 8.0, 20.0),
    cell=(5, 2, 5),
    centre=(5.0, 8.0, 20.0),
    weights=torch.full((8, 4, 4), 1 / 128, dtype=torch.float64),
    grid=((1.0, 0.0), (8.0, 2.0), (8.0, 2.0)),
    seen=128,
    top=2,
    keys=(Key(0.5, (1, 0, 3), (1.0, 2.0, 26.0)), Key(-0.25, (6, 2, 1), (6.0, 18.0, 10.0))),
    share=0.75,
    uniform=2 / 128,
    negative=0.0,
    entropy=3.0,
    relative_entropy=0.618,
    dependence=0.04,
    departure=0.05,
)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1, "100 %"),
        (0.634, "63 %"),
        (0.0996, "10 %"),
        (0.0994, "9.9 %"),
        (0.0104, "1.0 %"),
        (0.00994, "0.99 %"),
        (0.0996e-1, "1.0 %"),
        (0.0006, "0.06 %"),
        (0.00001, "< 0.01 %"),
        (0, "0 %"),
    ],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_words() -> None:
    assert LOOK.words() == (
        "top-2 hold 75 % (uniform 1.6 %)",
        "entropy 3.00 nats, 62 % of uniform",
        "differs 5.0 % from the average map (all queries: 4.0 %)",
    )
    assert dataclasses.replace(LOOK, negative=0.3).words()[3:] == ("30 % negative",)
    assert len(dataclasses.replace(LOOK, keys=()).words()) == 1


def test_shares() -> None:
    assert shares(torch.tensor([1.0, -3.0])).tolist() == [0.25, -0.75]
    assert shares(torch.zeros(3)).tolist() == [0, 0, 0]


def test_weight_per_frame() -> None:
    weights = torch.zeros(2, 1, 3)
    weights[0, 0] = torch.tensor([2.0, -1.0, 0.0])
    weights[1, 0] = torch.tensor([0.0, 0.0, -1.0])
    look = dataclasses.replace(LOOK, weights=weights)
    assert look.per_frame.tolist() == [[0.5, 0.0], [0.25, 0.25]]


def test_moved() -> None:
    moved = LOOK.moved((1, 2, 3), (0, 10, -1))
    assert moved.query == moved.centre == (5.0, 26.0, 59.0)
    assert [key.centre for key in moved.keys] == [(1.0, 14.0, 77.0), (6.0, 46.0, 29.0)]
    assert moved.grid == ((1.0, 0.0), (16.0, 14.0), (24.0, 5.0))
    assert moved.keys[0].weight == 0.5
    assert LOOK.query == (5.0, 8.0, 20.0)


def centre_of_light(frames: Tensor) -> tuple[float, float]:
    """(y, x) of what is brighter than the rest of (T, H, W, 3)."""
    light = frames[0].double().mean(-1)
    light = light - light.min()
    y, x = (torch.arange(size, dtype=torch.float64) for size in light.shape)
    return float((light.sum(1) @ y) / light.sum()), float((light.sum(0) @ x) / light.sum())


@pytest.mark.parametrize(("height", "width"), [(96, 150), (150, 96), (64, 64), (31, 77)])
def test_back_to_the_video_through_the_crop(height: int, width: int) -> None:
    """A spot of a video, cropped and resized for the network, is found where it was."""
    card = Card(short_side=40, test_crop=32)
    (box,) = transforms.crop_boxes(height, width, card, 1)
    frames = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    y, x = box.top + box.side // 3, box.left + box.side // 2
    frames[:, y - 6 : y + 7, x - 6 : x + 7] = 200
    crop = transforms.test_crops(frames, card, 1)[0].permute(1, 2, 3, 0)  # (T, S, S, 3)
    there = centre_of_light(crop)
    sight = Sight(dataclasses.replace(LOOK, query=(0.0, *there)), crop, box=box)
    found = sight.in_video().query
    assert found == pytest.approx((0, y, x), abs=0.1)
    assert sight.in_video().weights is sight.look.weights


def test_without_a_video_pixels_stay() -> None:
    sight = Sight(LOOK, torch.zeros(8, 32, 32, 3, dtype=torch.uint8))
    assert sight.in_video() is LOOK
    assert sight.where() == "from x 20, y 8 at frame 5"
    assert Sight(LOOK, sight.frames[:1]).where() == "from x 20, y 8"
    timed = Sight(LOOK, sight.frames, tuple(i / 8 for i in range(8)))
    assert timed.where() == "from x 20, y 8 at 0.62 s"


@given(
    frames=st.integers(1, 40),
    cells=st.integers(1, 40),
    query=st.floats(0, 1),
    key=st.floats(0, 1),
    at_most=st.integers(3, 9),
)
def test_panels(frames: int, cells: int, query: float, key: float, at_most: int) -> None:
    cells = min(cells, frames)
    step = frames / cells
    heavy = round(key * (cells - 1))
    look = dataclasses.replace(
        LOOK,
        query=(query * (frames - 1), 0.0, 0.0),
        weights=torch.zeros(cells, 1, 1),
        grid=((step, step / 2 - 0.5), (1.0, 0.0), (1.0, 0.0)),
        keys=(Key(-1.0, (heavy, 0, 0), (0.0, 0.0, 0.0)),),
    )
    shown = panels(look, frames, at_most)
    assert len(shown) == min(cells, at_most)
    assert query_frame(look, frames) in [panel.frame for panel in shown]
    assert heavy in [panel.cell for panel in shown]
    numbers = [panel.cell for panel in shown]
    assert numbers == sorted(set(numbers))
    assert all(a.frame < b.frame for a, b in pairwise(shown))
    for panel in shown:  # a frame stands for the part of time that it lies in
        centre = step / 2 - 0.5 + step * panel.cell
        assert 0 <= panel.frame < frames
        assert abs(panel.frame - centre) <= step / 2 + 1e-6


def test_panels_of_a_short_clip() -> None:
    look = dataclasses.replace(
        LOOK, weights=torch.ones(4, 1, 1), grid=((2.0, 0.5), (1.0, 0.0), (1.0, 0.0)), keys=()
    )
    # cells lie at 0.5, 2.5, 4.5, 6.5; the query in frame 5 stands for its own cell
    assert panels(look, 8, 8) == (Panel(0, 0), Panel(2, 1), Panel(5, 2), Panel(6, 3))


def test_panels_of_a_long_clip_are_spread() -> None:
    look = dataclasses.replace(
        LOOK, weights=torch.ones(33, 1, 1), grid=((1.0, 0.0),) * 3, keys=(), query=(0.0, 0.0, 0.0)
    )
    assert [panel.cell for panel in panels(look, 33, 5)] == [0, 8, 16, 24, 32]

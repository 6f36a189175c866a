"""Places of a video file: which clip and pixel they are, and that the clip is the tests' own."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nonlocalnet import create_model
from nonlocalnet.attention import attend
from nonlocalnet.card import Card, card_of, set_card
from nonlocalnet.datasets import ViewDataset, Views
from nonlocalnet.errors import UserError
from nonlocalnet.resnet import ResNet3d
from nonlocalnet.sight import attend_video, parse_position
from nonlocalnet.transforms import normalize
from nonlocalnet.video import Video, VideoError, write_video

FPS = 10.0


def network(**card: object) -> ResNet3d:
    """Of clips of 8 frames, 32 pixels; awake, so that maps differ."""
    torch.manual_seed(0)
    model = create_model("c2d_tiny", 2, 1, width=4, zero_init="none", init="msra")
    changed = dataclasses.replace(card_of(model), short_side=40, test_crop=32, **card)
    set_card(model, changed)
    return model


def frames(count: int, height: int = 48, width: int = 80) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, height // 8, width // 8, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (255 * fine).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames, 0 to 6 seconds, 48 x 80 pixels."""
    path = tmp_path_factory.mktemp("sight") / "some video.mp4"
    write_video(path, frames(60), FPS)
    return path


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("1.2s:0.40,0.55", (1.2, 0.4, 0.55)),
        ("0:0,1", (0, 0, 1)),
        (" 12 s : .5 , 1. ", (12, 0.5, 1)),
        ("3.s:0.1,0.2", (3, 0.1, 0.2)),
    ],
)
def test_a_place_in_words(text: str, place: tuple[float, float, float]) -> None:
    assert parse_position(text) == place


@pytest.mark.parametrize(
    "text",
    ["", "1.2", "1.2s", "1.2s:0.4", "a:b,c", "1s:0.4,0.5,0.6", "-1s:0,0", "1s:.,.", "1:nan,0"],
)
def test_no_place(text: str) -> None:
    with pytest.raises(UserError, match="SECONDS:X,Y"):
        parse_position(text)


def test_the_clip_is_that_of_the_tests(video: Path) -> None:
    model = network(clips=3)
    card = card_of(model)
    views = ViewDataset([str(video)], card, clips=3, crops=1)[0]
    assert isinstance(views, Views)
    for view in range(3):
        seconds = float(views.timestamps[view, 4])
        (sight,) = attend_video(model, video, [(seconds, 0.5, 0.5)])
        assert torch.equal(sight.frames.permute(3, 0, 1, 2), views.clips[view])
        assert sight.seconds == tuple(views.timestamps[view].tolist())
        assert sight.path == str(video)
        (look,) = attend(model, normalize(views.clips[view], card), [(4, 15.5, 15.5)])
        assert torch.equal(look.weights, sight.look.weights)
        assert sight.look.query == pytest.approx((4, 15.5, 15.5))


def test_places_keep_their_order_and_their_clips(video: Path) -> None:
    model = network(clips=3)
    places = [(5.5, 0.5, 0.5), (0.2, 0.4, 0.6), (5.6, 0.6, 0.5), (0.2, 0.4, 0.6)]
    together = attend_video(model, video, places, top=3)
    for place, sight in zip(places, together, strict=True):
        (alone,) = attend_video(model, video, [place], top=3)
        assert torch.equal(alone.frames, sight.frames)
        # rows of several queries are one product, which may round in another way
        torch.testing.assert_close(alone.look.weights, sight.look.weights, rtol=1e-5, atol=1e-7)
        assert alone.look.query == sight.look.query
        assert len(sight.look.keys) == 3
    assert together[0].frames is together[2].frames


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.31, 0.7), (0.68, 0.12)])
def test_places_are_fractions_of_the_whole_frame(
    video: Path, fractions: tuple[float, float]
) -> None:
    (sight,) = attend_video(network(), video, [(3.0, *fractions)])
    _, y, x = sight.in_video().query
    assert ((x + 0.5) / 80, (y + 0.5) / 48) == pytest.approx(fractions)
    assert sight.box is not None
    # a side of 48 x 32 / 40 pixels, in the middle
    assert sight.box.side == 38
    assert abs(sight.box.left - (80 - 38) / 2) <= 0.5
    assert abs(sight.box.top - (48 - 38) / 2) <= 0.5


@pytest.mark.parametrize("seconds", [0.0, 0.04, 1.99, 3.05, 5.9, 5.95, 6.0])
@pytest.mark.parametrize(
    "card",
    [
        {"clips": 1},  # leaves most of the video out
        {"clips": 2},
        {"clips": 30},
        {"clips": 10, "stride": 3},
        {"clips": 2, "stride": 20},  # longer than the video: the last frame is repeated
        {"clips": 2, "stride": 20, "beyond": "wrap"},
        {"clips": 2, "sampling": "segments"},
    ],
)
def test_the_clip_holds_the_time(video: Path, seconds: float, card: dict[str, object]) -> None:
    model = network(**card)
    (sight,) = attend_video(model, video, [(seconds, 0.5, 0.5)])
    assert sight.seconds is not None
    found = sight.seconds[round(sight.look.query[0])]
    stride = 60 / 8 if card.get("sampling") else float(str(card.get("stride", 1)))
    assert abs(found - seconds) <= (stride / 2 + 1) / FPS + 1e-6
    with Video(video) as opened:
        assert len(sight.seconds) == 8
        assert set(sight.seconds) <= set(opened.timestamps.tolist())


def test_a_clip_is_laid_around_a_time_that_the_tests_leave_out(video: Path) -> None:
    (sight,) = attend_video(network(clips=2), video, [(2.0, 0.5, 0.5)])
    assert sight.seconds == pytest.approx([1.7, 1.8, 1.9, 2.0, 2.1, 2.2, 2.3, 2.4])


def test_without_places_some_are_chosen_in_the_middle_clip(video: Path) -> None:
    sights = attend_video(network(clips=3), video, count=2)
    assert len(sights) == 2
    assert sights[0].seconds == pytest.approx([2.6, 2.7, 2.8, 2.9, 3.0, 3.1, 3.2, 3.3])
    assert sights[0].look.cell != sights[1].look.cell


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((6.5, 0.5, 0.5), r"6.5 s lies outside the video, which lasts 6.00 s"),
        ((-1, 0.5, 0.5), "lies outside the video"),
        ((math.nan, 0.5, 0.5), "lies outside the video"),
        ((1, 1.5, 0.5), "fractions of the frame, 0 to 1"),
        ((1, 0.1, 0.5), r"outside the square .* 80 x 48 video: x from 0.26 to 0.74, y from 0.10"),
        ((1, 0.5, 0.99), "outside the square"),
    ],
)
def test_a_place_that_the_network_does_not_see(
    video: Path, place: tuple[float, float, float], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        attend_video(network(), video, [(3.0, 0.5, 0.5), place])


def test_no_network_no_video(video: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no non-local block"):
        attend_video(create_model("c2d_tiny", 2), video)
    with pytest.raises(UserError, match="card"):
        attend_video(torch.nn.Sequential(), video)
    with pytest.raises(VideoError):
        attend_video(network(), tmp_path / "nothing.mp4")


def test_a_video_of_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    write_video(path, frames(1), FPS)
    (sight,) = attend_video(network(), path, [(0.0, 0.5, 0.5)])
    assert sight.look.query[0] == 0
    assert sight.seconds == (0.0,) * Card(frames=8).frames

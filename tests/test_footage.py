"""Numbered pictures and parts of videos read as videos are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nonlocalnet.card import Card
from nonlocalnet.datasets import Broken, VideoDataset, ViewDataset, Views
from nonlocalnet.footage import Pictures, open_sample
from nonlocalnet.samples import Action, Sample
from nonlocalnet.video import Video, VideoError, write_video


def numbered(count: int, height: int = 24, width: int = 32) -> torch.Tensor:
    """Frame i is all of brightness 8 i."""
    grey = torch.arange(count, dtype=torch.uint8)[:, None, None, None] * 8
    return grey.expand(count, height, width, 3).contiguous()


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    folder = tmp_path / "a{b}"  # braces in a folder are no pattern
    folder.mkdir()
    for i, frame in enumerate(numbered(12), 1):
        Image.fromarray(frame.numpy()).save(folder / f"img_{i:05d}.png")
    return str(folder / "img_{:05d}.png")


def test_pictures_are_a_video(pictures: str) -> None:
    with open_sample(Sample(pictures, 0, "a", pictures=12, rate=6.0)) as footage:
        assert len(footage) == 12
        assert torch.equal(footage.frames([3, 0, 3, 11]), numbered(12)[[3, 0, 3, 11]])
        assert footage.frames([]).shape == (0, 24, 32, 3)
        assert footage.timestamps.tolist() == [i / 6 for i in range(12)]
        info = footage.info
    assert (info.fps, info.duration, info.width, info.height) == (6.0, 2.0, 32, 24)


def test_pictures_counted_from_nought(pictures: str) -> None:
    Image.fromarray(np.full((24, 32, 3), 255, np.uint8)).save(pictures.replace("{:05d}", "00000"))
    assert Pictures(pictures, 12).frames([0, 1])[:, 0, 0, 0].tolist() == [255, 0]


def test_pictures_that_are_none(pictures: str) -> None:
    with pytest.raises(VideoError, match=r"img_00013.png.*no such picture, of 14 that are listed"):
        Pictures(pictures, 14).frames([12])
    with pytest.raises(IndexError):
        Pictures(pictures, 12).frames([12])
    Path(pictures.replace("{:05d}", "00002")).write_text("no picture")
    with pytest.raises(VideoError, match="cannot be read as a picture"):
        Pictures(pictures, 12).frames([1])
    Image.new("RGB", (8, 8)).save(pictures.replace("{:05d}", "00003"))
    with pytest.raises(VideoError, match="size changes from 32x24 to 8x8"):
        Pictures(pictures, 12).frames([0, 2])


@pytest.fixture
def video(tmp_path: Path) -> str:
    path = tmp_path / "v.mp4"
    write_video(path, numbered(30), fps=10.0, qp=0)
    return str(path)


def test_a_part_of_a_video(video: str) -> None:
    with Video(video) as whole:
        expected = whole.frames(range(5, 12))
    with open_sample(Sample(video, 0, "v", start=0.5, end=1.2)) as part:
        assert len(part) == 7
        assert torch.equal(part.frames(range(7)), expected)
        assert part.timestamps.tolist() == pytest.approx([i / 10 for i in range(5, 12)])
        with pytest.raises(IndexError):
            part.frames([7])
        with pytest.raises(IndexError):
            part.frames([-1])


def test_a_part_without_frames(video: str) -> None:
    with pytest.raises(VideoError, match=r"no frame from 8 to 9 s; it lasts 3\.0 s"):
        open_sample(Sample(video, 0, "v", start=8.0, end=9.0))
    item = VideoDataset([Sample(video, 0, "v", start=8.0)], Card())[0, 0]
    assert isinstance(item, Broken)
    assert item.path == video


def test_labels_of_a_clip_are_those_of_its_seconds(video: str) -> None:
    actions = (Action(0, 0.0, 0.9), Action(1, 2.5, 3.0), Action(3, 0.0, 3.0))
    card = Card(classes=("a", "b", "c", "d"), frames=5, stride=1, crop=16, jitter=(16, 16))
    dataset = VideoDataset([Sample(video, -1, "v", actions=actions)], card)
    seen = set()
    for epoch in range(40):
        item = dataset[epoch, 0]
        assert not isinstance(item, Broken)
        clip, target = item
        assert isinstance(target, torch.Tensor)
        # the first frame of the clip tells its time: brightness 8 a tenth of a second
        first = round(float(clip[0, 0].float().mean()) / 8) / 10
        last = first + 0.4
        expected = [first <= 0.901, last >= 2.499, False, True]
        assert target.tolist() == [float(yes) for yes in expected]
        seen.add(tuple(expected))
    assert len(seen) == 3


def test_views_know_their_sample(video: str) -> None:
    sample = Sample(video, 1, "v", start=1.0, end=2.0)
    card = Card(frames=4, stride=2, short_side=24, test_crop=24)
    views = ViewDataset([sample], card, 2, 3)[0]
    assert isinstance(views, Views)
    assert views.sample == sample
    assert views.timestamps.min() >= 1.0
    assert views.timestamps.max() < 2.0

"""Films that are written in parts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nonlocalnet.film_parts import FilmParts
from nonlocalnet.packets import VideoError
from nonlocalnet.timeline.annotate import TICK
from nonlocalnet.video import Video


def pictures(count: int) -> list[np.ndarray]:
    return [np.full((32, 48, 3), 20 * n, np.uint8) for n in range(count)]


@pytest.mark.parametrize("name", ["film.mp4", "film.mov", "film.mkv"])
def test_parts_follow_each_other(name: str, tmp_path: Path) -> None:
    seconds = np.cumsum([0.4, 0.1, 0.5, 0.1, 2.0, 0.1, 0.1, 0.3])
    path = tmp_path / name
    first = FilmParts(path, ["a"], Fraction(10), 3)
    for picture, time in zip(pictures(7), seconds, strict=False):
        first.add(picture, round(time / TICK))
    first.stop()  # two of the third part are thrown away
    second = FilmParts(path, ["a"], Fraction(10), 3)
    assert second.frames == 6
    for picture, time in list(zip(pictures(8), seconds, strict=True))[6:]:
        second.add(picture, round(time / TICK))
    second.join(None)
    with Video(path) as video:
        assert np.allclose(video.timestamps - video.timestamps[0], seconds - seconds[0], atol=1e-3)
        means = video.frames(range(8)).float().mean((1, 2, 3))
    assert np.allclose(means, [20 * n for n in range(8)], atol=3)
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_no_video_has(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"cannot write .gif; use .mp4, .mov or .mkv"):
        FilmParts(tmp_path / "a.gif", [], Fraction(10), 3)
    assert not list(tmp_path.iterdir())

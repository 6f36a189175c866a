"""Which frames: properties for all lengths, and the rules of the papers' codes by other means."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from nonlocalnet import clips
from nonlocalnet.card import Beyond, Card
from nonlocalnet.clips import Dense

counts = st.integers(1, 400)
lengths = st.integers(1, 40)
strides = st.integers(1, 9)
views = st.integers(1, 12)
seeds = st.integers(0, 2**31)
beyonds = st.sampled_from(["clamp", "wrap"])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_window(clip: np.ndarray, count: int, stride: int, beyond: Beyond) -> None:
    """`stride` apart from its first frame on, and past the end what `beyond` says."""
    plain = [int(clip[0]) + stride * step for step in range(len(clip))]
    past = {"clamp": lambda i: min(i, count - 1), "wrap": lambda i: i % count}[beyond]
    assert clip.tolist() == [past(index) for index in plain]
    if plain[-1] >= count:
        assert clip[0] == 0  # only a video that is too short is continued


@given(counts, lengths, strides, seeds, beyonds)
def test_dense_clip(count: int, frames: int, stride: int, seed: int, beyond: Beyond) -> None:
    clip = Dense(frames, stride, beyond=beyond).clip(count, seeded(seed))
    assert clip.shape == (frames,)
    assert clip.dtype == np.int64
    assert_window(clip, count, stride, beyond)
    again = Dense(frames, stride, beyond=beyond).clip(count, seeded(seed))
    assert np.array_equal(clip, again)


@given(counts, lengths, strides, views, beyonds)
def test_dense_views(count: int, frames: int, stride: int, number: int, beyond: Beyond) -> None:
    found = Dense(frames, stride, beyond=beyond).views(count, number)
    assert found.shape == (number, frames)
    assert found.dtype == np.int64
    for clip in found:
        assert_window(clip, count, stride, beyond)
    left, right = found[:, 0], count - 1 - found[:, -1]  # frames left over on either side
    fits = (frames - 1) * stride < count
    if number == 1:
        assert not fits or 0 <= right[0] - left[0] <= 1  # in the centre
    elif fits:
        assert left[0] == 0
        assert right[-1] == 0
        steps = np.diff(left)
        assert steps.max() - steps.min() <= 1  # evenly spaced


@given(counts, lengths, strides, views, beyonds)
def test_starts_by_share(count: int, frames: int, stride: int, number: int, beyond: Beyond) -> None:
    """Clip j of n starts at floor(count j / n), and goes beyond the end there as anywhere."""
    found = Dense(frames, stride, beyond=beyond, starts="share").views(count, number)
    assert found.shape == (number, frames)
    assert found.dtype == np.int64
    if number == 1:  # the centre
        assert np.array_equal(found, Dense(frames, stride, beyond=beyond).views(count, 1))
        return
    for j, clip in enumerate(found):
        start = math.floor(Fraction(count * j, number))
        plain = [start + stride * step for step in range(frames)]
        wanted = [min(i, count - 1) if beyond == "clamp" else i % count for i in plain]
        assert clip.tolist() == wanted


def test_caffe2s_ten_clips() -> None:
    """300 frames, 32 of stride 2: the last starts at 270 and goes on from the beginning."""
    card = Card(frames=32, stride=2, starts="share", beyond="wrap")
    found = clips.test_views(300, card, 10)
    assert found[:, 0].tolist() == list(range(0, 300, 30))
    assert found[9].tolist() == [*range(270, 300, 2), *range(0, 34, 2)]
    fit = clips.test_views(300, dataclasses.replace(card, starts="fit"), 10)
    assert fit[:, 0].tolist() == [0, 26, 53, 79, 105, 132, 158, 184, 211, 237]
    drawn = clips.training_clip(300, card, seeded(0))  # training has nothing to do with it
    assert np.array_equal(drawn, Dense(32, 2).clip(300, seeded(0)))


def test_dense_starts_are_uniform() -> None:
    """20 frames, a window of 17: starts 0, 1, 2 and 3 come equally often."""
    generator = seeded(0)
    starts = [Dense(9, 2).clip(20, generator)[0] for _ in range(4000)]
    seen = np.bincount(starts)
    assert len(seen) == 4
    assert np.abs(seen - 1000).max() < 5 * math.sqrt(1000 * 3 / 4)


def test_the_papers_clip() -> None:
    """32 frames, every other one of 64; ten clips of 300 frames from the first to the last."""
    found = Dense(32, 2).views(300, 10)
    assert found[0].tolist() == list(range(0, 63, 2))
    assert found[9].tolist() == list(range(237, 300, 2))
    assert found[:, 0].tolist() == [0, 26, 53, 79, 105, 132, 158, 184, 211, 237]


@given(counts, lengths, seeds)
def test_segment_clip(count: int, segments: int, seed: int) -> None:
    clip = clips.segment_clip(count, segments, seeded(seed))
    assert clip.shape == (segments,)
    assert clip.dtype == np.int64
    assert clip.min() >= 0
    assert clip.max() < count
    assert (np.diff(clip) >= 0).all()
    part = count // segments
    if part:
        assert (clip // part).tolist() == list(range(segments))  # one of each part


def test_segment_clip_is_uniform_in_its_part() -> None:
    generator = seeded(0)
    drawn = np.stack([clips.segment_clip(23, 4, generator) for _ in range(5000)])
    for segment in range(4):
        seen = np.bincount(drawn[:, segment] - 5 * segment)
        assert len(seen) == 5
        assert np.abs(seen - 1000).max() < 5 * math.sqrt(1000 * 4 / 5)


@given(counts, lengths)
def test_segment_views_of_one_clip_are_the_middles(count: int, segments: int) -> None:
    tick = Fraction(count, segments)
    expected = [math.floor(tick / 2 + tick * part) for part in range(segments)]
    assert clips.segment_views(count, segments, 1).tolist() == [expected]


@given(counts, lengths)
def test_two_segment_views_are_tsms_pair(count: int, segments: int) -> None:
    tick = Fraction(count, segments)
    starts = [math.floor(tick * part) for part in range(segments)]
    middles = [math.floor(tick / 2 + tick * part) for part in range(segments)]
    assert clips.segment_views(count, segments, 2).tolist() == [starts, middles]


@given(counts, lengths, views)
def test_segment_views(count: int, segments: int, number: int) -> None:
    found = clips.segment_views(count, segments, number)
    assert found.shape == (number, segments)
    assert found.dtype == np.int64
    assert found.min() >= 0
    assert found.max() < count
    assert (np.diff(found, axis=1) >= 0).all()
    assert (np.diff(found, axis=0) >= 0).all()
    if count >= segments * number:
        assert len(np.unique(found)) == segments * number  # no frame is looked at twice


rates = st.sampled_from([0.0, 12.0, 25.0, 29.97, 30.0, 60.0])


@given(counts, st.integers(2, 40), strides, views, rates)
def test_pyslowfasts_views(count: int, frames: int, stride: int, number: int, fps: float) -> None:
    """Frames from first to last of a window of frames * stride / 30 seconds, starts at j / n."""
    found = Dense(frames, stride, "spread", starts="slack", rate=30.0).views(count, number, fps)
    length = frames * stride * (fps or 30.0) / 30.0
    assume(length >= 1)  # theirs would run backwards
    room = max(count - length, 0)
    for j, clip in enumerate(found if number > 1 else []):
        first = room * j / number
        exact = [first + i * (length - 1) / (frames - 1) for i in range(frames)]
        assert all(
            got in {math.floor(min(max(e + d, 0), count - 1)) for d in (-1e-6, 1e-6)}
            for got, e in zip(clip.tolist(), exact, strict=True)
        )


def test_eight_by_eight_is_nine_apart_in_pyslowfast() -> None:
    assert np.diff(Dense(8, 8, "spread").views(300, 1)).tolist() == [[9] * 7]
    # twice as many frames a second: the same 64/30 seconds
    doubled = Dense(8, 8, "spread", rate=30.0).views(600, 1, 60.0)
    assert doubled[0, -1] - doubled[0, 0] == 127


@given(counts, views)
def test_tsms_dense_views(count: int, number: int) -> None:
    """A window of 64 frames, whole starts from 0 to its last, frames modulo the video."""
    found = Dense(8, 8, "full", "wrap", "floor").views(count, number)
    last = max(1, 1 + count - 64) - 1
    starts = [last // 2] if number == 1 else [last * j // (number - 1) for j in range(number)]
    assert found.tolist() == [[(start + 8 * i) % count for i in range(8)] for start in starts]


@given(counts, lengths, strides, seeds)
def test_a_full_window_counts_the_frames_after_the_last(
    count: int, frames: int, stride: int, seed: int
) -> None:
    clip = Dense(frames, stride, "full").clip(count, seeded(seed))
    assert clip[0] + frames * stride <= max(count, frames * stride)
    assert_window(clip, count, stride, "clamp")


def test_the_card_decides() -> None:
    dense = Card(frames=8, stride=3, beyond="wrap")
    short = clips.training_clip(10, dense, seeded(3))
    assert short.tolist() == [0, 3, 6, 9, 2, 5, 8, 1]
    assert np.array_equal(clips.test_views(90, dense, 4), Dense(8, 3, beyond="wrap").views(90, 4))
    long = clips.training_clip(90, dense, seeded(3))
    assert np.array_equal(long, Dense(8, 3, beyond="wrap").clip(90, seeded(3)))

    segments = dataclasses.replace(dense, sampling="segments")
    drawn = clips.training_clip(90, segments, seeded(3))
    assert np.array_equal(drawn, clips.segment_clip(90, 8, seeded(3)))
    assert np.array_equal(clips.test_views(90, segments, 2), clips.segment_views(90, 8, 2))


@pytest.mark.parametrize("name", ["count", "frames", "stride", "clips"])
def test_nothing_to_choose_from(name: str) -> None:
    numbers = {"count": 9, "frames": 4, "stride": 2, "clips": 3, name: 0}
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        Dense(numbers["frames"], numbers["stride"]).views(numbers["count"], numbers["clips"])


def test_no_segments() -> None:
    for count, segments in ((0, 4), (9, 0)):
        with pytest.raises(ValueError, match="expected at least 1, got 0"):
            clips.segment_clip(count, segments, seeded(0))
        with pytest.raises(ValueError, match="expected at least 1, got 0"):
            clips.segment_views(count, segments, 1)

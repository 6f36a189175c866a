"""Which frames of a video a network sees: numbers of frames, integers only.

Two families. Dense sampling (the paper): a window of `frames` frames, every `stride`-th one.
Segment sampling (TSN, TSM): the video in `frames` equal parts, one frame of each. Training draws
one clip at random; testing lays several over the video by rule.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from .card import Beyond, Card, Sampling, Starts

Indices = NDArray[np.int64]

# What stands where a window is longer than the video.
BEYOND: dict[Beyond, Callable[[Indices, int], Indices]] = {
    "clamp": lambda indices, count: np.minimum(indices, count - 1),  # the last frame: PySlowFast
    "wrap": lambda indices, count: indices % count,  # from the start again: Caffe2 code, TSM dense
}


def dense_clip(
    count: int, frames: int, stride: int, generator: Generator, beyond: Beyond = "clamp"
) -> Indices:
    """One training clip (frames,) out of `count` frames, its start uniform over all that fit.

    Paper, section 4: 64 consecutive frames, every other one dropped (frames=32, stride=2). A
    video shorter than the window starts at 0 and is continued by `beyond`.
    """
    last = _last_start(count, frames, stride)
    start = _draw(last + 1, 1, generator)
    clip: Indices = _window(start, count, frames, stride, beyond)[0]
    return clip


def dense_views(
    count: int,
    frames: int,
    stride: int,
    clips: int,
    beyond: Beyond = "clamp",
    starts_by: Starts = "fit",
) -> Indices:
    """Test clips (clips, frames): starts evenly spaced, the first at 0. One clip is the centre one.

    Paper, section 4 ("10 clips evenly from a full-length video"). "fit": the last one ends with
    the video (TSM, PySlowFast). "share": clip j of n starts at count j / n, and the last ones go
    beyond the end (Caffe2).
    """
    _at_least_one(clips=clips)
    last = _last_start(count, frames, stride)
    if clips == 1:
        starts = np.array([last // 2], dtype=np.int64)
    elif starts_by == "share":
        starts = count * np.arange(clips, dtype=np.int64) // clips
    else:
        gaps = clips - 1
        starts = (2 * last * np.arange(clips, dtype=np.int64) + gaps) // (2 * gaps)  # rounded
    return _window(starts, count, frames, stride, beyond)


def segment_clip(count: int, segments: int, generator: Generator) -> Indices:
    """One training clip (segments,): a random frame of each of the equal parts, in order.

    TSN and TSM: part i begins at i * (count // segments). A video with fewer frames than parts
    gives a sorted random draw with repetition (TSN's second rule; TSM's code repeats frame 0).
    """
    _at_least_one(count=count, segments=segments)
    part = count // segments
    if part == 0:
        return np.sort(_draw(count, segments, generator))
    starts: Indices = np.arange(segments, dtype=np.int64) * part
    return starts + _draw(part, segments, generator)


def segment_views(count: int, segments: int, clips: int) -> Indices:
    """Test clips (clips, segments): the same place in every part.

    One clip takes the middles, floor(tick / 2 + tick * i) with tick = count / segments (TSN, TSM).
    Of several, clip v lies v / clips into the parts; two of them are TSM's `twice_sample`.
    """
    _at_least_one(count=count, segments=segments, clips=clips)
    part = np.arange(segments, dtype=np.int64)
    if clips == 1:
        return count * (2 * part + 1)[None] // (2 * segments)
    view = np.arange(clips, dtype=np.int64)[:, None]
    return count * (part * clips + view) // (segments * clips)


TRAINING: dict[Sampling, Callable[[int, Card, Generator], Indices]] = {
    "dense": lambda count, card, generator: dense_clip(
        count, card.frames, card.stride, generator, card.beyond
    ),
    "segments": lambda count, card, generator: segment_clip(count, card.frames, generator),
}

TESTING: dict[Sampling, Callable[[int, Card, int], Indices]] = {
    "dense": lambda count, card, clips: dense_views(
        count, card.frames, card.stride, clips, card.beyond, card.starts
    ),
    "segments": lambda count, card, clips: segment_views(count, card.frames, clips),
}


def training_clip(count: int, card: Card, generator: Generator) -> Indices:
    """One random clip (card.frames,) of a video of `count` frames, as the card says."""
    return TRAINING[card.sampling](count, card, generator)


def test_views(count: int, card: Card, clips: int) -> Indices:
    """The test clips (clips, card.frames) of a video of `count` frames, as the card says."""
    return TESTING[card.sampling](count, card, clips)


def _last_start(count: int, frames: int, stride: int) -> int:
    """The last start of a window that fits, 0 if none does."""
    _at_least_one(count=count, frames=frames, stride=stride)
    return max(count - ((frames - 1) * stride + 1), 0)


def _window(starts: Indices, count: int, frames: int, stride: int, beyond: Beyond) -> Indices:
    """(V,) starts -> (V, frames) indices within 0 ... count - 1."""
    steps = np.arange(frames, dtype=np.int64) * stride
    return BEYOND[beyond](starts[:, None] + steps, count)


def _draw(below: int, number: int, generator: Generator) -> Indices:
    drawn: Indices = torch.randint(below, (number,), generator=generator).numpy()
    return drawn


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")

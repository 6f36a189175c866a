"""Which frames of a video a network sees: numbers of frames, integers only.

Two families. Dense sampling (the paper): a window of `frames` frames, every `stride`-th one.
Segment sampling (TSN, TSM): the video in `frames` equal parts, one frame of each. Training draws
one clip at random; testing lays several over the video by rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from .card import Beyond, Card, Starts, Window

Indices = NDArray[np.int64]

# What stands where a window is longer than the video.
BEYOND: dict[Beyond, Callable[[Indices, int], Indices]] = {
    "clamp": lambda indices, count: np.minimum(indices, count - 1),  # the last frame: PySlowFast
    "wrap": lambda indices, count: indices % count,  # from the start again: Caffe2 code, TSM dense
}


@dataclass(frozen=True)
class Dense:
    """A clip of `frames` frames out of a window of a video, and what each codebase does with it.

    window: "span", frames every `stride`, from the first to the last (the paper); "full", the
        same frames, but the clip counts as frames * stride long (TSM's 64, MMAction2); "spread",
        that window's first and last frame and the others evenly between, so that 8 frames of
        stride 8 are 9 apart (PySlowFast).
    rate: frames per second that the stride is meant for; at another rate the window lasts as long
        (PySlowFast: 30). 0: the video's own rate.
    """

    frames: int
    stride: int
    window: Window = "span"
    beyond: Beyond = "clamp"
    starts: Starts = "fit"
    rate: float = 0.0

    def clip(self, count: int, generator: Generator, fps: float = 0.0) -> Indices:
        """One training clip (frames,) out of `count` frames, its start uniform over all that fit.

        Paper, section 4: 64 consecutive frames, every other one dropped (frames=32, stride=2). A
        video shorter than the window starts at 0 and is continued by `beyond`.
        """
        last = self._last_start(count, fps)
        start = _draw(math.floor(last) + 1, 1, generator)
        clip: Indices = self._at(start, count, fps)[0]
        return clip

    def views(self, count: int, clips: int, fps: float = 0.0) -> Indices:
        """Test clips (clips, frames), the first at frame 0; one clip is the centre one.

        Paper, section 4 ("10 clips evenly from a full-length video"). Starts, of n clips with
        room for `last`: "fit", the last one ends with the video, rounded (MMAction2); "floor",
        the same cut to whole numbers (TSM); "slack", clip j starts at last j / n (PySlowFast);
        "share", at count j / n, and the last ones go beyond the end (Caffe2).
        """
        _at_least_one(clips=clips)
        last = self._last_start(count, fps)
        j = np.arange(clips, dtype=np.int64)
        if clips == 1:
            starts = np.floor_divide([last], 2)
        else:
            starts = STARTS[self.starts](j, clips, last, count)
        return self._at(starts, count, fps)

    def spacing(self, fps: float = 0.0) -> float:
        """How many frames the frames of a clip are apart."""
        if self.window == "spread" and self.frames > 1:
            return max(self.frames * self._stride(fps) - 1, 0) / (self.frames - 1)
        return self._stride(fps)

    def _stride(self, fps: float) -> float:
        return self.stride * fps / self.rate if self.rate and fps else self.stride

    def _last_start(self, count: int, fps: float) -> float:
        """The last start of a window that fits, 0 if none does."""
        _at_least_one(count=count, frames=self.frames, stride=self.stride)
        stride = self._stride(fps)
        span = (self.frames - 1) * stride + 1
        return max(count - (span if self.window == "span" else self.frames * stride), 0)

    def _at(self, starts: NDArray[np.generic], count: int, fps: float) -> Indices:
        """(V,) starts -> (V, frames) indices within 0 ... count - 1."""
        stride = self._stride(fps)
        steps: NDArray[Any] = np.arange(self.frames) * stride
        if self.window == "spread":
            steps = np.linspace(0, max(self.frames * stride - 1, 0), self.frames)
        chosen = np.floor(np.asarray(starts)[:, None] + steps).astype(np.int64)
        return BEYOND[self.beyond](chosen, count)


STARTS: dict[Starts, Callable[[Indices, int, float, int], NDArray[Any]]] = {
    "fit": lambda j, n, last, count: np.floor(last * j / (n - 1) + 0.5),
    "floor": lambda j, n, last, count: np.floor(last * j / (n - 1)),
    "slack": lambda j, n, last, count: last * j / n,
    "share": lambda j, n, last, count: count * j // n,
}


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


def training_clip(count: int, card: Card, generator: Generator, fps: float = 0.0) -> Indices:
    """One random clip (card.frames,) of a video of `count` frames, as the card says.

    fps: the video's rate, asked for where the card has a `rate` of its own.
    """
    if card.sampling == "segments":
        return segment_clip(count, card.frames, generator)
    return _dense(card).clip(count, generator, fps)


def test_views(count: int, card: Card, clips: int, fps: float = 0.0) -> Indices:  # noqa: PT028
    """The test clips (clips, card.frames) of a video of `count` frames, as the card says."""
    if card.sampling == "segments":
        return segment_views(count, card.frames, clips)
    return _dense(card).views(count, clips, fps)


def spacing(card: Card, fps: float = 0.0) -> float | None:
    """How many frames the frames of a clip are apart; None where that is up to the video."""
    return None if card.sampling == "segments" else _dense(card).spacing(fps)


def _dense(card: Card) -> Dense:
    return Dense(card.frames, card.stride, card.window, card.beyond, card.starts, card.rate)


def _draw(below: int, number: int, generator: Generator) -> Indices:
    drawn: Indices = torch.randint(below, (number,), generator=generator).numpy()
    return drawn


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")

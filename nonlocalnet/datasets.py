"""Labelled videos as training clips or test views; a file that cannot be read is a value.

A data set here opens the file, decodes, crops and closes, all for the item asked for: nothing is
shared between processes, and what an item is depends only on its key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from .card import Card
from .clips import test_views, training_clip
from .footage import Footage, open_sample
from .samples import Sample, present
from .transforms import test_crops, train_transform
from .video import VideoError

GAP_VIDEOS = 25  # opened to learn how far the frames of a clip are apart
DECODED_BYTES = 1 << 28  # whole frames of one video held at a time


@dataclass(frozen=True)
class Broken:
    """A file that could not be read, and why: to be told once, skipped and counted."""

    path: str
    reason: str


@dataclass(frozen=True)
class Views:
    """All test views of one video, clip after clip and within a clip crop after crop.

    clips: (V, 3, T, S, S) uint8. timestamps: (V, T) seconds, float64. sample: whose they are.
    frames: how many it has.
    """

    clips: Tensor
    timestamps: Tensor
    sample: Sample
    frames: int


class VideoDataset(Dataset[tuple[Tensor, int | Tensor] | Broken]):
    """(epoch, index) -> (clip (3, T, S, S) uint8, label), or `Broken`.

    The label is a number; of a sample with `actions`, (K,) float32 with 1 for each that is seen
    in the seconds of the clip, where the card names K classes.

    Which frames, which size and crop, mirrored or not: all drawn from a generator keyed by
    (seed, epoch, index). So an item is the same in any process, in any order, after any restart.
    """

    def __init__(self, samples: Sequence[Sample], card: Card, seed: int = 0) -> None:
        self.samples, self.card, self.seed = tuple(samples), card, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int | Tensor] | Broken:
        epoch, index = key
        sample = self.samples[index]
        generator = _keyed(self.seed, epoch, index)
        try:
            with open_sample(sample) as video:
                chosen = training_clip(len(video), self.card, generator, _fps(video, self.card))
                frames = video.frames(chosen)
                seconds = video.timestamps[chosen]
        except (VideoError, OSError) as error:
            return _broken(sample.path, error)
        clip = train_transform(frames, self.card, generator)
        if sample.label >= 0:
            return clip, sample.label
        here = seconds.min(), seconds.max()
        return clip, present(sample.actions, len(self.card.classes), *map(float, here))


class ViewDataset(Dataset[Views | Broken]):
    """index -> the `clips` x `crops` test views of a video as `Views`, or `Broken`.

    videos: samples, or paths of videos without a label.
    """

    def __init__(
        self, videos: Sequence[Sample] | Sequence[str], card: Card, clips: int, crops: int
    ) -> None:
        self.videos: tuple[Sample | str, ...] = tuple(videos)
        self.card, self.clips, self.crops = card, clips, crops

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Views | Broken:
        entry = self.videos[index]
        sample = Sample(entry, -1, "") if isinstance(entry, str) else entry
        try:
            with open_sample(sample) as video:
                chosen = test_views(len(video), self.card, self.clips, _fps(video, self.card))
                seconds = torch.from_numpy(video.timestamps[chosen])  # (clips, T)
                views = [
                    test_crops(frames, self.card, self.crops)  # (crops, 3, T, S, S)
                    for frames in _clips(video, chosen)
                ]
        except (VideoError, OSError) as error:
            return _broken(sample.path, error)
        times = seconds.repeat_interleave(len(views[0]), dim=0)
        return Views(torch.cat(views), times, sample, len(video))


def frame_gap(samples: Sequence[Sample], card: Card) -> float:
    """Seconds from one frame of a clip to the next, 0 where no video can tell.

    The median over videos, of which at most `GAP_VIDEOS` are opened, taken evenly from the list;
    no frame is decoded but where the card has a `rate`.
    """
    gaps = []
    for sample in samples[:: math.ceil(len(samples) / GAP_VIDEOS) or 1]:
        try:
            with open_sample(sample) as video:
                clip = test_views(len(video), card, 1, _fps(video, card))[0]
                steps = np.diff(video.timestamps[clip])
        except (VideoError, OSError):
            continue  # reading its clips will tell
        if (steps > 0).any():  # a frame repeated, or a video starting over, is no step in time
            gaps.append(np.median(steps[steps > 0]))
    return float(np.median(gaps)) if gaps else 0.0


def _fps(video: Footage, card: Card) -> float:
    return video.info.fps if card.rate else 0.0  # which takes the decoding of a frame


def _clips(video: Footage, chosen: NDArray[np.int64]) -> Iterator[Tensor]:
    """The clips (T, H, W, 3) of the frame numbers (clips, T).

    Clips overlap, so decoding them together is quicker; of a large picture each is decoded alone.
    """
    unique, place = np.unique(chosen, return_inverse=True)
    if len(unique) * video.info.height * video.info.width * 3 > DECODED_BYTES:
        yield from (video.frames(numbers) for numbers in chosen)
        return
    frames = video.frames(unique)
    yield from (frames[numbers] for numbers in torch.from_numpy(place.reshape(chosen.shape)))


def _keyed(*key: int) -> torch.Generator:
    """A generator for this key; keys that differ by one give unrelated draws."""
    words = np.random.SeedSequence([part % 2**64 for part in key]).generate_state(1)
    return torch.Generator().manual_seed(int(words[0]))


def _broken(path: str, error: VideoError | OSError) -> Broken:
    reason = error.reason if isinstance(error, VideoError) else error.strerror or str(error)
    return Broken(path, reason)

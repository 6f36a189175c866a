"""One video written anew for quick reading: smaller, with many key frames, without sound.

Frame i of the new file is frame i of the old one, shown at the same time and upright; so the same
clips are drawn from either.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from .footage import Footage, open_sample
from .samples import Sample
from .video import Video, VideoError
from .video_writing import write_pictures

FINE = Fraction(1, 90000)  # seconds: the time base where frames are not evenly spaced


@dataclass(frozen=True)
class Form:
    """What the new files are like.

    short_side: pixels, unless the video has fewer; it is never enlarged. gop: frames between key
    frames at most. crf: x264's quality, 0 (largest) to 51 (worst).
    """

    short_side: int = 256
    gop: int = 12
    crf: int = 23


@dataclass(frozen=True)
class Written:
    """A new file: its frames, its bytes, and the damage found in the old one."""

    frames: int
    bytes: int
    corrupt: int


def reencode(sample: Sample, target: Path, form: Form) -> Written:
    """The whole file of a sample, or its numbered pictures, as an mp4; it appears whole or not.

    Raises `VideoError` where it cannot be read, or written.
    """
    with open_sample(dataclasses.replace(sample, start=0.0, end=math.inf)) as footage:
        info = footage.info
        size = new_size(info.height, info.width, form.short_side)
        ticks, base = _times(footage)
        # faststart: the header first, so that one request finds it where the file is not local
        options = {"crf": str(form.crf), "preset": "medium"}
        small = (_shrunk(picture, size) for picture in _pictures(footage, sample.path))
        write_pictures(target, small, ticks, base, form.gop, options)
        return Written(len(footage), target.stat().st_size, footage.corrupt)


def new_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) with the short side at most as given, both even where they are not 1."""
    scale = min(1.0, short_side / min(height, width))
    rounded = (height, width) if scale == 1 else (round(height * scale), round(width * scale))
    return max(rounded[0] // 2 * 2, 1), max(rounded[1] // 2 * 2, 1)


def _times(footage: Footage) -> tuple[list[int], Fraction]:
    """The frames' times as whole numbers, and their unit in seconds."""
    if not footage.info.variable_rate:
        return list(range(len(footage))), 1 / Fraction(footage.info.fps).limit_denominator(1001)
    ticks = np.rint(footage.timestamps / float(FINE)).astype(np.int64)
    steps = np.arange(len(ticks))  # no two at the same time
    return (np.maximum.accumulate(ticks - steps) + steps).tolist(), FINE


def _pictures(footage: Footage, path: str) -> Iterator[NDArray[np.uint8]]:
    shape = (footage.info.height, footage.info.width, 3)
    one_by_one = (footage.frames([number])[0].numpy() for number in range(len(footage)))
    for picture in footage.pictures() if isinstance(footage, Video) else one_by_one:
        if picture.shape != shape:
            sizes = f"{shape[1]}x{shape[0]} to {picture.shape[1]}x{picture.shape[0]}"
            raise VideoError(path, f"the picture size changes from {sizes}")
        yield picture


def _shrunk(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) -> (*size, 3), bilinear and antialiased."""
    if picture.shape[:2] == size:
        return np.ascontiguousarray(picture)
    whole = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]  # (1, 3, H, W)
    small = functional.interpolate(
        whole, size=size, mode="bilinear", align_corners=False, antialias=True
    )
    return small[0].permute(1, 2, 0).contiguous().numpy()

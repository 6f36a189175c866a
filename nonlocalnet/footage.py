"""The frames that a sample stands for: of a video file, of a part of one, of numbered pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .remote import Remote
from .samples import Sample, is_address
from .video import Video, VideoError, VideoInfo

Indices = Sequence[int] | NDArray[np.int64]


class Footage(Protocol):
    """What `Video` is, whatever the frames come from; a context manager."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...
    def __len__(self) -> int: ...
    def frames(self, indices: Indices) -> Tensor: ...
    @property
    def timestamps(self) -> NDArray[np.float64]: ...
    @property
    def info(self) -> VideoInfo: ...
    @property
    def corrupt(self) -> int: ...


def open_sample(sample: Sample) -> Footage:
    """The frames of a sample, opened; closed by leaving its context.

    Raises `VideoError` for what cannot be read, or a part that holds no frame.
    """
    whole: Footage = (
        Pictures(sample.path, sample.pictures, sample.rate)
        if sample.pictures
        else Video(sample.path)
    )
    if sample.start <= 0 and sample.end == math.inf:
        return whole
    try:
        return Part(whole, sample.path, sample.start, sample.end)
    except BaseException:
        whole.__exit__(None, None, None)
        raise


class Part:
    """The frames of a video shown from `start` on and before `end`, in seconds of the file.

    `timestamps` stay those of the file. Raises `VideoError` if there are none.
    """

    def __init__(self, whole: Footage, path: str, start: float, end: float) -> None:
        self.whole = whole
        self.first, self.last = np.searchsorted(whole.timestamps, (start, end)).tolist()
        if self.first >= self.last:
            duration = whole.info.duration
            raise VideoError(
                path, f"it has no frame from {start:g} to {end:g} s; it lasts {duration:.1f} s"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.whole.__exit__(kind, error, trace)

    def __len__(self) -> int:
        return int(self.last - self.first)

    def frames(self, indices: Indices) -> Tensor:
        """As `Video.frames`, counted from the first frame of the part."""
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(
                f"frames {wanted.min()} to {wanted.max()} of 0 to {len(self) - 1} asked"
            )
        return self.whole.frames(wanted + self.first)

    @property
    def timestamps(self) -> NDArray[np.float64]:
        return self.whole.timestamps[self.first : self.last]

    @property
    def info(self) -> VideoInfo:
        return self.whole.info

    @property
    def corrupt(self) -> int:
        return self.whole.corrupt


class Pictures:
    """Numbered pictures as a video: frame i is number i + 1, or i if there is a 0.

    The data sets that TSM and MMAction2 read are extracted like this. Raises `VideoError` for a
    picture that is missing or no picture, and for sizes that change.
    """

    corrupt = 0

    def __init__(self, pattern: str, count: int, rate: float = 30.0) -> None:
        self.pattern, self.count, self.rate = pattern, count, rate
        # only the last part is a pattern: a folder may have braces in its name
        self.folder, slash, self.name = pattern.rpartition("/")
        self.folder += slash

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is left open."""

    def __len__(self) -> int:
        return self.count

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """(n,) seconds at the rate given, for the files hold none."""
        return np.arange(self.count, dtype=np.float64) / self.rate

    @cached_property
    def info(self) -> VideoInfo:
        height, width, _ = self._picture(0).shape
        return VideoInfo(
            frames=self.count,
            fps=self.rate,
            duration=self.count / self.rate,
            width=width,
            height=height,
            codec=self.pattern.rpartition(".")[2].lower(),
            container="pictures",
            rotation=0,
            variable_rate=False,
            video_streams=1,
            counted="",
        )

    def frames(self, indices: Indices) -> Tensor:
        """The frames with these numbers -> (n, H, W, 3) uint8 RGB; a number may come twice."""
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.count:
            raise IndexError(
                f"{self.pattern}: frames {wanted.min()} to {wanted.max()} of 0 to {self.count - 1}"
                " asked"
            )
        unique, place = np.unique(wanted, return_inverse=True)
        pictures = [self._picture(int(number)) for number in unique]
        sizes = list(dict.fromkeys(f"{p.shape[1]}x{p.shape[0]}" for p in pictures))
        if len(sizes) > 1:
            raise VideoError(self.pattern, f"the picture size changes from {' to '.join(sizes)}")
        if not pictures:
            return torch.empty((0, self.info.height, self.info.width, 3), dtype=torch.uint8)
        return torch.from_numpy(np.stack(pictures)[place])

    @cached_property
    def _first(self) -> int:
        return 0 if _there(self.folder + self.name.format(0)) else 1

    def _picture(self, number: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        path = self.folder + self.name.format(self._first + number)
        try:
            return read_picture(path)
        except FileNotFoundError:
            raise VideoError(
                path, f"there is no such picture, of {self.count} that are listed"
            ) from None


def read_picture(path: str) -> NDArray[np.uint8]:
    """A picture, here or at an address: (H, W, 3) RGB.

    Raises `FileNotFoundError`, and `VideoError` for what is no picture.
    """
    try:
        if is_address(path):
            with closing(Remote(path)) as file:
                image = Image.open(io.BytesIO(file.read(0, file.size)))
        else:
            image = Image.open(path)
        with image:
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise
    # Pillow tells of damage in several ways
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(path, "it cannot be read as a picture") from error


def _there(path: str) -> bool:
    if not is_address(path):
        return Path(path).exists()
    try:
        Remote(path).close()
    except VideoError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise
    return True

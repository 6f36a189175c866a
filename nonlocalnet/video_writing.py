"""Frames -> a video file, which appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import torch
from av.container import OutputContainer
from numpy.typing import NDArray
from torch import Tensor

from .packets import VideoError

WRITABLE = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}


def write_video(
    path: str | os.PathLike[str],
    frames: Tensor,
    fps: float = 30.0,
    *,
    gop: int = 12,
    crf: int = 18,
    qp: int | None = None,
    preset: str = "veryfast",
) -> None:
    """Write frames (T, H, W, 3) uint8 RGB as H.264; the file appears whole or not at all.

    gop: frames between key frames. crf: constant quality, 0 (largest) to 51 (worst); qp: the same
    scale as one quantiser for every frame, in place of crf. Even sizes are stored 4:2:0 as every
    player expects; an odd height or width is stored 4:4:4, because 4:2:0 has none. The same
    frames give the same bytes again.

    Raises `VideoError` when the file cannot be written (no such folder, full disk, unknown suffix),
    `ValueError` for frames of another shape or type.
    """
    path = Path(path)
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(
            f"frames: expected uint8 of shape (T, H, W, 3) with T >= 1, got {frames.dtype}"
            f" {tuple(frames.shape)}"
        )
    rate = Fraction(fps).limit_denominator(1001)
    quality = {"crf": str(crf)} if qp is None else {"qp": str(qp)}
    # with its macroblock tree on small pictures, x264 does not repeat itself
    options = {**quality, "preset": preset, "x264-params": "mbtree=0"}
    pictures = iter(frames.cpu().contiguous().numpy())
    write_pictures(path, pictures, range(len(frames)), 1 / rate, gop, options)


def write_pictures(
    path: Path,
    pictures: Iterator[NDArray[np.uint8]],
    ticks: Iterable[int],
    base: Fraction,
    gop: int,
    options: dict[str, str],
) -> None:
    """As `write_video`, one picture (H, W, 3) at a time, shown at `ticks` times `base` seconds.

    options: x264's, by FFmpeg's names. An error in `pictures` goes through, and leaves no file.
    """
    container = WRITABLE.get(path.suffix.lower())
    if container is None:
        raise VideoError(path, f"cannot write {path.suffix or 'no suffix'}; use .mp4, .mov or .mkv")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with av.open(str(temporary), "w", format=container) as out:
            _encode(out, pictures, ticks, base, gop, options)
        temporary.replace(path)
    except (OSError, av.FFmpegError) as error:
        raise VideoError(path, f"cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _encode(
    out: OutputContainer,
    pictures: Iterator[NDArray[np.uint8]],
    ticks: Iterable[int],
    base: Fraction,
    gop: int,
    options: dict[str, str],
) -> None:
    first = next(pictures)
    # on one thread, because with more x264 does not repeat itself
    stream = out.add_stream("libx264", rate=1 / base, options={**options, "threads": "1"})
    stream.height, stream.width, _ = first.shape
    stream.pix_fmt = "yuv444p" if stream.width % 2 or stream.height % 2 else "yuv420p"
    stream.gop_size = gop
    for tick, array in zip(ticks, chain([first], pictures), strict=True):
        frame = av.VideoFrame.from_ndarray(array, format="rgb24")
        frame.pts, frame.time_base = tick, base
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))

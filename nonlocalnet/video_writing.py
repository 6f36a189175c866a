"""Frames -> a video file, which appears whole or not at all."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import torch
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
    container = WRITABLE.get(path.suffix.lower())
    if container is None:
        raise VideoError(path, f"cannot write {path.suffix or 'no suffix'}; use .mp4, .mov or .mkv")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        quality = {"crf": str(crf)} if qp is None else {"qp": str(qp)}
        _encode(temporary, container, frames, fps, {**quality, "preset": preset}, gop)
        temporary.replace(path)
    except (OSError, av.FFmpegError) as error:
        raise VideoError(path, f"cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _encode(
    path: Path, container: str, frames: Tensor, fps: float, options: dict[str, str], gop: int
) -> None:
    _, height, width, _ = frames.shape
    rate = Fraction(fps).limit_denominator(1001)
    # With more threads, or with its macroblock tree on small pictures, x264 does not repeat itself.
    options = {**options, "threads": "1", "x264-params": "mbtree=0"}
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        stream.gop_size = gop
        for index, array in enumerate(frames.cpu().contiguous().numpy()):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

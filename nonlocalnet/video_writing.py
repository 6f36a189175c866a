"""Frames -> a video file, which appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream
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
    first = next(pictures)
    with PictureWriter(path, base, gop, options) as out:
        for tick, picture in zip(ticks, chain([first], pictures), strict=True):
            out.add(picture, tick)


def kind_of(path: Path) -> str:
    """FFmpeg's name of a container. Raises `VideoError` for what is not written here."""
    kind = WRITABLE.get(path.suffix.lower())
    if kind is None:
        raise VideoError(path, f"cannot write {path.suffix or 'no suffix'}; use .mp4, .mov or .mkv")
    return kind


class PictureWriter:
    """A video file that pictures are added to; a context manager.

    It appears under its name when `close` is called or the context is left well, else not at all.
    The picture shown first says the size. As `write_pictures` otherwise.

    rate: pictures per second, nominally, where `base` does not say it. sound: a stream whose
    packets will be handed to `add_sound`. muxing: FFmpeg's options of the
    container.

    Raises `VideoError`.
    """

    def __init__(
        self,
        path: Path,
        base: Fraction,
        gop: int,
        options: dict[str, str],
        *,
        rate: Fraction | None = None,
        sound: AudioStream | None = None,
        muxing: dict[str, str] | None = None,
    ) -> None:
        kind = kind_of(path)
        self.path, self._base, self._gop, self._options = path, base, gop, options
        self._rate, self._sound_like = rate or 1 / base, sound
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._stream: VideoStream | None = None
        self._sound: AudioStream | None = None
        with self._failing():
            self._out = av.open(str(self._temporary), "w", format=kind, options=muxing or {})

    def __enter__(self) -> PictureWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.drop()

    def add(self, picture: NDArray[np.uint8], tick: int) -> None:
        """One more picture (H, W, 3) RGB, shown at `tick` times `base` seconds."""
        with self._failing():
            stream = self._stream = self._stream or self._begin(*picture.shape[:2])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = tick, self._base
            self._out.mux(stream.encode(frame))

    def add_sound(self, packet: Packet[AudioStream]) -> None:
        """One more packet of sound, with its times in the file; after the first picture."""
        assert self._sound is not None
        with self._failing():
            packet.stream = self._sound
            self._out.mux(packet)

    def close(self) -> None:
        """The file is whole."""
        with self._failing():
            if self._stream is not None:
                self._out.mux(self._stream.encode(None))
            self._out.close()
            self._temporary.replace(self.path)

    def drop(self) -> None:
        """There is no file."""
        with suppress(OSError, av.FFmpegError):
            self._out.close()
        self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            self.drop()
            reason = f"cannot be written: {error.strerror or error}"
            raise VideoError(self.path, reason) from error

    def _begin(self, height: int, width: int) -> VideoStream:
        # on one thread, because with more x264 does not repeat itself
        options = {**self._options, "threads": "1"}
        stream = self._out.add_stream("libx264", rate=self._rate, options=options)
        stream.codec_context.time_base = self._base
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        stream.gop_size = self._gop
        if self._sound_like is not None:
            self._sound = self._out.add_stream_from_template(self._sound_like)
        return stream

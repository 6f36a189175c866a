"""Video files: path -> chosen frames and their times, and frames -> path.

Reading is exact: frame i of `Video` is the i-th picture of a decode of the file from its first
byte to its last. An index made by scanning the packets says which key frame to seek to, the
decoder runs forward from there, every picture on the way is checked against the index by its
time stamp, and only the wanted ones become RGB. Where the packets do not tell what the decoder
will show, the pictures are counted instead: the whole file is decoded once.
"""

from __future__ import annotations

import math
import os
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from fractions import Fraction
from functools import cached_property
from itertools import pairwise, repeat
from types import TracebackType

import av
import numpy as np
import torch
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from .opening import VideoFile
from .opening import VideoInfo as VideoInfo
from .packets import VideoError as VideoError
from .packets import (
    h264_prefix,
    keeps_time,
    nominal_rate,
    packets,
    unreferenced,
)
from .upright import display_matrix, upright
from .video_writing import write_video as write_video

KEEP_BYTES = 128 * 2**20  # decoded pictures kept from counting, so that short files decode once
SKIP_PACKETS = 8  # a seek costs about as much as decoding this many packets


class SeekError(Exception):
    """The pictures after a seek are not those of the index."""


class Video:
    """An open video file; a context manager.

    `len(video)` is the number of frames. `video.corrupt` counts the damage found so far: pictures
    that the decoder flags, and packets that it cannot decode at all. Of several video streams the
    one that FFmpeg calls the best is read; non-square pixels stay as stored. (Damage that the
    decoder patches up without saying so cannot be seen from here; such a picture may depend on
    where decoding started.)

    Raises `VideoError` with one sentence that names the file and the reason.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._damaged: set[tuple[str, int]] = set()
        self._kept: list[VideoFrame] = []
        self._rgb = VideoReformatter()
        self._closing = ExitStack()
        try:
            self._file = self._closing.enter_context(closing(VideoFile(self.path)))
            self._container, self._stream = self._file.open()
            self._closing.enter_context(self._container)
            self._prefix = h264_prefix(self._stream)
            self._index = self._file.scan(self._container, self._stream)
            self._seekable = not self._index.doubt
            self._tick = self._stream.time_base or Fraction(1)  # seconds
            self._ticks = self._index.pts.tolist() if self._seekable else self._count()
            if not self._ticks:
                raise VideoError(self.path, "no frame can be decoded")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be decoded afterwards."""
        self._kept = []
        self._closing.close()

    def __len__(self) -> int:
        return len(self._ticks)

    @property
    def corrupt(self) -> int:
        return len(self._damaged)

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """Times of the frames (n,) in seconds, the first at 0, strictly increasing."""
        ticks = np.array(self._ticks, dtype=np.int64)
        return np.asarray((ticks - ticks[0]) * float(self._tick), dtype=np.float64)

    @cached_property
    def info(self) -> VideoInfo:
        """Sizes, rate and the like; decodes the first frame for it."""
        first = next(self._pictures(np.zeros(1, np.int64)))[1]
        height, width, _ = self._upright(first).shape
        a, b, _, _ = display_matrix(first)
        times = self.timestamps
        gaps = np.diff(times)
        claimed, tick = float(nominal_rate(self._stream)), float(self._tick)
        gap = float(np.median(gaps)) if len(gaps) else 1 / claimed
        # rounding to the time base moves a time by less than one tick
        uneven = np.abs(gaps - gap) > 0.1 * gap + tick
        as_claimed = abs(times[-1] - len(gaps) / claimed) <= 2 * tick
        return VideoInfo(
            frames=len(self),
            fps=claimed if as_claimed else len(gaps) / float(times[-1]),
            duration=float(times[-1]) + gap,
            width=width,
            height=height,
            codec=self._stream.codec_context.codec.canonical_name,
            container=self._container.format.name,
            rotation=round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360,
            variable_rate=bool(uneven.any()),
            video_streams=len(self._container.streams.video),
            counted=self._index.doubt,
        )

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """The frames with these numbers, in the order asked -> (n, H, W, 3) uint8 RGB, upright.

        A number may come more than once. Where a damaged file has no picture for a time that it
        lists, the nearest earlier picture stands in; `corrupt` counts the damage.

        Raises `IndexError` for numbers outside 0 ... len - 1, `VideoError` when nothing can be
        decoded or when the picture size changes between the frames asked for.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if not len(wanted):
            return torch.empty((0, self.info.height, self.info.width, 3), dtype=torch.uint8)
        low, high = int(wanted.min()), int(wanted.max())
        if low < 0 or high >= len(self):
            raise IndexError(f"{self.path}: frames {low} to {high} of 0 to {len(self) - 1} asked")
        out: NDArray[np.uint8] | None = None
        for number, frame in self._pictures(np.unique(wanted)):
            picture = self._upright(frame)
            if out is None:
                out = np.empty((len(wanted), *picture.shape), np.uint8)
            if picture.shape != out.shape[1:]:
                sizes = " to ".join(f"{s[1]}x{s[0]}" for s in (out.shape[1:], picture.shape))
                raise VideoError(self.path, f"the picture size changes from {sizes}")
            out[wanted == number] = picture
            if frame.is_corrupt:
                self._damaged.add(("frame", number))
        return torch.from_numpy(out)

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """All frames in order, each (H, W, 3) uint8 RGB, upright; one in memory at a time.

        As `frames` gives them, but their size may change. Raises `VideoError`.
        """
        due, last = 0, None
        for number, frame in self._pictures(np.arange(len(self))):
            if number < due:
                break  # what stands in for pictures that are not there; they have been given
            picture = self._upright(frame)
            if frame.is_corrupt:
                self._damaged.add(("frame", number))
            yield from repeat(picture if last is None else last, number - due)
            yield picture
            due, last = number + 1, picture
        if last is not None:
            yield from repeat(last, len(self) - due)

    def _pictures(self, wanted: NDArray[np.int64]) -> Iterator[tuple[int, VideoFrame]]:
        """(number, picture) for each of the ascending numbers."""
        if self._kept:
            yield from ((int(number), self._kept[number]) for number in wanted)
            return
        done = 0
        if self._seekable:
            try:
                for number, frame in self._by_seeking(wanted):
                    yield number, frame
                    done += 1
                return
            except (SeekError, av.FFmpegError):
                self._seekable = False
        yield from self._in_sequence(wanted[done:].tolist())

    def _by_seeking(self, wanted: NDArray[np.int64]) -> Iterator[tuple[int, VideoFrame]]:
        """As `_pictures`, decoding from key frames only; raises `SeekError` on any doubt."""
        index = self._index
        # The last key frame shown no later than the picture. One that is shown before a key frame
        # but stored after it (open GOP) may lean on what came before that key frame.
        keys = np.searchsorted(index.key_pts, index.pts[wanted], side="right") - 1
        skipped = index.key_packet[keys[1:]] - index.packet[wanted[:-1]]
        starts = np.flatnonzero(skipped > SKIP_PACKETS) + 1
        runs = np.split(wanted, starts)
        for key, run in zip(keys[np.r_[0, starts]], runs, strict=True):
            yield from self._forward(int(index.key_pts[key]), run.tolist())

    def _forward(self, key: int, pending: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Seek to the key frame shown at `key`, decode until nothing is pending."""
        due = int(np.searchsorted(self._index.pts, key))
        given: set[int] = set()  # times of the pictures that the decoder was given so far
        self._container.seek(key, stream=self._stream)
        needed = self._needed({self._ticks[number] for number in pending}, given)
        for frame in self._decode(self._stream, needed, strict=True):
            if frame.pts is not None and frame.pts < key:
                continue
            while due < len(self) and self._ticks[due] not in given:
                due += 1
            if due == len(self) or frame.pts != self._ticks[due] or frame.is_corrupt:
                break
            if frame.pts == key and not frame.key_frame:
                break
            if due == pending[0]:
                yield pending.pop(0), frame
            if not pending:
                return
            due += 1
        raise SeekError

    def _needed(self, wanted: set[int], given: set[int]) -> Iterator[Packet[VideoStream] | None]:
        """The packets from here to the last that is shown at a wanted time, then the flush.

        A picture that no other is predicted from is left out unless it is wanted itself. The times
        of all others are added to `given`.
        """
        for packet in packets(self._container, self._stream, self._file.size):
            if packet is not None and packet.pts is not None:
                if packet.pts not in wanted and unreferenced(packet, self._prefix):
                    continue
                wanted.discard(packet.pts)
                given.add(packet.pts)
            yield packet
            if not wanted:
                break
        yield None

    def _in_sequence(self, wanted: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """As `_pictures` in any order, decoding the file from its first byte."""
        by_time = not self._index.doubt
        places: Sequence[int] = self._ticks if by_time else range(len(self))
        due = {places[number]: [number] for number in wanted}
        for _ in range(2):
            seen = []
            container, stream = self._file.open()
            with container:
                whole = packets(container, stream, self._file.size)
                for count, frame in enumerate(self._decode(stream, whole)):
                    here = frame.pts if by_time else count
                    if here is None:
                        continue
                    seen.append(here)
                    for number in due.pop(here, ()):
                        yield number, frame
                    if not due:
                        return
            if not seen:
                break
            # what the decoder could not give is stood in for, in a second pass
            seen.sort()
            missing, due = due, {}
            for place, numbers in missing.items():
                earlier = max(bisect(seen, place) - 1, 0)
                due.setdefault(seen[earlier], []).extend(numbers)
        raise VideoError(self.path, "no frame can be decoded")

    def _count(self) -> list[int]:
        """Decode everything once: the time of each picture, in units of `_tick`."""
        times: list[int | None] = []
        room = KEEP_BYTES
        container, stream = self._file.open()
        with container:
            whole = packets(container, stream, self._file.size)
            for number, frame in enumerate(self._decode(stream, whole)):
                times.append(frame.pts)
                if frame.is_corrupt:
                    self._damaged.add(("frame", number))
                room -= sum(plane.buffer_size for plane in frame.planes)
                if room >= 0:
                    self._kept.append(frame)
                else:
                    self._kept = []
            known = [time for time in times if time is not None]
            rising = all(a < b for a, b in pairwise(known))
            if rising and len(known) == len(times) and keeps_time(container):
                return known
            self._tick = 1 / nominal_rate(stream)
            return list(range(len(times)))

    def _decode(
        self,
        stream: VideoStream,
        given: Iterable[Packet[VideoStream] | None],
        strict: bool = False,
    ) -> Iterator[VideoFrame]:
        """The pictures of these packets; those that fail are noted and passed over.

        strict: raise `SeekError` instead.
        """
        for number, packet in enumerate(given):
            if packet is None and not strict:
                self._damaged.add(("packet", number))
            try:
                pictures = stream.decode(packet)
            except av.FFmpegError:
                if strict:
                    raise SeekError from None
                self._damaged.add(("packet", number))
                continue
            yield from pictures

    def _upright(self, frame: VideoFrame) -> NDArray[np.uint8]:
        try:
            return upright(frame, self._rgb)
        except av.FFmpegError as error:
            raise VideoError(self.path, f"a picture has no RGB form ({error.strerror})") from error

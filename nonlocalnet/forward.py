"""A container read once from its first picture to its last, in memory that does not grow.

`Video` knows a file's frames before it decodes one, by an index of all packets. What has no end, or
cannot be read twice, has no index: pictures come in order with the times they carry.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from .packets import VideoError, flushes, keeps_time, nominal_rate, packets
from .upright import upright

JUMP = 2.0  # seconds: times that go back by more, or run away from the clock, start a new count
FASTEST = 240.0  # frames per second; containers that claim more count something else
UNBOUNDED = 2**62  # bytes
PAUSE = 0.5  # seconds between two attempts to connect again

Open = Callable[[], tuple[InputContainer, VideoStream]]


@dataclass(frozen=True)
class Shown:
    """A picture that is not converted yet.

    seconds: since the first picture, strictly increasing. rgb: makes it (H, W, 3), upright.
    cut: why it does not follow the picture before; empty where it does.
    """

    seconds: float
    rgb: Callable[[], NDArray[np.uint8]]
    cut: str = ""


class Clock:
    """Time stamps of a container -> seconds since the first picture, strictly increasing.

    gap: seconds between pictures, where a time stamp is missing or makes no sense. live: pictures
    come as time passes, so that a time lost is the time that has passed.
    """

    def __init__(self, gap: float, live: bool) -> None:
        self.gap, self.live = gap, live
        self.seconds = -gap
        self._origin: tuple[int, float] | None = None  # a time stamp, and the seconds it stands for
        self._heard = time.monotonic()

    def read(self, stamp: int | None, tick: float, cut: str = "") -> tuple[float, str]:
        """The time of the next picture, and why it does not follow the one before, if so.

        stamp: in units of `tick` seconds. cut: where that is known already.
        """
        heard, self._heard = self._heard, time.monotonic()
        passed = max(self._heard - heard, self.gap) if self.live else self.gap
        following = self.seconds + self.gap
        if stamp is None:
            self.seconds = following
            return following, cut
        if self._origin is None:
            self._origin = stamp, following
        here = self._origin[1] + (stamp - self._origin[0]) * tick
        step = here - self.seconds
        if not cut and (step < -JUMP or (self.live and step > passed + JUMP)):
            cut = f"its time stamps jump by {step:+.1f} s"
        if cut:
            here = self.seconds + passed
            self._origin = stamp, here
        self.seconds = here if here > self.seconds else following
        return self.seconds, cut


class Forward:
    """The pictures of a container; iterate once, then `close`.

    fps: nominal frames per second, None where unknown. seconds: how long it lasts, None likewise.
    damaged: pictures that the decoder flags and packets that it cannot decode, so far.

    live: comes as time passes; None, if it has no length. endless: has no end, so that where it
    ends the connection is lost; it is opened again, for `patience` seconds, and `say` tells of it.

    Raises `VideoError` as `open` does, and where nothing can be decoded.
    """

    def __init__(
        self,
        name: str,
        open: Open,
        size: int = UNBOUNDED,
        *,
        live: bool | None = False,
        endless: bool = False,
        patience: float = 0.0,
        say: Callable[[str], None] = lambda _: None,
        release: Callable[[], None] = lambda: None,
        nothing: str = "no frame can be decoded",
    ) -> None:
        self.name, self.damaged = name, 0
        self._release, self._nothing = release, nothing
        self._open, self._size, self._patience, self._say = open, size, patience, say
        self._container, self._stream = open()
        self._rgb = VideoReformatter()
        claimed = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(claimed) if claimed and 0 < claimed <= FASTEST else None
        length = self._container.duration  # microseconds
        known = length is not None and length > 0
        self.live = not known if live is None else live
        self.seconds = length / 1e6 if length and known and not self.live else None
        self.frames = None if self.live else self._stream.frames or self._estimate()
        # the way of cameras to send single pictures: its end is that of the connection
        self._endless = endless or self._container.format.name == "mpjpeg"

    def _estimate(self) -> int | None:
        return round(self.seconds * self.fps) if self.seconds and self.fps else None

    def close(self) -> None:
        """Nothing can be decoded afterwards."""
        self._container.close()
        self._release()

    def __iter__(self) -> Iterator[Shown]:
        clock = Clock(1 / (self.fps or float(nominal_rate(self._stream))), self.live)
        cut, came = "", None
        while True:
            for stamp, tick, frame in self._stamped():
                seconds, cut = clock.read(stamp, tick, cut)
                yield Shown(seconds, partial(self._convert, frame), cut)
                cut, came = "", time.monotonic()
            if not self._endless or came is None or not self._again(came + self._patience):
                break
            cut = f"connected again after {time.monotonic() - came:.1f} s"
        if came is None:
            raise VideoError(self.name, self._nothing)

    def _stamped(self) -> Iterator[tuple[int | None, float, VideoFrame]]:
        """Each picture with its time stamp and the seconds that a tick of it lasts."""
        tick = float(self._stream.time_base or 1)
        timed = keeps_time(self._container)
        rate = float(nominal_rate(self._stream))
        for number, frame in enumerate(self._decoded()):
            self.damaged += frame.is_corrupt
            yield (frame.pts, tick, frame) if timed else (number, 1 / rate, frame)

    def _decoded(self) -> Iterator[VideoFrame]:
        for packet in packets(self._container, self._stream, self._size):
            self.damaged += packet is None and not self.live
            yield from self._pictures(packet)

    def _pictures(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            return list(self._stream.decode(packet))
        except av.FFmpegError:
            self.damaged += packet is not None and not flushes(packet)
            return []

    def _again(self, end: float) -> bool:
        """Open it anew, trying until the clock shows `end`; whether that went well."""
        self._say(f"{self.name}: nothing comes any more; trying again for {self._patience:g} s")
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        reason = "it gives no more frames"
        while time.monotonic() < end:
            time.sleep(PAUSE)
            try:
                self._container, self._stream = self._open()
                return True
            except VideoError as error:
                reason = error.reason
        self._say(f"{self.name}: {reason}; this is taken for its end")
        return False

    def _convert(self, frame: VideoFrame) -> NDArray[np.uint8]:
        try:
            picture: Any = upright(frame, self._rgb)
        except av.FFmpegError as error:
            raise VideoError(self.name, f"a picture has no RGB form ({error.strerror})") from error
        return np.ascontiguousarray(picture)

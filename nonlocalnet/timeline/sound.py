"""The sound of a file, packet by packet, as it is, beside pictures that are written anew."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

COPIED = ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac")  # what an .mp4 holds


class Sound:
    """The first audio stream of a file, to be copied; its time 0 is the first picture's."""

    def __init__(self, container: InputContainer) -> None:
        self._container, self.stream = container, container.streams.audio[0]
        video = container.streams.best("video")  # as it is read
        start, unit = (video.start_time, video.time_base) if video else (None, None)
        self._zero = (start or 0) * (unit or Fraction(0))
        self._next: Packet[AudioStream] | None = None
        self._packets = container.demux(self.stream)

    @staticmethod
    def of(path: Path) -> Sound | None:
        """None for a file without sound, or with one that cannot be copied."""
        try:
            container = av.open(str(path))
        except (OSError, av.FFmpegError):
            return None
        streams = container.streams
        if streams.video and streams.audio and streams.audio[0].codec_context.name in COPIED:
            return Sound(container)
        container.close()
        return None

    def until(self, seconds: float) -> Iterator[Packet[AudioStream]]:
        """The packets up to a time, each once, with times that count from the first picture."""
        while (packet := self._following()) is not None and self._time(packet) <= seconds:
            self._next = None
            if packet.pts is None or packet.time_base is None:
                continue
            shifted = packet.pts - round(self._zero / packet.time_base)
            if shifted >= 0:
                packet.pts = packet.dts = shifted
                yield packet

    def close(self) -> None:
        self._container.close()

    def _following(self) -> Packet[AudioStream] | None:
        if self._next is None:
            try:
                self._next = next(self._packets, None)
            except av.FFmpegError:  # damaged: the sound ends here
                return None
        if self._next is None or self._next.dts is None:  # the end, or a packet without a time
            return None
        return self._next

    def _time(self, packet: Packet[AudioStream]) -> Fraction:
        return (packet.dts or 0) * (packet.time_base or Fraction(0)) - self._zero

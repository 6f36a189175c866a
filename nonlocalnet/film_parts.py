"""A film that is written in parts: what is done outlasts the process, and another one goes on."""

from __future__ import annotations

import json
import math
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from .files import replacing, write_text
from .packets import VideoError
from .timeline.annotate import TICK
from .timeline.sound import Sound
from .video_writing import PictureWriter, kind_of

# no pictures that look ahead: packets of parts then follow each other as they are
OPTIONS = {"crf": "16", "preset": "veryfast", "bf": "0"}
STAMP = "made_from.json"


class FilmParts:
    """Pictures on their way to a video file, kept in a hidden folder beside it until it is whole.

    stamp: what they are made from, as JSON has it; parts of anything else are thrown away. rate:
    pictures per second, nominally. length: pictures of a part, which begins with a key frame.
    """

    def __init__(self, path: Path, stamp: Any, rate: Fraction, length: int) -> None:
        self.path, self._rate, self._length, self._kind = path, rate, length, kind_of(path)
        self.folder = path.with_name(f".{path.name}.parts")
        self._writer: PictureWriter | None = None
        if _read(self.folder / STAMP) != stamp:
            self.remove()
            write_text(self.folder / STAMP, json.dumps(stamp))
        self._parts = _parts(self.folder)
        self._first = self._in_this = 0

    @property
    def frames(self) -> int:
        """Pictures of whole parts."""
        return sum(frames for _, frames, _ in self._parts)

    def add(self, picture: NDArray[np.uint8], tick: int) -> None:
        """One more picture (H, W, 3), shown at `tick` times TICK seconds."""
        if self._writer is None:
            place = self.folder / f"unfinished.{os.getpid()}.mp4"
            self._writer = PictureWriter(place, TICK, self._length, OPTIONS, rate=self._rate)
            self._first, self._in_this = tick, 0
        self._writer.add(picture, tick - self._first)
        self._in_this += 1
        if self._in_this == self._length:
            self._end_part()

    def _end_part(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
            name = f"{len(self._parts):06}-{self._in_this}-{self._first}.mp4"
            part = writer.path.rename(self.folder / name)
            self._parts.append((self._first, self._in_this, part))

    def join(self, sound: Sound | None) -> None:
        """The file is whole, with a sound if there is one; the parts are gone.

        Raises `UserError`.
        """
        self._end_part()
        # the header first, so that one request finds it where the file is not local
        muxing = {} if self._kind == "matroska" else {"movflags": "faststart"}
        try:
            with (
                replacing(self.path) as unfinished,
                av.open(str(unfinished), "w", format=self._kind, options=muxing) as out,
            ):
                self._copy(out, sound)
        except av.FFmpegError as error:
            raise VideoError(self.path, f"cannot be written: {error.strerror or error}") from error
        self.remove()

    def _copy(self, out: OutputContainer, sound: Sound | None) -> None:
        stream: VideoStream | None = None
        audio: AudioStream | None = None
        for first, _, part in self._parts:
            with av.open(str(part)) as given:
                source = given.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(source)
                    if sound is not None:
                        audio = out.add_stream_from_template(sound.stream)
                for packet in given.demux(source):
                    if packet.pts is None or packet.time_base is None:
                        continue
                    tick = first + round(packet.pts * packet.time_base / TICK)
                    packet.pts = packet.dts = tick
                    packet.time_base, packet.stream = TICK, stream
                    out.mux(packet)
                    _copy_sound(out, sound, audio, float(tick * TICK))
        _copy_sound(out, sound, audio, math.inf)

    def stop(self) -> None:
        """What is not whole is thrown away; the next one goes on after the last whole part."""
        if self._writer is not None:
            self._writer.drop()
            self._writer = None
        if not self._parts:
            self.remove()

    def remove(self) -> None:
        """There are no parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _copy_sound(
    out: OutputContainer, sound: Sound | None, stream: AudioStream | None, seconds: float
) -> None:
    if sound is not None and stream is not None:
        for packet in sound.until(seconds):
            packet.stream = stream
            out.mux(packet)


def _read(path: Path) -> Any:
    """What a file of JSON holds; None if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _parts(folder: Path) -> list[tuple[int, int, Path]]:
    """(tick of the first picture, pictures, file) of each whole part, in order."""
    found = sorted(folder.glob("[0-9]*-*-*.mp4"))
    numbers = ([int(n) for n in path.stem.split("-")] for path in found)
    return [(tick, frames, path) for (_, frames, tick), path in zip(numbers, found, strict=True)]

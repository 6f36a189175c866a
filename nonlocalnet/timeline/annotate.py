"""The video with what is told about it: a band below each picture."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..smoothing import NONE
from ..video_writing import PictureWriter
from .band import RECENT, Band, Recent
from .segments import Segment
from .sound import Sound
from .telling import Telling, Told

TICK = Fraction(1, 90000)  # seconds: fine enough for any rate
GOP_SECONDS = 2
NARROWEST = 320  # pixels; smaller pictures are enlarged by whole numbers, to make room for words
# in fragments, so that memory does not grow with time and a killed process leaves a playable file
MUXING = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "flush_packets": "1"}


class Annotated:
    """An .mp4 with each picture of the feed, and below it what was told when it came.

    The label is that of the newest moment, as one watching live would see it: late by half a window
    and by the smoothing, unlike segments, whose times are put right.

    rate: of the feed, pictures per second, nominally. sound: a file whose sound goes along.
    """

    def __init__(self, path: Path, telling: Telling, rate: float, sound: Path | None) -> None:
        self._classes = telling.classes
        self._sound = None if sound is None else Sound.of(sound)
        self._writer = PictureWriter(
            path,
            TICK,
            round(GOP_SECONDS * rate),
            {"crf": "20", "preset": "veryfast"},
            rate=Fraction(rate).limit_denominator(1001),
            sound=None if self._sound is None else self._sound.stream,
            muxing=MUXING,
        )
        self._size: tuple[int, int] | None = None
        self._band: Band | None = None
        self._tick = -1
        self._told: Told | None = None
        self._recent: deque[Recent] = deque()

    def see(self, picture: NDArray[np.uint8], seconds: float) -> None:
        """A picture (H, W, 3) of the feed, before what is told of it."""
        height, width, _ = picture.shape
        if self._size is None or self._band is None:
            self._size = height, width
            self._band = Band(max(1, -(-NARROWEST // width)) * width)
        if self._size != (height, width):
            image = Image.fromarray(picture).resize(self._size[::-1])
            picture = np.asarray(image)
        times = self._band.width // self._size[1]
        if times > 1:
            picture = picture.repeat(times, 0).repeat(times, 1)
        below = self._band.draw(seconds, *self._words(), self._recent)
        whole = np.concatenate((picture, below))
        self._tick = max(self._tick + 1, round(seconds / TICK))
        self._writer.add(whole[: len(whole) // 2 * 2], self._tick)
        if self._sound is not None:
            for packet in self._sound.until(seconds):
                self._writer.add_sound(packet)

    def told(self, told: Told) -> None:
        """What is told from now on."""
        self._told = told
        recent, now = self._recent, told.moment.seconds
        if told.moment.fresh or not recent:
            recent.append(Recent(told.moment.start, now, told.best))
        elif recent[-1].label == told.best:
            recent[-1] = recent[-1]._replace(end=now)
        else:
            recent.append(Recent(recent[-1].end, now, told.best))
        while recent[0].end < now - RECENT:
            recent.popleft()

    def segment(self, segment: Segment) -> None:
        pass

    def close(self, facts: Mapping[str, Any]) -> None:
        if self._told is None:
            self._writer.drop()
        else:
            self._writer.close()
        if self._sound is not None:
            self._sound.close()

    def _words(self) -> tuple[str, float | None, int]:
        """What stands in the band: the name, its score, the class."""
        told = self._told
        if told is None:
            return "", None, NONE
        names = [self._classes[label] for label in told.labels]
        return ", ".join(names) or "none of these", told.score, told.best

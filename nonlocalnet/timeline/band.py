"""The band below a picture: what is told, how surely, when, and what was told before it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..palette import colour_of
from ..smoothing import NONE
from .writers import clock

RECENT = 60.0  # seconds of the strip
GROUND, INK, FAINT, EMPTY = (24, 24, 24), (245, 245, 245), (170, 170, 170), (60, 60, 60)


class Recent(NamedTuple):
    """A stretch of what was told."""

    start: float
    end: float
    label: int


class Band:
    """Draws the band for pictures of one width, in light letters on dark.

    It is drawn anew where something in it changed, at most ten times a second of the feed.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.unit = max(8, min(width // 40, 24))  # pixels; what everything is measured in
        self.height = 6 * self.unit // 2 * 2
        self._drawn: tuple[object, NDArray[np.uint8]] | None = None

    def draw(
        self, seconds: float, name: str, score: float | None, label: int, recent: Iterable[Recent]
    ) -> NDArray[np.uint8]:
        """(height, width, 3). score: None where nothing is told yet."""
        key = int(10 * seconds), name, score
        if self._drawn is None or self._drawn[0] != key:
            image = Image.new("RGB", (self.width, self.height), GROUND)
            self._words(ImageDraw.Draw(image), seconds, name, score, label)
            self._strip(ImageDraw.Draw(image), seconds, recent)
            self._drawn = key, np.asarray(image)
        return self._drawn[1]

    def _words(
        self, pen: ImageDraw.ImageDraw, seconds: float, name: str, score: float | None, label: int
    ) -> None:
        u, font = self.unit, _font(int(1.5 * self.unit))
        small = _font(int(1.1 * u))
        right = self.width - u // 2
        now = clock(seconds, 1)
        pen.text((right, int(1.6 * u)), now, FAINT, small, anchor="rs")
        room = right - pen.textlength("0:00:00.0 100 %", small) - 2 * u
        pen.text((u // 2, int(1.8 * u)), _fitting(pen, name, font, room), INK, font, anchor="ls")
        top, bottom = int(2.4 * u), int(3.2 * u)
        pen.rectangle((u // 2, top, right, bottom), EMPTY)
        if score is not None:
            end = u // 2 + score * (right - u // 2)
            pen.rectangle((u // 2, top, max(end, u // 2 + 1), bottom), colour_of(label))
            left = right - pen.textlength(now, small) - u
            pen.text((left, int(1.6 * u)), f"{100 * score:.0f} %", INK, small, anchor="rs")

    def _strip(self, pen: ImageDraw.ImageDraw, seconds: float, recent: Iterable[Recent]) -> None:
        """What was told in the last minute, its newest at the right."""
        u, left = self.unit, self.unit // 2
        right, top, bottom = self.width - left, int(3.8 * u), int(5.4 * u)
        pen.rectangle((left, top, right, bottom), EMPTY)
        scale = (right - left) / RECENT
        for stretch in recent:
            start = max(right - (seconds - stretch.start) * scale, left)
            end = min(right - (seconds - stretch.end) * scale, right)
            if end > start and stretch.label != NONE:
                pen.rectangle((start, top, end, bottom), colour_of(stretch.label))
        for back in range(10, int(RECENT), 10):
            x = right - back * scale
            pen.line((x, bottom + 1, x, bottom + u // 4), FAINT)


def _fitting(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text, or as much of it as there is room for."""
    if pen.textlength(text, font) <= room:
        return text
    while text and pen.textlength(text + "…", font) > room:
        text = text[:-1]
    return text + "…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """A font with the letters of many languages where there is one, else Pillow's own, of ASCII."""
    spec = find_spec("matplotlib")  # which brings one; it is not imported
    folder = Path(spec.origin).parent / "mpl-data/fonts/ttf" if spec and spec.origin else Path()
    for name in (folder / "DejaVuSans.ttf", "DejaVuSans.ttf", "Arial.ttf"):
        try:
            return ImageFont.truetype(str(name), size)
        except OSError:
            continue
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font

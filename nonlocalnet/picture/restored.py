"""Before and after: an image with its noise, without it, and the noise that was taken away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ink
from .ink import FAINT, MARGIN, SMALL, TEXT, TITLE, Pixels
from .strip import GAP, LABEL, LINE

SIDE = 3.6  # inches: the largest width and height of a panel
SPAN = 4.0  # the noise is shown from -SPAN sigma, black, to SPAN sigma, white


def draw_restored(
    title: str, panels: Sequence[tuple[str, Pixels]], words: Sequence[str] = ()
) -> bytes:
    """A picture as PNG bytes: a title, words below it, and named panels of one size in a row.

    panels: (H, W) or (H, W, 3) uint8.
    """
    height, width = panels[0][1].shape[:2]
    across = min(SIDE, SIDE * width / height)
    down = across * height / width
    wide = max(ink_width(title), 2 * MARGIN + len(panels) * (across + GAP) - GAP)
    lines = ink.lines(words, wide - 2 * MARGIN, TEXT)
    figure = ink.blank(wide, 2 * MARGIN + LINE * (1.35 + len(lines) + 0.5) + LABEL + down)
    top = float(figure.get_figheight()) - MARGIN
    ink.text(figure, MARGIN, top, title, TITLE, va="top", weight="bold")
    top -= 1.35 * LINE
    for line in lines:
        ink.text(figure, MARGIN, top, line, TEXT, va="top")
        top -= LINE
    top -= 0.5 * LINE + LABEL + down
    for i, (name, pixels) in enumerate(panels):
        left = MARGIN + i * (across + GAP)
        part = ink.axes(figure, left, top, across, down)
        ink.image(part, _coloured(pixels), across)
        ink.text(figure, left, top + down + 0.06, name, SMALL, color=FAINT)
    return ink.png(figure)


def ink_width(title: str) -> float:
    """Room for a title on one line, in inches."""
    return 2 * MARGIN + len(title) * 0.68 * TITLE / 72


def method_noise(before: NDArray[Any], after: NDArray[Any], sigma: float) -> Pixels:
    """before - after as an image around grey, uint8; white is SPAN sigma above it."""
    difference = before.astype(np.float64) - after.astype(np.float64)
    scaled = 127.5 + 127.5 * difference / (SPAN * max(sigma, 1e-12))
    return scaled.round().clip(0, 255).astype(np.uint8)


def shown(pixels: NDArray[Any], white: float) -> Pixels:
    """An image of any type as uint8."""
    scaled = pixels.astype(np.float64) * (255 / white)
    return scaled.round().clip(0, 255).astype(np.uint8)


def _coloured(pixels: Pixels) -> Pixels:
    return pixels[..., None].repeat(3, -1) if pixels.ndim == 2 else pixels

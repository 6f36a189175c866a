"""The marks a picture is made of: text, frames, arrows and bars on a matplotlib figure.

The only module that needs matplotlib, of which no global state is used. Places and lengths are in
inches from the lower left corner of the figure, sizes of text in points.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes as Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure as Figure
    from matplotlib.font_manager import findfont, get_font
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.patheffects import Normal, Stroke
except ImportError as error:
    raise ImportError('drawing needs matplotlib: pip install "nonlocalnet[train]"') from error

DPI = 150
MARGIN = 0.15
SMALL, TEXT, TITLE = 7.5, 8.5, 11.5
FONT = "DejaVu Sans"  # comes with matplotlib
SHORTEST = 0.1  # arrow
INK, FAINT = "#222222", "#666666"

# Blue and orange are told apart by every colour vision, yellow from both by its brightness.
POSITIVE, NEGATIVE, QUERY = "#0B62C4", "#D55E00", "#FFE119"
WARM = LinearSegmentedColormap.from_list("positive", ["#0B3C8C", "#2F86E0", "#8CCBFF", "#FFFFFF"])
COLD = LinearSegmentedColormap.from_list("negative", ["#6B2F00", "#D55E00", "#FFB066", "#FFF0DD"])

Pixels = NDArray[Any]  # (H, W, channels)
Place = tuple[float, float]


def blank(width: float, height: float) -> Figure:
    """A white figure."""
    figure = Figure((width, height), DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def pixels(figure: Figure) -> Pixels:
    """The figure as a picture (H, W, 3) uint8, H and W even, as videos want them."""
    canvas: Any = figure.canvas
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    return drawn[: len(drawn) // 2 * 2, : drawn.shape[1] // 2 * 2].copy()


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()


def text(figure: Figure, x: float, y: float, words: str, size: float, **style: Any) -> None:
    """One or more lines of text; `style` as matplotlib names it."""
    known = "".join(c if c == "\n" or ord(c) in _letters() else "?" for c in words)
    style = {"color": INK, "family": FONT, "parse_math": False, "va": "baseline", **style}
    figure.text(x, y, known, fontsize=size, transform=figure.dpi_scale_trans, **style)


@cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def lines(phrases: Iterable[str], width: float, size: float, bold: bool = False) -> list[str]:
    """Phrases joined by dots into lines of that width, broken inside a phrase only if need be."""
    letters = int(width * 72 / ((0.68 if bold else 0.6) * size))
    found: list[str] = []
    for phrase in phrases:
        joined = f"{found[-1]} · {phrase}" if found else phrase
        if found and len(joined) <= letters:
            found[-1] = joined
        else:
            found += textwrap.wrap(phrase, letters)
    return found


def axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """A part of the figure with coordinates of its own."""
    w, h = figure.get_size_inches()
    part = figure.add_axes((left / w, bottom / h, width / w, height / h))
    part.set_axis_off()
    return part


def image(part: Axes, pixels: Pixels, width: float) -> None:
    """Pixels over a part of that width: squares of colour where enlarged, else averaged."""
    enlarged = width * DPI > pixels.shape[1]
    part.imshow(pixels, interpolation="nearest" if enlarged else "antialiased", aspect="auto")


def ramp(part: Axes, low: float, high: float) -> None:
    """All colours of weights from low to high, upwards."""
    part.imshow(np.zeros((1, 1, 3)), extent=(0, 1, 0, 1), aspect="auto")
    steps = colours(np.linspace(high, low, 128)[:, None])
    part.imshow(steps, extent=(0, 1, 0, 1), interpolation="nearest", aspect="auto")


def colours(weights: NDArray[np.float64]) -> Pixels:
    """Weights in -1..1 as colours (..., RGBA), the heavier the brighter and the more opaque."""
    sizes = np.abs(weights)
    found = np.where((weights >= 0)[..., None], WARM(sizes), COLD(sizes))
    found[..., 3] = 0.95 * np.sqrt(sizes)
    return np.asarray(found)


def dimmed(pixels: Pixels) -> Pixels:
    """A frame (H, W, 3) uint8 in dark grey, as bright in dark clips as in light ones."""
    grey = pixels.mean(-1, keepdims=True)
    gain = min(1.3, 125 / max(float(np.quantile(grey, 0.99)), 1.0))
    return (gain * grey).clip(0, 255).astype(np.uint8).repeat(3, -1)


def arrow(figure: Figure, start: Place, end: Place, weight: float) -> None:
    """An arrow of weight -1..1, or a ring where it would have no length.

    Outlined in white, so that it shows on skin, grass and black.
    """
    thick = 0.9 + 1.4 * abs(weight)
    colour = POSITIVE if weight >= 0 else NEGATIVE
    outlined = [Stroke(linewidth=thick + 1.1, foreground="white"), Normal()]
    mark: Artist
    if math.dist(start, end) < SHORTEST:
        mark = Line2D([end[0]], [end[1]], marker="o", markersize=11, color=colour)
        mark.set(fillstyle="none", markeredgewidth=thick, path_effects=outlined)
    else:
        mark = FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            connectionstyle="arc3,rad=0.03",
            mutation_scale=6.5 + 4 * abs(weight),
            shrinkA=0,
            shrinkB=0,
            linewidth=thick,
            linestyle="-" if weight >= 0 else (0, (2.5, 1.5)),
            color=colour,
            alpha=0.3 + 0.7 * math.sqrt(abs(weight)),  # hardly any weight is hardly seen
            path_effects=outlined,
        )
    mark.set_transform(figure.dpi_scale_trans)
    figure.add_artist(mark)


def dot(figure: Figure, place: Place) -> None:
    """The mark of a query."""
    x, y = place
    mark = Line2D([x], [y], marker="o", markersize=7, color=QUERY, markeredgecolor="black")
    mark.set_transform(figure.dpi_scale_trans)
    figure.add_artist(mark)

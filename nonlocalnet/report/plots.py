"""The report's pictures: curves as inline SVG; bars and the confusion matrix as HTML.

Drawn by hand because they must follow the page: its width on a phone, its dark colours, its fonts
in print. Every mark has a text beside it or a tooltip, and no meaning rests on colour alone: series
differ in dash and carry their name at the end of the line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..metrics import Calibration, Rate
from .markup import Markup, element

POINTS = 240  # per curve; more cannot be seen
COLOURS = 6  # --c0 ... --c5 in report.css
DASHES = (None, "7 4", "2 3", "9 3 2 3", "12 5", "4 2")
WIDTH, HEIGHT = 460.0, 270.0  # of a plot, in user units; about one column of the page
LEFT, TOP, BOTTOM = 44.0, 26.0, 36.0  # room for the ticks and labels


@dataclass(frozen=True)
class Series:
    """One curve: (x, y) pairs in the order of x. Points that are not finite are left out."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int = 0


def percent(value: float) -> str:
    """A share of 1 as text with one decimal; a dash for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}\u202f%"


def interval(rate: Rate) -> str:
    """The 95 % interval as text."""
    low, high = rate.interval
    return f"{100 * low:.1f}–{100 * high:.1f}\u202f%"


def bar(rate: Rate, guess: float | None = None) -> Markup:
    """A horizontal bar on the scale 0..1 with its interval as a whisker.

    guess: what guessing would give, as a tick.
    """
    low, high = rate.interval
    style = f"--v:{100 * rate.value if rate.count else 0:.2f}%;--l:{100 * low:.2f}%"
    style += f";--h:{100 * high:.2f}%"
    mark = None
    if guess is not None:
        mark = element("s", style=f"left:{100 * guess:.2f}%", title=f"guessing: {percent(guess)}")
    label = f"{percent(rate.value)}, 95 % interval {interval(rate)}"
    children = (element("i"), element("b") if rate.count else None, mark)
    return element("div", *children, class_="bar", style=style, role="img", title=label)


def lines(series: Sequence[Series], x_label: str, y_label: str, share: bool = False) -> Markup:
    """Curves over a common axis, each labelled at its end.

    share: the y axis runs from 0 to 100 %. Otherwise from 0 (or the lowest value, if negative) to
    the highest. Without any finite point the plot says so.
    """
    drawn = [Series(s.name, _thin(s.points), s.colour) for s in series]
    drawn = [s for s in drawn if s.points]
    if not drawn:
        return element("p", "There is nothing to draw: no finite value was logged.", class_="note")
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    x_ticks = [t for t in ticks(min(xs), max(xs), 5) if min(xs) <= t <= max(xs)]
    y_ticks = [0, 0.25, 0.5, 0.75, 1] if share else ticks(min(0.0, *ys), max(ys), 4)
    room = 16 + 6.6 * max(len(_short(s.name)) for s in drawn)
    right, floor = WIDTH - room, HEIGHT - BOTTOM
    x0, x1 = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    y0, y1 = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + (x - x0) / (x1 - x0) * (right - LEFT), floor - (y - y0) / (y1 - y0) * (
            floor - TOP
        )

    parts = [text(0, 13, y_label, class_="axis")]
    for tick in y_ticks:
        height = at(x0, tick)[1]
        parts.append(line(LEFT, height, right, height, "grid"))
        told = f"{100 * tick:g}\u202f%" if share else f"{tick:g}"
        parts.append(text(LEFT - 7, height + 4, told, text_anchor="end"))
    for tick in x_ticks:
        parts.append(text(at(tick, y0)[0], floor + 17, f"{tick:g}", text_anchor="middle"))
    parts.append(text((LEFT + right) / 2, HEIGHT - 4, x_label, text_anchor="middle"))
    ends = spread([at(*s.points[-1])[1] for s in drawn], 15, TOP, floor)
    for s, end in zip(drawn, ends, strict=True):
        parts += [_curve(s, [at(*point) for point in s.points]), _label(s, right + 8, end + 4)]
    names = ", ".join(s.name for s in drawn)
    return canvas(f"{y_label} over {x_label}: {names}", *parts)


def reliability(calibration: Calibration) -> Markup:
    """Accuracy against confidence, one dot per bin with its interval; on the diagonal is honest."""
    right, floor = 300.0, HEIGHT - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + x * (right - LEFT), floor - y * (floor - TOP)

    parts = [text(0, 13, "how often right", class_="axis")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = at(tick, tick)
        parts.append(line(LEFT, y, right, y, "grid"))
        parts.append(text(LEFT - 7, y + 4, f"{100 * tick:g}\u202f%", text_anchor="end"))
        parts.append(text(x, floor + 17, f"{100 * tick:g}\u202f%", text_anchor="middle"))
    middle = (LEFT + right) / 2
    parts.append(text(middle, HEIGHT - 4, "how sure (best score)", text_anchor="middle"))
    parts.append(line(*at(0, 0), *at(1, 1), "diagonal"))
    for confidence, rate in calibration.bins:
        low, high = rate.interval
        x, y = at(confidence, rate.value)
        parts.append(line(x, at(0, low)[1], x, at(0, high)[1], "whisker"))
        told = f"{rate.count} videos, {percent(confidence)} sure, {percent(rate.value)} right"
        parts.append(element("circle", element("title", told), cx=x, cy=y, r=4.0, class_="dot"))
    return canvas("accuracy against confidence", *parts, width=right + 24)


def confusion(table: npt.NDArray[np.int64], classes: Sequence[str]) -> Markup:
    """The confusion matrix as a table: rows are right classes, columns answers, cells counts.

    The colour is the share of the row; right answers and wrong ones have different hues. Numbers
    are left to the tooltips above 25 classes.
    """
    numbers = len(classes) <= 25
    corner = element("td", "is ↓ said →", class_="corner")
    heads = [element("th", element("span", name), scope="col", title=name) for name in classes]
    rows = [element("tr", corner, *heads, element("th", "videos", scope="col", class_="sum"))]
    for i, name in enumerate(classes):
        total = int(table[i].sum())
        cells = [
            _cell(int(n), total, i == j, f"{name} → {classes[j]}", numbers)
            for j, n in enumerate(table[i])
        ]
        head = element("th", element("span", name), scope="row", title=name)
        rows.append(element("tr", head, *cells, element("td", total, class_="sum")))
    kind = "confusion" if numbers else "confusion dense"
    return element("div", element("table", *rows, class_=kind), class_="wide")


def _cell(count: int, total: int, right: bool, told: str, numbers: bool) -> Markup:
    share = count / total if total else 0.0
    names = ["right" if right else "wrong", "most" if share > 0.5 else ""]
    return element(
        "td",
        count if numbers and count else None,
        class_=" ".join(filter(None, names)),
        style=f"--s:{100 * share:.1f}%" if count else None,
        title=f"{told}: {count} of {total}" if count else None,
    )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers that enclose low..high, roughly `about` steps of 1, 2 or 5 times a power."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * m for m in (1, 2, 5, 10) if power * m * about >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places moved apart to at least `gap`, in the same order, inside low..high if they fit."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [0.0] * len(places)
    above = -math.inf
    for i in order:
        above = moved[i] = max(places[i], above + gap, low)
    below = math.inf
    for i in reversed(order):
        below = moved[i] = min(moved[i], below - gap, high)
    return moved


def _thin(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """At most `POINTS` finite points: the mean of each run of neighbours."""
    kept = np.array([p for p in points if all(map(math.isfinite, p))], dtype=float).reshape(-1, 2)
    if len(kept) > POINTS:
        kept = np.array([run.mean(0) for run in np.array_split(kept, POINTS)])
    return tuple((float(x), float(y)) for x, y in kept)


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"


def canvas(label: str, *parts: Markup, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """A plot of these marks that scales with the page; `label` is for those who cannot see it."""
    box = f"0 0 {width:g} {height:g}"
    return element("svg", *parts, viewBox=box, role="img", aria_label=label, class_="plot")


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line from one point to another."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def text(x: float, y: float, text: str, **attributes: object) -> Markup:
    return element("text", text, x=float(x), y=float(y), **attributes)


def _curve(series: Series, places: Sequence[tuple[float, float]]) -> Markup:
    told = element("title", f"{series.name}: {series.points[-1][1]:.4g} at the end")
    colour = f"var(--c{series.colour % COLOURS})"
    if len(places) == 1:
        (x, y) = places[0]
        return element("circle", told, cx=x, cy=y, r=3.5, style=f"fill:{colour}")
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = DASHES[series.colour % COLOURS]
    style = f"stroke:{colour}"
    return element("polyline", told, points=path, stroke_dasharray=dash, style=style)


def _label(series: Series, x: float, y: float) -> Markup:
    style = f"fill:var(--c{series.colour % COLOURS})"
    return element("text", _short(series.name), x=x, y=y, class_="name", style=style)


def swatch(colour: int) -> Markup:
    """A short piece of the series' line, for tables."""
    style = f"stroke:var(--c{colour % COLOURS})"
    dash = DASHES[colour % COLOURS]
    piece = element("line", x1=0, y1=5, x2=26, y2=5, stroke_dasharray=dash, style=style)
    return element("svg", piece, viewBox="0 0 26 10", class_="swatch", aria_hidden="true")

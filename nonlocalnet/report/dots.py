"""Rows of dots on one scale from never to always: every seed, their mean, their deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from .markup import Markup, element
from .plots import WIDTH, canvas, line, percent, text

ROW, TOP, BOTTOM = 24.0, 26.0, 24.0  # heights: of a row, above the first, below the last


@dataclass(frozen=True)
class Dots:
    """A row: its name, and one share of 1 per seed."""

    name: str
    values: tuple[float, ...]


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of what the seeds are a sample of; 0 for one seed."""
    return stdev(values) if len(values) > 1 else 0.0


def dots(rows: Sequence[Dots], label: str, guess: float) -> Markup:
    """Each row's bar runs from guessing to its mean, whiskers one deviation on either side."""
    left = 12 + 6.6 * max(len(row.name) for row in rows)
    right, floor = WIDTH - 12, TOP + ROW * len(rows)

    def at(value: float) -> float:
        return left + min(1.0, max(0.0, value)) * (right - left)

    parts = [text(0, 13, label, class_="axis")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(line(at(tick), TOP, at(tick), floor, "grid"))
        parts.append(text(at(tick), floor + 16, f"{100 * tick:g}\u202f%", text_anchor="middle"))
    parts.append(line(at(guess), TOP - 4, at(guess), floor, "diagonal"))
    for i, row in enumerate(rows):
        y, middle = TOP + ROW * (i + 0.5), mean(row.values)
        low, high = sorted((at(guess), at(middle)))
        spread = deviation(row.values)
        told = f"{row.name}: {percent(middle)}" + (f" ± {100 * spread:.1f}" if spread else "")
        parts.append(text(left - 8, y + 4, row.name, text_anchor="end"))
        bar = {"x": low, "y": y - 4, "width": high - low, "height": 8.0, "class_": "span"}
        parts.append(element("rect", element("title", told), **bar))
        parts.append(line(at(middle - spread), y, at(middle + spread), y, "whisker"))
        parts += [
            element("circle", element("title", percent(v)), cx=at(v), cy=y, r=3.5, class_="dot")
            for v in row.values
        ]
    names = ", ".join(f"{row.name} {percent(mean(row.values))}" for row in rows)
    return canvas(f"{label}: {names}; guessing {percent(guess)}", *parts, height=floor + BOTTOM)

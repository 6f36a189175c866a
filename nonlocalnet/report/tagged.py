"""The parts of a report's page that are about networks with several labels at once."""

from __future__ import annotations

import math

from ..tags import TagResult
from .markup import Markup, element
from .plots import percent
from .sections import headed, section


def answer(result: TagResult) -> Markup:
    """The one figure most readers came for, with all that belongs to it."""
    skipped = f" {len(result.skipped):,} more could not be used." if result.skipped else ""
    there = sum(count > 0 for count in result.counts)
    told = (
        f"mean average precision of {there:,} classes on {result.videos:,} videos with"
        f" {result.rules[-1].name}. Scores drawn at random would give about"
        f" {percent(result.guess())}.{skipped}"
    )
    value = element("strong", percent(result.mean()))
    return element("div", value, element("p", told), class_="answer")


def precision(result: TagResult) -> Markup:
    """The view rules under each other."""
    rows = [
        element(
            "tr",
            element("th", rule.name, scope="row"),
            element("td", percent(result.mean(i)), class_="n"),
            element("td", f"{result.videos:,}", class_="n"),
            class_="main" if i == len(result.rules) - 1 and i else None,
        )
        for i, rule in enumerate(result.rules)
    ]
    note = (
        "A video may have several labels, so each class ranks all videos by its score. Average"
        " precision is the mean, over the videos that have the class, of the share of right ones"
        " down to them (as Charades computes it: videos without any label come last)."
    )
    table = headed(["views per video", "mean average precision", "videos"], rows, right=(1, 2))
    return section("Mean average precision", note, table)


def classes(result: TagResult) -> Markup:
    """Every class with its average precision, best first."""
    found = sorted(
        zip(result.classes, result.precisions[-1], result.counts, strict=True),
        key=lambda row: (-row[1] if not math.isnan(row[1]) else math.inf, row[0]),
    )
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            element("td", "–" if math.isnan(value) else percent(value), class_="n"),
            element("td", f"{count:,}", class_="n"),
        )
        for name, value, count in found
    ]
    table = headed(["class", "average precision", "videos"], rows, right=(1, 2))
    missing = sum(count == 0 for count in result.counts)
    note = f"{missing} classes have no video here and count for nothing." if missing else None
    return section("Classes", note, table)

"""The parts of a report's page, each from a result to its piece of HTML, or to None if empty."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from ..metrics import ClassRow, Rate, Result, Scored
from ..tags import TagResult
from .curves import BLOCKS, Curve, curves
from .films import strip
from .markup import Markup, element
from .plots import Series, bar, confusion, interval, lines, percent, reliability

CLASSES = 30  # more have their best and worst shown, the rest folded away
MATRIX = 40  # more classes than this are told by their most confused pairs
BLOCK_WORDS = (
    "The length of what a block adds, over that of its input. At 0 it is the identity, as a new"
    " block is unless it starts awake. It learns once its line leaves 0; where one stays there, the"
    " reason is under “What was decided, and why”."
)


@dataclass(frozen=True)
class Picture:
    """A PNG as bytes, with the words under it."""

    png: bytes
    caption: str


R = TypeVar("R", bound=Result | TagResult, covariant=True)


@dataclass(frozen=True)
class Run(Generic[R]):
    """A tested network as the report shows it.

    log: the lines of its training log (see `read_log`). notes: what was decided for the user and
    why, one sentence each.
    """

    name: str
    result: R
    log: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()


def section(title: str, note: str | None, *content: Markup | None) -> Markup:
    """A titled part of the page with a sentence that says how to read it."""
    told = element("p", note, class_="note") if note else None
    return element("section", element("h2", title), told, *content)


def headed(heads: Sequence[str], rows: Sequence[Markup], right: Sequence[int] = ()) -> Markup:
    """A table that scrolls sideways when the page is narrow.

    right: the columns of numbers. A column without a head is one of bars.
    """
    cells = [
        element("th", head, scope="col", class_="n" if i in right else None if head else "barred")
        for i, head in enumerate(heads)
    ]
    top, body = element("thead", element("tr", *cells)), element("tbody", *rows)
    return element("div", element("table", top, body), class_="wide")


def number(rate: Rate) -> Markup:
    """A table cell with a rate and, small, its interval."""
    return element("td", percent(rate.value), element("small", interval(rate)), class_="n")


def accuracy(result: Result) -> Markup:
    """The view rules under each other: the same network, the same videos."""
    many = len(result.classes) > 5
    heads = ["views per video", "top-1", "", *(["top-5"] if many else []), "class mean"]
    heads += [*result.groups, "videos"]
    note = "The same network on the same videos, scored from more and more views. "
    note = (note if len(result.rules) > 1 else "") + (
        "Small and as whiskers: the Wilson 95 % interval for this many videos; dotted: always"
        " answering the most frequent class."
    )
    if result.sources < result.count:
        note += (
            f" The videos come from {result.sources:,} recordings; clips of one recording are"
            " alike, so the true uncertainty is larger."
        )
    rows = [_rule_row(result, i, many) for i in range(len(result.rules))]
    right = (1, *range(3, len(heads)))
    return section("Accuracy", note, headed(heads, rows, right))


def _rule_row(result: Result, i: int, many: bool) -> Markup:
    rule, top1 = result.rules[i], result.accuracy(i)
    count = "1 view" if rule.views == 1 else f"{rule.views} views"
    return element(
        "tr",
        element("th", rule.name, element("small", count) if rule.crops > 1 else None, scope="row"),
        number(top1),
        element("td", bar(top1, result.guess().value), class_="barred"),
        number(result.accuracy(i, k=5)) if many else None,
        element("td", percent(result.mean_class_accuracy(i)), class_="n"),
        *(number(rate) for rate in result.group_accuracy(i).values()),
        element("td", f"{result.count:,}", class_="n"),
        class_="main" if i == len(result.rules) - 1 and i else None,
    )


def learning(log: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Training and validation in common plots, one per quantity."""
    by_quantity: dict[str, list[Curve]] = {}
    for curve in curves(log).values():
        by_quantity.setdefault(curve.quantity, []).append(curve)
    if not by_quantity:
        return None
    figures = []
    for quantity, found in by_quantity.items():
        series = [Series(c.part, c.points, i) for i, c in enumerate(found)]
        plot = lines(series, found[0].over, quantity, share=found[0].share)
        told = element("figcaption", BLOCK_WORDS) if quantity == BLOCKS else None
        figures.append(element("figure", plot, told))
    return section("Learning", None, element("div", *figures, class_="plots"))


def classes(result: Result) -> Markup:
    """Per class: how many of its videos were found, how often the answer can be trusted."""
    rows = sorted(result.class_rows(), key=lambda r: (-(r.recall.value or 0.0), r.name))
    rows = [r for r in rows if r.recall.count] + [r for r in rows if not r.recall.count]
    note = (
        "Found: the share of a class's videos that got the right answer. Trusted: the share of"
        " answers with this class that were right."
    )
    if len(rows) <= CLASSES:
        return section("Classes", note, _class_table(rows))
    part = CLASSES // 3
    middle = element(
        "details",
        element("summary", f"all {len(rows)} classes"),
        _class_table(rows),
        class_="more",
    )
    best = element("h3", f"The {part} found best")
    hard = element("h3", f"The {part} found least", style="margin-top:1.6rem")
    tested = [r for r in rows if r.recall.count]
    shown = (best, _class_table(tested[:part]), hard, _class_table(tested[-part:]))
    return section("Classes", note, *shown, middle)


def _class_table(rows: Sequence[ClassRow]) -> Markup:
    body = [
        element(
            "tr",
            element("th", row.name, scope="row"),
            element("td", bar(row.recall) if row.recall.count else None, class_="barred"),
            element("td", percent(row.recall.value), class_="n"),
            element("td", percent(row.precision.value), class_="n"),
            element("td", f"{row.recall.count:,}", class_="n"),
        )
        for row in rows
    ]
    table = headed(["class", "", "found", "trusted", "videos"], body, right=(2, 3, 4))
    return element("div", table, class_="classes")


def confusions(result: Result, most: int = 20) -> Markup:
    """The matrix while it can be read, and the pairs that are taken for each other most."""
    mistakes = result.confused_pairs()
    body = [
        element(
            "tr",
            element("td", right),
            element("td", answer),
            element("td", f"{n:,} of {total:,}", class_="n"),
            element("td", percent(n / total), class_="n"),
        )
        for right, answer, n, total in mistakes[:most]
    ]
    listed = headed(["is", "was taken for", "times", "share"], body, right=(2, 3))
    if not mistakes:
        listed = element("p", "No video was taken for another class.")
    if len(result.classes) > MATRIX:
        note = (
            f"The {min(most, len(mistakes))} most frequent of {len(mistakes):,} kinds of mistake."
            f" (A matrix of {len(result.classes)} classes cannot be read; it is in the JSON.)"
        )
        return section("What is taken for what", note, listed)
    matrix = confusion(result.confusion(), result.classes)
    note = "Rows are what the videos show, columns what the network said, colour the row's share."
    if len(result.classes) <= 6:
        return section("What is taken for what", note, matrix)
    folded = element(
        "details", element("summary", "the most frequent mistakes"), listed, class_="more"
    )
    return section("What is taken for what", note, matrix, folded if mistakes else None)


def worst_clips(result: Result, count: int) -> Markup | None:
    """The wrong answers the network was surest of, with frames."""
    wrong = result.worst(count)
    if not wrong:
        return None
    root = _root([v.path for v in wrong])
    note = (
        "The wrong answers given with the highest score, six frames of each video. Wrong labels"
        " and unusable videos tend to show up here first."
    )
    films = [_film(result, video, root) for video in wrong]
    return section("Surest mistakes", note, element("div", *films, class_="films"))


def _film(result: Result, video: Scored, root: str) -> Markup:
    seen = video.outcomes[-1]
    said, truth = result.classes[seen.top[0]], result.classes[video.label]
    return element(
        "figure",
        strip(video.path),
        element(
            "p",
            "said ",
            element("b", said),
            f" ({percent(seen.scores[0])}), is ",
            element("b", truth),
            f" ({percent(seen.truth)})",
        ),
        element("p", element("code", video.path.removeprefix(root)), class_="path"),
        class_="film",
    )


def _root(paths: Sequence[str]) -> str:
    """What all paths begin with and a reader need not see, down to the last folder but one."""
    try:
        return str(Path(os.path.commonpath(paths)).parent) + os.sep
    except ValueError:  # relative beside absolute paths, or two drives
        return ""


def gallery(pictures: Sequence[Picture], explorer: Path | None = None) -> Markup | None:
    """Pictures as they are, each with its words; explorer: a page that lies beside the report."""
    if not pictures:
        return None
    note = None
    if explorer is not None:
        link = element("a", explorer.name, href=quote(explorer.name))
        note = element("p", "Any place of the first clip, in any block: ", link, ".", class_="note")
    figures = [
        element(
            "figure",
            element("img", src=_data_uri(p.png), alt=p.caption, loading="lazy"),
            element("figcaption", p.caption),
            class_="picture",
        )
        for p in pictures
    ]
    return section("What it looks at", None, note, *figures)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + b64encode(png).decode("ascii")


def confidence(result: Result) -> Markup:
    """Whether the scores can be read as probabilities."""
    found = result.calibration()
    words = (
        f"On average the best score is {100 * found.error:.1f} percentage points off the share of"
        " answers that are right (expected calibration error). Each dot is a group of videos with"
        " about the same best score, its line the 95 % interval. A dot below the diagonal: the"
        " network is surer than it should be."
    )
    plot = element("figure", reliability(found))
    both = element("div", plot, element("p", words, class_="note"), class_="beside")
    return section("How sure, how right", None, both)


def skipped(result: Result | TagResult) -> Markup | None:
    """Which videos could not be used, and why."""
    if not result.skipped:
        return None
    rows = [
        element("tr", element("td", element("code", s.path)), element("td", s.reason))
        for s in result.skipped
    ]
    table = headed(["file", "reason"], rows)
    count = len(rows)
    note = "They count neither as right nor as wrong."
    if count > 10:
        table = element("details", element("summary", f"all {count}"), table, class_="more")
    title = "1 video could not be used" if count == 1 else f"{count:,} videos could not be used"
    return section(title, note, table)


def decisions(notes: Sequence[str]) -> Markup | None:
    """What was derived rather than given, in words."""
    if not notes:
        return None
    points = element("ul", *(element("li", note) for note in notes))
    return section("What was decided, and why", None, points)


def obtained(result: Result | TagResult) -> Markup | None:
    """Everything someone needs to get the same figures again."""
    return described(result.obtained)


def described(facts: Mapping[str, str]) -> Markup | None:
    """How figures were obtained, fact by fact."""
    if not facts:
        return None
    rows = [(element("dt", k), element("dd", v)) for k, v in facts.items()]
    return section("How this was obtained", None, element("dl", *(x for row in rows for x in row)))

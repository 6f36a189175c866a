"""The page as a whole: what comes in which order, and how it reaches the disk.

It runs no script and asks for nothing from outside (its own content policy forbids both), so it can
be mailed, archived and opened offline.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

from ..errors import UserError
from ..files import check_regular, write_text
from ..metrics import Result
from ..tags import TagResult
from . import sections, tagged
from .comparison import comparison
from .curves import finite
from .markup import Markup, element, join
from .plots import interval, percent
from .sections import Picture, Run

AnyRun = Run[Result | TagResult]
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    path: str | os.PathLike[str],
    title: str,
    runs: Sequence[AnyRun],
    *,
    words: Sequence[str] = (),
    pictures: Sequence[Picture] = (),
    explorer: Path | None = None,
    worst: int = 12,
) -> tuple[Path, Path]:
    """Write the report of one tested network, or the comparison of several.

    path: the HTML file; the JSON goes beside it under the same name. Both replace what was there
        only when complete.
    words: paragraphs under the title. pictures: PNGs with captions, shown as they are; explorer:
        a page beside the report, linked under them.
    worst: how many of the surest wrong answers are shown with frames (a third of them per network
        in a comparison). Frames come from the videos, if those can still be read.

    Returns both paths. Raises `UserError` if they cannot be written, `ValueError` without runs.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    looks = sections.gallery(pictures, explorer)
    body = _single(runs[0], looks, worst) if len(runs) == 1 else _many(runs, looks, worst)
    lead = _answer(runs[0]) if len(runs) == 1 else None
    return write_page(path, title, words, body, _data(title, words, runs, pictures), lead)


def write_page(
    path: str | os.PathLike[str],
    title: str,
    words: Sequence[str],
    body: Markup,
    data: Mapping[str, Any],
    lead: Markup | None = None,
) -> tuple[Path, Path]:
    """Write a page and its figures: the HTML at `path`, the JSON beside it under the same name.

    lead: between the title and the words. Returns both paths. Raises `UserError` if they cannot
    be written.
    """
    html_path = Path(path)
    if html_path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"the report's name must end in .html, not {html_path.name!r}")
    json_path = html_path.with_suffix(".json")
    for file in (json_path, html_path):
        check_regular(file)
    page = document(title, lead, words, body)
    write_text(json_path, json.dumps(data, allow_nan=False))
    write_text(html_path, page)
    return html_path, json_path


def _single(run: AnyRun, looks: Markup | None, worst: int) -> Markup:
    result = run.result
    if isinstance(result, TagResult):
        return join(
            tagged.precision(result),
            sections.learning(run.log),
            tagged.classes(result),
            looks,
            sections.skipped(result),
            sections.decisions(run.notes),
            sections.obtained(result),
        )
    return join(
        sections.accuracy(result),
        sections.learning(run.log),
        sections.classes(result),
        sections.confusions(result),
        sections.worst_clips(result, worst),
        looks,
        sections.confidence(result),
        sections.skipped(result),
        sections.decisions(run.notes),
        sections.obtained(result),
    )


def _many(runs: Sequence[AnyRun], looks: Markup | None, worst: int) -> Markup:
    single = [cast(Run[Result], run) for run in runs if isinstance(run.result, Result)]
    details = [
        element(
            "details",
            element("summary", run.name, element("small", _in_short(run))),
            _single(run, None, max(1, worst // 3)),
            class_="run",
        )
        for run in runs
    ]
    each = sections.section("Each network by itself", None, *details)
    return join(comparison(single) if single else None, looks, each)


def _in_short(run: AnyRun) -> str:
    if isinstance(run.result, TagResult):
        return f"{percent(run.result.mean())} mean average precision"
    top1 = run.result.accuracy()
    return f"{percent(top1.value)} of {top1.count:,} videos"


def _answer(run: AnyRun) -> Markup:
    """The one figure most readers came for, with all that belongs to it."""
    result = run.result
    if isinstance(result, TagResult):
        return tagged.answer(result)
    top1, guess = result.accuracy(), result.guess()
    views = result.rules[-1].name
    skipped = f" {len(result.skipped):,} more could not be used." if result.skipped else ""
    told = (
        f"right on {top1.hits:,} of {top1.count:,} videos with {views}"
        f" (95 % interval {interval(top1)}). Always answering the most frequent class would give"
        f" {percent(guess.value)}.{skipped}"
    )
    return element(
        "div", element("strong", percent(top1.value)), element("p", told), class_="answer"
    )


def document(title: str, lead: Markup | None, words: Sequence[str], body: Markup) -> str:
    """A whole page. lead: what comes first; words: paragraphs under the title."""
    style = (resources.files(__package__) / "report.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    )
    told = element("div", *(element("p", p) for p in words), class_="words") if words else None
    header = element("header", element("h1", title), lead, told)
    main = element("main", header, body, element("footer", "Written by nonlocalnet."))
    return "<!doctype html>\n" + element("html", head, element("body", main), lang="en") + "\n"


def _data(
    title: str, words: Sequence[str], runs: Sequence[AnyRun], pictures: Sequence[Picture]
) -> dict[str, Any]:
    return {
        "title": title,
        "words": list(words),
        "pictures": [picture.caption for picture in pictures],
        "runs": [
            {
                "name": run.name,
                "notes": list(run.notes),
                "log": finite(run.log),
                "result": run.result.to_dict(),
            }
            for run in runs
        ],
    }

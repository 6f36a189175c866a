"""Several networks side by side: one table, one plot per quantity."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import Result
from .curves import BLOCKS, curves
from .markup import Markup, element
from .plots import Series, bar, lines, percent, swatch
from .sections import Run, headed, number, section


def comparison(runs: Sequence[Run[Result]]) -> Markup:
    """The table of all networks and their curves in common plots."""
    views = list(dict.fromkeys(run.result.rules[-1].name for run in runs))
    note = (
        f"Share of right answers with {' or '.join(views)} per video. Small and as whiskers: the"
        " Wilson 95 % interval; dotted: always answering the most frequent class."
    )
    groups = list(dict.fromkeys(g for run in runs for g in run.result.groups))
    heads = ["network", "top-1", "", *groups, "parameters", "videos"]
    rows = [_row(i, run, groups, len(views) > 1) for i, run in enumerate(runs)]
    table = headed(heads, [*rows, *_guess(runs, groups)], right=(1, *range(3, len(heads))))
    return section("Accuracy", note, table, _curves(runs))


def _row(i: int, run: Run[Result], groups: Sequence[str], told: bool) -> Markup:
    result = run.result
    top1, by_group = result.accuracy(), result.group_accuracy()
    cells = [
        number(by_group[g]) if g in by_group else element("td", "–", class_="n") for g in groups
    ]
    views = element("small", result.rules[-1].name) if told else None
    return element(
        "tr",
        element("th", swatch(i), run.name, views, scope="row", class_="swatched"),
        number(top1),
        element("td", bar(top1, result.guess().value), class_="barred"),
        *cells,
        element("td", result.obtained.get("Parameters", "–"), class_="n"),
        element("td", f"{top1.count:,}", class_="n"),
    )


def _guess(runs: Sequence[Run[Result]], groups: Sequence[str]) -> list[Markup]:
    """A last row for guessing, if it means the same for all networks."""
    first = runs[0].result
    same = all(run.result.guess() == first.guess() for run in runs)
    if not same or any(run.result.groups != first.groups for run in runs):
        return []
    row = element(
        "tr",
        element("th", "always the most frequent", scope="row", class_="swatched"),
        element("td", percent(first.guess().value), class_="n"),
        element("td", class_="barred"),
        *(element("td", percent(first.guess(g).value), class_="n") for g in groups),
        element("td"),
        element("td"),
        class_="quiet",
    )
    return [row]


def _curves(runs: Sequence[Run[Result]]) -> Markup | None:
    """For each quantity that several logs hold, one plot with a curve per network."""
    logs = [curves(run.log) for run in runs]
    names = dict.fromkeys(name for log in logs for name, c in log.items() if c.quantity != BLOCKS)
    plots = []
    for name in names:
        series = [
            Series(run.name, log[name].points, i)
            for i, (run, log) in enumerate(zip(runs, logs, strict=True))
            if name in log
        ]
        found = next(log[name] for log in logs if name in log)
        plots.append(element("figure", lines(series, found.over, name, share=found.share)))
    return element("div", *plots, class_="plots") if plots else None

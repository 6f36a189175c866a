"""The report of an ablation: a table and plots per question, means and deviations over seeds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from .dots import Dots, deviation, dots
from .markup import Markup, element, join
from .page import write_page
from .plots import percent
from .sections import described, headed, section

LEARNED, PARTLY = 0.75, 0.6  # of two answers: halfway from chance to always right; hardly off it


@dataclass(frozen=True)
class Measured:
    """One network over all seeds.

    rates: accuracy per seed, in total and per question. can: whether theory lets it answer a
    question; None where that is open. count: test clips per seed.
    """

    key: str
    parameters: int
    multiply_adds: int
    count: int
    rates: Mapping[str, tuple[float, ...]]
    can: Mapping[str, bool | None]


@dataclass(frozen=True)
class AblationRow:
    """A network under its name in a table, with the paper's top-1 on Kinetics in percent."""

    name: str
    measured: Measured
    paper: float | None = None


@dataclass(frozen=True)
class AblationTable:
    """One question: the paper's table that asks it, what theory says, the rows."""

    title: str
    paper: str
    theory: str
    rows: tuple[AblationRow, ...]


def write_ablation(
    path: str | os.PathLike[str],
    title: str,
    tables: Sequence[AblationTable],
    *,
    guess: Mapping[str, float],
    words: Sequence[str] = (),
    obtained: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """Write the page and the JSON beside it; both replace what was there only when complete.

    guess: what guessing gives, for "total" and for each question.

    Returns both paths. Raises `UserError` if they cannot be written.
    """
    body = join(*(_table(table, guess) for table in tables), described(obtained or {}))
    data = {
        "title": title,
        "words": list(words),
        "guess": dict(guess),
        "obtained": dict(obtained or {}),
        "tables": [_data(table) for table in tables],
    }
    return write_page(path, title, words, body, data)


def verdict(rate: float) -> str:
    """What an accuracy over two answers amounts to."""
    if rate >= LEARNED:
        return "answered"
    return "partly" if rate > PARTLY else "not answered"


def outcome_words(table: AblationTable) -> str:
    """What came out beside what theory says, in a few sentences."""
    claims, more, less = 0, list[str](), list[str]()
    for row in table.rows:
        for question, can in row.measured.can.items():
            found = mean(row.measured.rates[question])
            told = f"{row.name}, {question} {percent(found)}"
            claims += can is not None
            if can and verdict(found) != "answered":
                less.append(told)
            if can is False and verdict(found) != "not answered":
                more.append(told)
    held = claims - len(more) - len(less)
    words = [f"What came out: {held} of {claims} times what theory says."]
    if more:
        words.append(f"More than it lets expect: {'; '.join(more)}.")
    if less:
        words.append(f"Possible, but learned partly or not at all here: {'; '.join(less)}.")
    return " ".join(words)


def _table(table: AblationTable, guess: Mapping[str, float]) -> Markup:
    questions = list(guess)
    heads = ["network", *questions, "parameters", "multiply-adds", f"{table.paper}, Kinetics top-1"]
    rows = [_row(row, questions) for row in table.rows]
    first = table.rows[0].measured
    chance = element(
        "tr",
        element("th", "chance", scope="row"),
        *(element("td", percent(guess[q]), class_="n") for q in questions),
        *(element("td") for _ in range(3)),
        class_="quiet",
    )
    seeds = len(first.rates[questions[0]])
    several = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed"
    note = (
        f"{several} of {first.count:,} test clips each, and from the least to the greatest. Last"
        f" column: the paper's {table.paper}, ResNet-50 on Kinetics-400, which reunion is not."
    )
    plots = element("div", *(_plot(table, q, guess[q]) for q in questions[1:]), class_="plots")
    return section(
        f"{table.title} ({table.paper})",
        None,
        element("p", element("b", "Theory, before any run. "), table.theory),
        element("p", outcome_words(table)),
        headed(heads, [*rows, chance], right=range(1, len(heads))),
        element("p", note, class_="note"),
        plots,
    )


def _row(row: AblationRow, questions: Sequence[str]) -> Markup:
    found = row.measured
    return element(
        "tr",
        element("th", row.name, scope="row"),
        *(_rate(found.rates[q]) for q in questions),
        element("td", f"{found.parameters:,}", class_="n"),
        element("td", f"{found.multiply_adds / 1e6:.1f} M", class_="n"),
        element("td", "–" if row.paper is None else f"{row.paper:.1f}\u202f%", class_="n"),
    )


def _rate(rates: Sequence[float]) -> Markup:
    if len(rates) == 1:
        return element("td", percent(rates[0]), class_="n")
    low, high = min(rates), max(rates)
    return element(
        "td",
        f"{percent(mean(rates))} ± {100 * deviation(rates):.1f}",
        element("small", f"{100 * low:.1f} to {percent(high)}"),
        class_="n",
    )


def _plot(table: AblationTable, question: str, guess: float) -> Markup:
    rows = [Dots(row.name, row.measured.rates[question]) for row in table.rows]
    return element("figure", dots(rows, question, guess))


def _data(table: AblationTable) -> dict[str, Any]:
    rows = [
        {
            "name": row.name,
            "network": row.measured.key,
            "parameters": row.measured.parameters,
            "multiply_adds": row.measured.multiply_adds,
            "test_clips": row.measured.count,
            "kinetics_top1_of_the_paper": row.paper,
            "accuracy": {
                question: {"mean": mean(r), "deviation": deviation(r), "seeds": list(r)}
                for question, r in row.measured.rates.items()
            },
            "theory": dict(row.measured.can),
        }
        for row in table.rows
    ]
    return {"title": table.title, "paper": table.paper, "theory": table.theory, "rows": rows}

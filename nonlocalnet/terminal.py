"""What the commands print: tables that fit a terminal, and stay whole in a pipe or a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from .errors import UserError
from .samples import inside
from .tags import TagResult

if TYPE_CHECKING:
    from .check import Checked
    from .check.summary import Summary
    from .cost import FunctionCost, Row
    from .doctor import Fact
    from .many import Summary as Many
    from .metrics import Rate, Result
    from .prediction import Prediction

NAMED = 20  # files that are named where a report names the others
WIDE = 10_000  # columns where no terminal limits them, so that a file gets whole lines


class OutputError(UserError):
    """Standard output cannot be written."""


def say(text: str) -> None:
    """One line of plain text, as it is, on standard output.

    Raises `OutputError` if it cannot be written there, `BrokenPipeError` if its reader has gone.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(unwritable(error)) from error


def say_json(text: str) -> None:
    """One line of JSON; letters that standard output cannot write are escaped as JSON does."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))
    say(text)


def unwritable(error: OSError) -> str:
    """What is said when standard output cannot be written."""
    return f"standard output cannot be written: {error.strerror or error}"


def show_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int],
    whole: Sequence[int] = (),
) -> None:
    """A table with headings; `right` names the columns of numbers, `whole` those never broken."""
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold",
        show_header=any(heads),
    )
    for i, head in enumerate(heads):
        justify: Literal["left", "right"] = "right" if i in right else "left"
        table.add_column(Text(head), justify=justify, overflow="fold", no_wrap=i in whole)
    for row in rows:
        table.add_row(*map(Text, row))  # Text: brackets in a file name are no markup
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table)
        return
    buffer = StringIO()
    Console(highlight=False, width=WIDE, no_color=True, file=buffer).print(table)
    say("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()))


@contextmanager
def progress_bar(name: str, note: str = "") -> Iterator[Callable[..., None]]:
    """A bar with the rate on standard error, if that is a terminal.

    Yields report(done, total, broken=None). note: what is told until then.
    """
    console = Console(stderr=True)
    told = TextColumn("{task.fields[note]}")
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), told, TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(name, total=None, note=note)
        began: list[tuple[float, int]] = []  # of the first report: when, and what was done before

        def report(done: int, total: int, broken: int | None = None) -> None:
            began[:] = began or [(time.monotonic(), done)]
            rate = (done - began[0][1]) / max(time.monotonic() - began[0][0], 1e-3)
            words = f"{rate:.1f}/s" + ("" if broken is None else f", {broken} broken")
            bar.update(task, completed=done, total=total, note=words)

        yield report


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """The same for bytes, with their rate; yields report(done, total), a total of None unknown."""
    console = Console(stderr=True)
    columns = (
        TextColumn(name),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(name, total=None, visible=False)  # until something is fetched
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextmanager
def live_line(seconds: float | None) -> Iterator[Callable[[float, str], None]]:
    """A line on standard error that is written over, if that is a terminal.

    Yields report(done, words), done in seconds; with a bar where it is known how many there are.
    """
    console = Console(stderr=True)
    columns = () if seconds is None else (BarColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("{task.description}", markup=False),
        *columns,
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=seconds)
        yield lambda done, words: bar.update(task, completed=done, description=words)


def show_parts(rows: Sequence[Row]) -> None:
    """Stages and blocks of a network: output, parameters, multiply-adds."""
    cells = [[row.name, row.kind, *_size(row)] for row in rows]
    show_table(("part", "kind", "output", "parameters", "multiply-adds"), cells, right=(3, 4))


def show_memory(rows: Sequence[Row], momentum: int | None) -> None:
    """Memory of each part, and what it means; `momentum` in bytes is that of a training step."""
    train = momentum is not None
    heads = ["part", "output", "parameters", "multiply-adds", "peak", "adds"]
    cells = []
    for row in rows:
        taken = [row.peak, row.adds, *([row.kept] if train else [])]
        cells.append([row.name, *_size(row), *map(_mb, taken)])
    show_table([*heads, *(["keeps"] if train else [])], cells, right=range(2, len(heads) + train))
    fixed = _mb(rows[-1].peak - rows[-1].adds)
    say(f"peak: the most in use at once while the part runs; weights and input are {fixed} of it")
    say("adds: the most that came on top of what was in use when the part began")
    if momentum is not None:
        say("keeps: what is made in the part and needed by the backward pass")
        both = f"SGD's momentum {_mb(momentum)}, AdamW's moments {_mb(2 * momentum)}"
        say(f"the optimiser's state comes on top: {both}")


def show_functions(functions: Sequence[FunctionCost]) -> None:
    """The whole network with each pairwise function."""
    say("")
    heads = ("pairwise", "parameters", "multiply-adds", "peak, inference", "peak, training")
    cells = [
        [
            f.pairwise,
            f"{f.parameters / 1e6:.3f} M",
            f"{f.multiply_adds / 1e9:.3f} G",
            _mb(f.inference),
            _mb(f.training),
        ]
        for f in functions
    ]
    show_table(heads, cells, right=range(1, len(heads)))


def _size(row: Row) -> list[str]:
    shape = " x ".join(map(str, row.shape))
    return [shape, f"{row.parameters / 1e6:.3f} M", f"{row.multiply_adds / 1e9:.3f} G"]


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def show_result(result: Result | TagResult) -> None:
    """The view rules of a test under each other; shares of right answers with their interval."""
    if isinstance(result, TagResult):
        rules = enumerate(result.rules)
        rows = [[rule.name, f"{100 * result.mean(i):.1f} %"] for i, rule in rules]
        show_table(("views", "mean average precision"), rows, right=(1,))
        say(f"{result.videos} videos; scores at random: about {100 * result.guess():.1f} %")
    else:
        _show_accuracy(result)
    for skipped in result.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")


def _show_accuracy(result: Result) -> None:
    many = len(result.classes) > 5
    heads = ["views", "top-1", "", *(["top-5", ""] if many else []), "mean of classes"]
    rows = []
    for i, rule in enumerate(result.rules):
        cells = [rule.name, *_rate(result.accuracy(i))]
        cells += _rate(result.accuracy(i, k=5)) if many else []
        cells.append(f"{100 * result.mean_class_accuracy(i):.1f} %")
        for rate in result.group_accuracy(i).values():
            cells += _rate(rate)
        rows.append(cells)
    for name in result.groups:
        heads += [name, ""]
    show_table(heads, rows, right=[i for i, head in enumerate(heads) if head not in ("", "views")])
    guess = result.guess()
    say(f"{result.count} videos; the most frequent class every time: {100 * guess.value:.1f} %")


def _rate(rate: Rate) -> list[str]:
    low, high = rate.interval
    return [f"{100 * rate.value:.1f} %", f"({100 * low:.0f}-{100 * high:.0f})"]


def show_prediction(prediction: Prediction) -> None:
    """One video: its best classes with their scores, or why there are none."""
    if prediction.error is not None:
        say(f"{prediction.path}: {prediction.error}")
        return
    say(prediction.path)
    scores = zip(prediction.scores, prediction.labels, strict=True)
    show_table(("", ""), [[f"{score:9.4f}", label] for score, label in scores], right=(0,))


def show_checked(checked: Checked, summary: Summary, every: bool) -> None:
    """What a data set holds per class, and what is wrong or doubtful with it and its files.

    every: name all files that there are remarks on, not only the gravest.
    """
    tally = checked.tally
    rows = [
        [
            name,
            str(tally.usable[i, "train"]),
            str(tally.usable[i, "val"]),
            str(tally.unusable[i]),
            f"{tally.seconds[i] / 60:.1f}",
        ]
        for i, name in enumerate(tally.classes)
    ]
    show_table(("class", "train", "val", "unusable", "minutes"), rows, right=(1, 2, 3, 4))
    for remark in checked.remarks:
        say(remark.text)
    for report in checked if every else summary.shown[:NAMED]:
        for remark in report.remarks:
            say(_written(f"{inside(report.name, checked.split.root)}: {remark.text}"))
    from .check import KINDS

    kinds = [
        [f"{summary.kinds[key]:,}", kind.grave, kind.name, kind.advice]
        for key, kind in KINDS.items()
        if summary.kinds[key]
    ]
    if kinds:
        say("")
        show_table(("", "", "", "what to do"), kinds, right=(0,))


def say_files(checked: Checked) -> None:
    """One line of JSON per file."""
    for report in checked:
        say_json(json.dumps(report.to_dict(), ensure_ascii=False))


def _written(path: str) -> str:
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def show_summary(summary: Many) -> None:
    """What many videos came to: counts, and the most frequent reasons for which some are broken."""
    rate = summary.new / max(summary.seconds, 1e-3)
    say(
        f"{summary.files} files: {summary.predicted} predicted, {summary.broken} broken;"
        f" {summary.new} of them now, {rate:.1f} files/s"
    )
    rows = [[str(count), reason] for reason, count in summary.reasons.items()]
    if rows:
        show_table(("broken", "why"), rows, right=(0,))


def show_facts(facts: Sequence[Fact]) -> None:
    """What `doctor` found: state, what, in detail; below, what to do."""
    show_table(("state", "what", ""), [[f.state, f.name, f.detail] for f in facts], right=())
    for fact in facts:
        if fact.advice:
            say(f"{fact.name}: {fact.advice}")

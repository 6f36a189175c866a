"""The report of a check as one HTML file: what is wrong first, then what there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import write_text
from ..report.markup import Markup, element, join
from ..report.page import document
from ..report.sections import headed, section
from ..samples import inside
from .clean import write_clean
from .labels import Tally
from .remarks import GRAVE, KINDS
from .reports import Checked, FileReport
from .summary import Summary

CLASSES = 60  # more are folded away
BINS = 24
WIDTH, HEIGHT, FLOOR = 300.0, 130.0, 104.0  # of a histogram, user units


def write_outputs(
    out: Path, title: str, checked: Checked, summary: Summary, words: Sequence[str]
) -> list[Path]:
    """Write the list of usable files and the report into a folder -> their paths."""
    clean, page = out / "clean.csv", out / "report.html"
    write_clean(clean, checked)
    write_page(page, title, checked, summary, words)
    return [clean, page]


def write_page(
    path: Path, title: str, checked: Checked, summary: Summary, words: Sequence[str]
) -> None:
    """Write the report, whole or not at all. Raises `UserError` if it cannot be written."""
    told = f"of {summary.files:,} files can be used, {_time(sum(summary.seconds))} of video."
    told += f" All files together take {_size(summary.bytes)}."
    number = element("strong", f"{summary.usable:,}")
    lead = element("div", number, element("p", told), class_="answer")
    body = join(
        _kinds(summary),
        _labels(checked),
        _files(summary, checked.split.root),
        _figures(summary),
        _classes(checked.tally),
    )
    write_text(path, document(title, lead, words, body))


def _kinds(summary: Summary) -> Markup:
    rows = [
        element(
            "tr",
            element("th", kind.name, scope="row"),
            element("td", f"{summary.kinds[key]:,}", class_="n"),
            element("td", kind.grave),
            element("td", kind.advice),
            class_="quiet" if kind.grave == "remark" else None,
        )
        for key, kind in sorted(KINDS.items(), key=lambda item: GRAVE.index(item[1].grave))
        if summary.kinds[key]
    ]
    if not rows:
        return section("What was found", None, element("p", "Nothing to remark on."))
    note = "A file may be in several rows. Remarks are no faults: they are worth a look."
    return section("What was found", note, headed(["", "count", "", "what to do"], rows, (1,)))


def _labels(checked: Checked) -> Markup | None:
    if not checked.remarks:
        return None
    points = [element("li", f"{KINDS[r.kind].name}: {r.text}") for r in checked.remarks]
    return section("Classes", None, element("ul", *points))


def _files(summary: Summary, root: str) -> Markup | None:
    if not summary.shown:
        return None
    rows = [_file(report, root) for report in summary.shown]
    note = "The gravest first."
    if summary.more:
        note += f" {summary.more:,} more are in the journal, files.jsonl, and in --json."
    return section("Files", note, headed(["file", "what", "seconds", "size"], rows, (2, 3)))


def _file(report: FileReport, root: str) -> Markup:
    info = report.found.info
    name = element("code", inside(report.name, root))
    place = " / ".join(filter(None, (report.side, report.class_name)))
    return element(
        "tr",
        element("td", name, element("small", place), style="min-width:15rem"),
        element("td", *(element("div", remark.text) for remark in report.remarks)),
        element("td", f"{info.duration:.1f}" if info else None, class_="n"),
        element("td", f"{info.width} × {info.height}" if info else None, class_="n"),
        class_="quiet" if all(r.grave == "remark" for r in report.remarks) else None,
    )


def _figures(summary: Summary) -> Markup | None:
    if not summary.usable:
        return None
    plots = [
        _histogram("seconds", summary.seconds),
        _histogram("frames per second", summary.rates),
        _histogram("shorter side, pixels", summary.sides),
    ]
    tables = [_counted("codec", summary.codecs), _counted("size", summary.sizes)]
    note = (
        f"Of the usable files. Stored turned and shown upright: {summary.turned:,}; of variable"
        f" frame rate: {summary.variable:,}. Both are read right."
    )
    return section("What there is", note, element("div", *plots, *tables, class_="plots"))


def _counted(head: str, counter: Counter[str]) -> Markup:
    common = counter.most_common(8)
    rest = counter.total() - sum(count for _, count in common)
    common += [("others", rest)] if rest else []
    rows = [
        element("tr", element("td", name), element("td", f"{count:,}", class_="n"))
        for name, count in common
    ]
    return element("figure", headed([head, "files"], rows, (1,)))


def _histogram(label: str, values: Sequence[float]) -> Markup:
    """Counts in bins of equal width, up to the 99th percentile; what lies beyond is in the last."""
    data = np.asarray(values, dtype=np.float64)
    low, high = float(data.min()), float(np.percentile(data, 99, method="higher"))
    if high <= low:
        return element("figure", element("h3", label), element("p", f"all {low:g}"))
    counts, edges = np.histogram(np.minimum(data, high), BINS, (low, high))
    wide = WIDTH / BINS
    bars = []
    for i, count in enumerate(counts.tolist()):
        tall = (FLOOR - 8) * count / int(counts.max())
        above = " and more" if i == BINS - 1 and data.max() > high else ""
        told = f"{edges[i]:.4g} to {edges[i + 1]:.4g}{above}: {count:,} files"
        place = {"x": i * wide + 1, "y": FLOOR - tall, "width": wide - 2, "height": tall}
        bars.append(element("rect", element("title", told), **place, style="fill:var(--c0)"))
    ends = [
        element("text", f"{value:.4g}", x=x, y=FLOOR + 16, text_anchor=anchor)
        for value, x, anchor in ((low, 0.0, "start"), (high, WIDTH, "end"))
    ]
    floor = element("line", x1=0, y1=FLOOR, x2=WIDTH, y2=FLOOR, class_="grid")
    box = f"0 0 {WIDTH:g} {HEIGHT:g}"
    told = f"histogram of {label}"
    drawn = element(
        "svg", *bars, floor, *ends, viewBox=box, role="img", aria_label=told, class_="plot"
    )
    return element("figure", element("h3", label), drawn)


def _classes(tally: Tally) -> Markup:
    most = max((tally.count(i) for i in range(len(tally.classes))), default=0)
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            element("td", _bar(tally.count(i) / max(1, most)), class_="barred"),
            element("td", f"{tally.usable[i, 'train']:,}", class_="n"),
            element("td", f"{tally.usable[i, 'val']:,}", class_="n"),
            element("td", f"{tally.unusable[i]:,}", class_="n"),
            element("td", f"{tally.seconds[i] / 60:,.1f}", class_="n"),
        )
        for i, name in enumerate(tally.classes)
    ]
    heads = ["class", "", "train", "val", "unusable", "minutes"]
    table = element("div", headed(heads, rows, (2, 3, 4, 5)), class_="classes")
    if len(rows) > CLASSES:
        table = element("details", element("summary", f"all {len(rows):,}"), table, class_="more")
    return section("Videos of each class", None, table)


def _time(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds > 7200 else f"{seconds / 60:,.1f} minutes"


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count > 1e9 else f"{count / 1e6:,.1f} MB"


def _bar(share: float) -> Markup:
    return element("div", element("i"), class_="bar", style=f"--v:{100 * share:.2f}%")

"""Our own lists: CSV and JSON lines with the same fields, to read and to write.

path (from the folder of the list, or an address), label (a class name), and if need be split (train
or val), start and end (seconds in the file), pictures and rate (of numbered pictures, whose path is
folder/img_{:05d}.jpg). A video with several labels has `labels` instead: "name start end;name", or
in JSON [["name", start, end], ["name"]].
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..files import replacing
from ..samples import Action, Sample, is_address
from .rows import Listed, Listing, Row, at, number, side_of, span

FIELDS = ("path", "label", "labels", "split", "start", "end", "pictures", "rate")


def own_csv(listed: Listed) -> Listing:
    """A CSV with the header path,label[,split][,start,end] or path,labels[,...]."""
    return Listing([_row(listed, line, cells) for line, cells in listed.records()])


def own_jsonl(listed: Listed) -> Listing:
    """One JSON object with the same fields on each line."""
    rows = []
    for line, text in listed.lines():
        try:
            values = json.loads(text)
        except ValueError as error:
            raise at(listed.address, line, f"it is no JSON ({error})") from None
        if not isinstance(values, dict):
            raise at(listed.address, line, "it is no JSON object with path and label")
        cells = {str(k).lower(): "" if v is None else v for k, v in values.items()}
        rows.append(_row(listed, line, cells))
    return Listing(rows)


def write_csv(
    path: Path,
    classes: Sequence[str],
    samples: Iterable[tuple[str, Sample]],
    columns: Sequence[str] = FIELDS,
) -> int:
    """Write (side, sample) pairs as a list of our own, whole or not at all -> their number.

    columns: those of FIELDS to write, see `columns_of`. Paths are seen from the list's folder.

    Raises `UserError` if it cannot be written.
    """
    count = 0
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for side, sample in samples:
            writer.writerow(_cells(sample, side, classes, path.parent))
            count += 1
    return count


def columns_of(samples: Sequence[Sample], several: bool) -> list[str]:
    """The columns that say all of these samples; several: whether one may have many labels."""
    used = {"path", "labels" if several else "label", "split"}
    if any(s.start > 0 or s.end < math.inf for s in samples):
        used |= {"start", "end"}
    if any(s.pictures for s in samples):
        used |= {"pictures", "rate"}
    return [name for name in FIELDS if name in used]


def _row(listed: Listed, line: int, cells: dict[str, Any]) -> Row:
    def cell(name: str) -> str:
        value = cells.get(name, "")
        return value.strip() if isinstance(value, str) else str(value)

    if not cell("path"):
        raise at(listed.address, line, "it has no path")
    several = "labels" in cells
    if not several and not cell("label"):
        raise at(listed.address, line, "it has no label")
    start, end = span(listed.address, line, cell("start"), cell("end"))
    pictures = number(listed.address, line, cell("pictures") or "0", "number of pictures")
    rate = cell("rate")
    return Row(
        listed.address,
        line,
        cell("path"),
        label=cell("label"),
        actions=tuple(_actions(listed, line, cells["labels"])) if several else None,
        side=side_of(listed.address, line, cell("split")),
        start=start,
        end=end,
        pictures=int(pictures),
        rate=number(listed.address, line, rate, "rate") if rate else None,
    )


def _actions(
    listed: Listed, line: int, value: str | list[Any]
) -> Iterator[tuple[str, float, float]]:
    parts: Iterable[Any] = value.split(";") if isinstance(value, str) else value
    for part in parts:
        words = part.rsplit(None, 2) if isinstance(part, str) else [str(word) for word in part]
        if isinstance(part, str) and not _is_timed(words):
            words = [part.strip()]
        if words and words[0]:
            name, start, end = [*words, "", ""][:3]
            yield (name, *span(listed.address, line, start, end))


def _is_timed(words: Sequence[str]) -> bool:
    """Whether it is a name and two numbers."""
    try:
        return len(words) == 3 and all(not math.isnan(float(word)) for word in words[1:])
    except ValueError:
        return False


def _cells(sample: Sample, side: str, classes: Sequence[str], folder: Path) -> dict[str, Any]:
    path = sample.path
    return {
        "path": path if is_address(path) else Path(os.path.relpath(path, folder)).as_posix(),
        "label": classes[sample.label] if sample.label >= 0 else "",
        "labels": ";".join(_action(action, classes) for action in sample.seen),
        "split": side,
        "start": _seconds(sample.start) if sample.start > 0 else "",
        "end": _seconds(sample.end) if sample.end < math.inf else "",
        "pictures": sample.pictures or "",
        "rate": _seconds(sample.rate) if sample.pictures else "",
    }


def _action(action: Action, classes: Sequence[str]) -> str:
    name = classes[action.label]
    whole = action.start <= 0 and action.end == math.inf and not _is_timed(name.rsplit(None, 2))
    return name if whole else f"{name} {_seconds(action.start)} {_seconds(action.end)}"


def _seconds(time: float) -> str:
    return str(time).removesuffix(".0")

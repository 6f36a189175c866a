"""Our own lists: CSV and JSON lines with the same fields, to read and to write.

path (from the folder of the list, or an address), label (a class name), and if need be split (train
or val), start and end (seconds in the file), pictures and rate (of numbered pictures, whose path is
folder/img_{:05d}.jpg). A video with several labels has `labels` instead: "name start end;name", or
in JSON [["name", start, end], ["name"]].
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from ..samples import Action, Sample, Split, inside
from .rows import TRAIN, VAL, Listed, Listing, Row, at, number, side_of, span

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


def to_csv(split: Split, folder: str) -> str:
    """The split as a list of our own that lies in `folder`."""
    sides = ((TRAIN, split.train), (VAL, split.val))
    samples = [(side, sample) for side, part in sides for sample in part]
    used = {"path", "labels" if split.several else "label", "split"}
    if any(s.start > 0 or s.end < math.inf for _, s in samples):
        used |= {"start", "end"}
    if any(s.pictures for _, s in samples):
        used |= {"pictures", "rate"}
    columns = [name for name in FIELDS if name in used]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_cells(sample, side, split.classes, folder) for side, sample in samples)
    return text.getvalue()


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
        if isinstance(part, str) and not (len(words) == 3 and _is_time(words[1], words[2])):
            words = [part.strip()]
        if words and words[0]:
            name, start, end = [*words, "", ""][:3]
            yield (name, *span(listed.address, line, start, end))


def _is_time(start: str, end: str) -> bool:
    try:
        return float(start) < float(end)
    except ValueError:
        return False


def _cells(sample: Sample, side: str, classes: tuple[str, ...], folder: str) -> dict[str, Any]:
    return {
        "path": inside(sample.path, folder),
        "label": classes[sample.label],
        "labels": ";".join(_action(action, classes) for action in sample.actions),
        "split": side,
        "start": _seconds(sample.start) if sample.start > 0 else "",
        "end": _seconds(sample.end) if sample.end < math.inf else "",
        "pictures": sample.pictures or "",
        "rate": f"{sample.rate:g}" if sample.pictures else "",
    }


def _action(action: Action, classes: tuple[str, ...]) -> str:
    name = classes[action.label]
    whole = action.start <= 0 and action.end == math.inf
    return name if whole else f"{name} {_seconds(action.start)} {_seconds(action.end)}"


def _seconds(time: float) -> str:
    return str(time).removesuffix(".0")

"""The list of what can be used, which `train` and `test` read."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..files import replacing
from ..remote import is_address
from ..samples import Action, Sample
from .copies import class_names
from .reports import Checked


def write_clean(path: Path, checked: Checked) -> int:
    """Write the usable videos of a checked data set as CSV, whole or not at all -> their number.

    Columns: path, seen from the list's folder; label, or labels as "class start end;..." where
    a video may have several; split; start and end, or pictures and rate, where there are any.

    Raises `UserError` if it cannot be written.
    """
    samples = [entry.sample for entry in checked.entries]
    columns = ["path", "labels" if checked.split.several else "label", "split"]
    if any(s.start > 0 or s.end < math.inf for s in samples):
        columns += ["start", "end"]
    if any(s.pictures for s in samples):
        columns += ["pictures", "rate"]
    count = 0
    with replacing(path) as name, name.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        rows.writeheader()
        for row in _rows(checked, path.parent):
            rows.writerow(row)
            count += 1
    return count


def _rows(checked: Checked, folder: Path) -> Iterator[dict[str, object]]:
    classes = checked.split.classes
    for entry, report in zip(checked.entries, checked, strict=True):
        sample = entry.sample
        good = all(-1 <= label < len(classes) for label in sample.labels)
        if report.usable and entry.side and good:
            yield {
                "path": _seen_from(folder, sample.path),
                "label": class_names(sample, classes),
                "labels": ";".join(_action(action, classes) for action in _actions(sample)),
                "split": entry.side,
                "start": f"{sample.start:g}" if sample.start > 0 else "",
                "end": _end(sample.end),
                "pictures": sample.pictures or "",
                "rate": f"{sample.rate:g}" if sample.pictures else "",
            }


def _actions(sample: Sample) -> Sequence[Action]:
    return sample.actions or ([Action(sample.label)] if sample.label >= 0 else [])


def _action(action: Action, classes: Sequence[str]) -> str:
    times = f" {action.start:g} {_end(action.end)}" if action.end < math.inf else ""
    return classes[action.label] + times


def _end(end: float) -> str:
    return f"{end:g}" if end < math.inf else ""


def _seen_from(folder: Path, path: str) -> str:
    return path if is_address(path) else Path(os.path.relpath(path, folder)).as_posix()

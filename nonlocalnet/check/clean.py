"""The list of what can be used, which `train` and `test` read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..listings.own import columns_of, write_csv
from ..samples import Sample
from .reports import Checked


def write_clean(path: Path, checked: Checked) -> int:
    """Write the usable videos of a checked data set as a list of our own -> their number.

    Raises `UserError` if it cannot be written.
    """
    columns = columns_of([entry.sample for entry in checked.entries], checked.split.several)
    return write_csv(path, checked.split.classes, _usable(checked), columns)


def _usable(checked: Checked) -> Iterator[tuple[str, Sample]]:
    count = len(checked.split.classes)
    for entry, report in zip(checked.entries, checked, strict=True):
        good = all(-1 <= label < count for label in entry.sample.labels)
        if report.usable and entry.side and good:
            yield checked.split.listed(entry.side), entry.sample

"""The names of classes that a list only numbers, and their order."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from ..errors import UserError
from ..labels import LISTS, class_names, plain
from .rows import Listed, Listing, Row, absolute, at, exists, separator

BESIDE = ("category.txt", "label_map.txt", "classInd.txt")  # TSM, MMAction2, UCF101


def name_classes(listings: Sequence[Listing], given: str | None) -> tuple[tuple[str, ...], str]:
    """(the names in the order of the labels, in words where they are from).

    given: what --classes says: a file, or a key of `labels.LISTS`. Else what the list says, the
    names it uses in the alphabet's order, a file beside it, its folders, or "class 17".
    """
    if given is not None:
        return (class_names(given) if given in LISTS else read_classes(given)), f"from {given}"
    said = next((listing.classes for listing in listings if listing.classes), ())
    if said:
        return said, "as the list orders them"
    rows = [row for listing in listings for row in listing.rows]
    labels = {label for row in rows for label in labels_of(row)}
    names = sorted({label for label in labels if isinstance(label, str)}, key=_natural)
    if names:
        return tuple(names), "in the order of their names"
    count = max((label for label in labels if isinstance(label, int)), default=-1) + 1
    for name in BESIDE:
        file = Listed(absolute(rows[0].file)).beside(name)
        found = read_classes(file.address) if exists(file.address) else ()
        if len(found) >= count:
            return found, f"from {name} beside the list"
    folders = _folders(rows, count)
    if folders:
        return folders, "by the folders of the videos"
    return tuple(f"class {i}" for i in range(count)), "numbers alone; --classes FILE names them"


def labels_of(row: Row) -> list[str | int]:
    """Every label of a row, as it is written."""
    return [row.label] if row.actions is None else [action[0] for action in row.actions]


def index_of(row: Row, label: str | int, numbers: dict[str, int], count: int) -> int:
    """The number of a label. Raises `UserError` for one that is none, naming the line."""
    if isinstance(label, str):
        known = numbers.get(label, numbers.get(plain(label)))
        if known is not None:
            return known
    if isinstance(label, int) or (label.isdigit() and count):
        if 0 <= int(label) < count:
            return int(label)
        raise at(
            row.file,
            row.line,
            f"label {label} is out of range: the classes are 0 to {count - 1}",
        )
    raise at(row.file, row.line, f"{label!r} is none of the {count} classes")


def read_classes(address: str) -> tuple[str, ...]:
    """Class names from a file: one on a line, or numbered; or JSON, a list or {name: number}.

    Raises `UserError` for numbers that leave one out.
    """
    file = Listed(address)
    text = file.text().strip()
    if text[:1] in ("[", "{"):
        return _from_json(address, text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and re.fullmatch(r"id[,;\t]name", lines[0].lower()):
        lines = [" ".join(row) for row in csv.reader(lines[1:], delimiter=separator(lines[0]))]
    numbered = [re.fullmatch(r"c?(\d+)[\s,;]+(\S.*)", line) for line in lines]
    if lines and all(numbered):
        return _in_order(address, {int(m[1]): m[2] for m in numbered if m})
    if not lines:
        raise UserError(f"{address} names no classes; expected one on each line")
    return tuple(lines)


def _from_json(address: str, text: str) -> tuple[str, ...]:
    try:
        values = json.loads(text)
        if isinstance(values, list):
            return tuple(map(str, values))
        pairs = [(k, v) if str(k).isdigit() else (v, k) for k, v in values.items()]
        return _in_order(address, {int(i): str(name).strip('"') for i, name in pairs})
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{address} names no classes ({error}); expected a JSON list or {{name: number}}"
        ) from error


def _in_order(address: str, names: dict[int, str]) -> tuple[str, ...]:
    first = min(names)
    if first not in (0, 1) or sorted(names) != list(range(first, first + len(names))):
        raise UserError(
            f"{address}: its {len(names)} classes are numbered {first} to {max(names)}; expected"
            " all numbers from 0 or 1"
        )
    return tuple(names[i] for i in sorted(names))


def _folders(rows: Sequence[Row], count: int) -> tuple[str, ...]:
    """The folder that holds each class's videos, if each has one and no other."""
    names: dict[int, str] = {}
    for row in rows:
        folder = PurePosixPath(row.path).parent.name
        if not folder or names.setdefault(int(row.label), folder) != folder:
            return ()
    if len(names) != count or len(set(names.values())) != count:
        return ()
    return tuple(names[i] for i in range(count))


def _natural(name: str) -> tuple[int, str]:
    number = re.fullmatch(r"(?:class )?(\d+)", name)  # "class 17" of a list of numbers alone
    return (int(number[1]) if number else 1 << 62, name)

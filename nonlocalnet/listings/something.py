"""Something-Something v1 and v2 and Jester as released, with videos or folders of pictures."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath

from ..errors import UserError
from .rows import Listed, Listing, Row, at, exists

FRAMES_A_SECOND = 12.0  # of the pictures released for version 1 and for Jester
LABELS_JSON = ("labels.json", "something-something-v2-labels.json")


def something_json(listed: Listed) -> Listing:
    """Version 2: [{"id": "78687", "template": "Holding [something]", ...}, ...], videos id.webm.

    The classes and their order are those of labels.json beside it, {"Holding something": "0", ...}.
    """
    rows = []
    try:
        for index, video in enumerate(json.loads(listed.text()), 1):
            if "template" not in video:
                raise UserError(
                    f"{listed.address}: video {video['id']} has no template, so this is the list of"
                    " test videos, whose labels were not released"
                )
            label = re.sub(r"[\[\]]", "", video["template"])
            name = str(video["id"])
            rows.append(Row(listed.address, index, names=(name,), label=label, source=name))
    except (ValueError, KeyError, TypeError) as error:
        raise at(
            listed.address, 1, f"this is not Something-Something's JSON ({type(error).__name__})"
        ) from None
    beside = next((f for f in map(listed.beside, LABELS_JSON) if exists(f.address)), None)
    classes = _ordered(beside) if beside else ()
    return Listing(rows, classes, "something-v2")


def _ordered(labels: Listed) -> tuple[str, ...]:
    try:
        numbers = {int(number): str(name) for name, number in json.loads(labels.text()).items()}
        return tuple(numbers[i] for i in range(len(numbers)))
    except (ValueError, KeyError, AttributeError):
        raise UserError(
            f'{labels.address}: expected {{"class name": "number", ...}}, numbers from 0'
        ) from None


def something_csv(listed: Listed) -> Listing:
    """Version 1 and Jester: lines id;class name, pictures in a folder id/.

    The order of the classes is that of the ...-labels.csv beside it, one on a line; else the
    alphabet's (TSM).
    """
    rows = []
    for line, text in listed.lines():
        name, mark, label = text.partition(";")
        if not mark or not label or not name:
            raise at(listed.address, line, f"expected id;class name, found {text!r}")
        rows.append(Row(listed.address, line, names=(name,), label=label, source=name))
    stem = re.sub(r"-(train|validation|test)$", "", PurePosixPath(listed.name).stem)
    labels = listed.beside(f"{stem}-labels.csv")
    classes = tuple(text for _, text in labels.lines()) if exists(labels.address) else ()
    count = len(classes or {row.label for row in rows})
    dataset = {174: "something-v1", 27: "jester"}.get(count, "")
    return Listing(rows, classes, dataset, FRAMES_A_SECOND)

"""Charades: many labels to a video, each with its seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import PurePosixPath

from .pictures import fill, template_of
from .rows import Listed, Listing, Row, at, exists, number

CLASSES = 157
FRAMES_A_SECOND = 24.0  # of the pictures released
NAMES = "Charades_v1_classes.txt"


def charades_csv(listed: Listed) -> Listing:
    """id,...,actions,length with actions "c092 11.90 21.20;c147 0.00 12.60"; videos id.mp4."""
    rows = []
    for line, cells in listed.records():
        actions = tuple(_actions(listed, line, cells["actions"]))
        name = cells["id"]
        rows.append(Row(listed.address, line, names=(name,), actions=actions, source=name))
    return _listing(listed, rows)


def _actions(listed: Listed, line: int, text: str) -> Iterator[tuple[int, float, float]]:
    for part in filter(None, text.split(";")):
        words = part.split()
        if len(words) != 3 or not re.fullmatch(r"c\d{3}", words[0]):
            raise at(listed.address, line, f"the action is {part!r}; expected c092 11.90 21.20")
        times = sorted(number(listed.address, line, word, "time") for word in words[1:])
        yield int(words[0][1:]), times[0], times[1]


def charades_frames(listed: Listed) -> Listing:
    """PySlowFast's frame lists: one line per picture, with the numbers of the labels seen in it.

    original_vido_id video_id frame_id path labels; each lasts from its first picture to its last.
    """
    rows = []
    for name, lines in groupby(_pictures(listed), key=lambda picture: picture[1]):
        pictures = list(lines)
        first = pictures[0]
        folder, _, file = first[2].rpartition("/")
        inside = PurePosixPath(folder).name
        template = template_of([file], inside)
        if template is None:
            raise at(listed.address, first[0], f"{first[2]} is no numbered picture")
        rows.append(
            Row(
                listed.address,
                first[0],
                f"{folder}/{fill(template, inside)}",
                actions=tuple(_runs([labels for *_, labels in pictures])),
                pictures=len(pictures),
                source=name,
            )
        )
    if not any(row.actions for row in rows):
        raise at(
            listed.address,
            1,
            "no picture has a label; give the data set's own list, with --root for the pictures",
        )
    return _listing(listed, rows)


def _pictures(listed: Listed) -> Iterator[tuple[int, str, str, frozenset[int]]]:
    """(line, video, path of the picture, labels)."""
    for line, text in listed.lines():
        cells = text.split()
        if len(cells) != 5:
            raise at(
                listed.address,
                line,
                f"it has {len(cells)} columns; expected 5: original_vido_id video_id frame_id path"
                " labels",
            )
        if line == 1:
            continue
        labels = cells[4].strip('"')
        try:
            yield line, cells[0], cells[3], frozenset(map(int, filter(None, labels.split(","))))
        except ValueError:
            raise at(
                listed.address, line, f"the labels are {labels!r}; expected numbers such as 3,17"
            ) from None


def _runs(pictures: list[frozenset[int]]) -> Iterator[tuple[int, float, float]]:
    """(label, seconds of its first picture, of its last) of each unbroken stretch."""
    began: dict[int, int] = {}
    for i, labels in enumerate([*pictures, frozenset[int]()]):
        for label in sorted(began.keys() - labels):
            yield label, began.pop(label) / FRAMES_A_SECOND, (i - 1) / FRAMES_A_SECOND
        for label in labels - began.keys():
            began[label] = i


def _listing(listed: Listed, rows: list[Row]) -> Listing:
    """With the names of Charades_v1_classes.txt beside the list, "c000 Holding some clothes"."""
    names = listed.beside(NAMES)
    found = [text.partition(" ")[2] for _, text in names.lines()] if exists(names.address) else []
    classes = found or [f"class {i}" for i in range(CLASSES)]
    return Listing(rows, tuple(classes), "charades", FRAMES_A_SECOND)

"""Lists without a header: "path label" and "folder total label", as the training codebases write.

PySlowFast (train.csv) and MMAction2 (..._list_videos.txt) write a path and a number; TSM
(train_videofolder.txt) and MMAction2 (..._list_rawframes.txt) a folder, its pictures, and a number.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..folders import VIDEO_SUFFIXES
from .rows import Listed, Listing, Row, at

EXPECTED = {2: "path and label", 3: "folder, number of pictures and label"}


def path_list(listed: Listed) -> Listing:
    """Lines "path label": a video from the root, and its class as a number from 0."""
    rows = []
    for line, (path, label) in _columns(listed, 2):
        row = Row(listed.address, line, path, label=_label(listed, line, label))
        rows.append(row)
    return Listing(rows)


def frame_list(listed: Listed) -> Listing:
    """Lines "folder total label": a folder of numbered pictures from the root."""
    rows = []
    for line, (path, total, label) in _columns(listed, 3):
        if not total.isdigit() or not int(total):
            raise at(
                listed.address, line, f"the number of pictures is {total!r}; expected 1 or more"
            )
        row = Row(
            listed.address,
            line,
            path.rstrip("/"),
            label=_label(listed, line, label),
            pictures=int(total),
        )
        rows.append(row)
    return Listing(rows)


def split_line(text: str, columns: int) -> list[str]:
    """The columns of a line, from its end, for a path may have spaces; by comma if that is used."""
    cells = text.rsplit(None, columns - 1)
    if len(cells) == columns and _number(cells[-1]):
        return cells
    by_comma = [cell.strip() for cell in text.rsplit(",", columns - 1)]
    return by_comma if len(by_comma) == columns and _number(by_comma[-1]) else cells


def columns_of(text: str) -> int:
    """3 for a line "folder total label", 2 for "path label", else 1."""
    three, two = split_line(text, 3), split_line(text, 2)
    if len(two) < 2 or not _number(two[1]):
        return 1
    return 3 if len(three) == 3 and _number(three[1]) and not is_video(three[0]) else 2


def is_video(path: str) -> bool:
    """By the suffix."""
    dot, suffix = path.rpartition(".")[1:]
    return dot + suffix.lower() in VIDEO_SUFFIXES


def _columns(listed: Listed, columns: int) -> Iterator[tuple[int, list[str]]]:
    for line, text in listed.lines():
        cells = split_line(text, columns)
        if len(cells) != columns:
            raise at(
                listed.address,
                line,
                f"it has {len(cells)} columns; expected {columns}: {EXPECTED[columns]}",
            )
        if columns == 2 and columns_of(text) == 3:
            raise at(
                listed.address,
                line,
                "it has 3 columns, folder, number and label, and the lines before have 2, path and"
                " label; one list is of one kind",
            )
        yield line, cells


def _label(listed: Listed, line: int, text: str) -> int:
    if not _number(text):
        raise at(
            listed.address,
            line,
            f"the label is {text!r}; expected a number from 0 (a list with class names is a CSV"
            " with the header path,label)",
        )
    return int(text)


def _number(text: str) -> bool:
    return text.lstrip("-").isdigit()

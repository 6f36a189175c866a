"""UCF101 and HMDB51: text files that divide the videos in three ways, of which `part` is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from ..errors import UserError
from ..samples import join
from .places import names_in
from .rows import TEST, TRAIN, Listed, Listing, Row, absolute, at, parent

UCF_LIST = re.compile(r"(train|test)list0([123])\.txt")
HMDB_LIST = re.compile(r"(.+)_test_split([123])\.txt")


def ucf101(listed: Listed) -> Listing:
    """classInd.txt, trainlist0N.txt and testlist0N.txt; labels are counted from 1.

    listed: their folder, for division `part`; or one of the lists, for its own side and number.
    """
    match = UCF_LIST.fullmatch(listed.name)
    folder = parent(absolute(listed.address)) if match else absolute(listed.address)
    part = int(match[2]) if match else listed.part
    rows = []
    classes = _classes(_inside(folder, "classInd.txt"))
    for side in (match[1],) if match else (TRAIN, TEST):
        file = _inside(folder, f"{side}list0{part}.txt")
        for line, text in file.lines():
            path = PurePosixPath(text.split()[0])
            if path.parent.name not in classes:
                raise at(file.address, line, f"{path.parent.name!r} is no class of classInd.txt")
            rows.append(
                Row(file.address, line, names=(path.stem,), label=path.parent.name, side=side)
            )
    return Listing(rows, classes, f"ucf101-{part}", 25.0)


def _classes(file: Listed) -> tuple[str, ...]:
    names = {}
    for line, text in file.lines():
        number, _, name = text.partition(" ")
        if not number.isdigit():
            raise at(file.address, line, f"expected a number and a class, found {text!r}")
        names[int(number)] = name.strip()
    if sorted(names) != list(range(1, len(names) + 1)):
        raise UserError(f"{file.address}: its numbers are not 1 to {len(names)}")
    return tuple(names[i] for i in sorted(names))


def hmdb51(listed: Listed) -> Listing:
    """A folder of CLASS_test_splitN.txt: lines "video.avi 1" to train on, 2 to test on, 0 not used.

    listed: the folder, for division `part`; or one of its files, for its number.
    """
    match = HMDB_LIST.fullmatch(listed.name)
    folder = parent(absolute(listed.address)) if match else absolute(listed.address)
    part = int(match[2]) if match else listed.part
    lists = {found[1]: name for name in names_in(folder) if (found := _of(name, part))}
    if not lists:
        raise UserError(f"{folder} has no ..._test_split{part}.txt")
    classes = tuple(sorted(lists))
    rows = [row for name in classes for row in _hmdb_rows(_inside(folder, lists[name]), name)]
    return Listing(rows, classes, f"hmdb51-{part}")


def _inside(folder: str, name: str) -> Listed:
    return Listed(join(folder, name))


def _of(name: str, part: int) -> re.Match[str] | None:
    match = HMDB_LIST.fullmatch(name)
    return match if match and int(match[2]) == part else None


def _hmdb_rows(file: Listed, label: str) -> Iterator[Row]:
    for line, text in file.lines():
        name, _, flag = text.rpartition(" ")
        if flag not in ("0", "1", "2") or not name:
            raise at(file.address, line, f"expected a video and 0, 1 or 2, found {text!r}")
        if flag != "0":
            side = TRAIN if flag == "1" else TEST
            stem = PurePosixPath(name.strip()).stem
            yield Row(file.address, line, names=(stem,), label=label, side=side)

"""Which files are the same, and which look alike; arrays of a few bytes per file, no reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..folders import some
from ..samples import Sample, inside
from .fingerprint import PARTS, alike, to_row
from .journal import key_of
from .probe import Finding
from .remarks import Remark


@dataclass(frozen=True)
class Entry:
    """A file that is to be checked: a sample and its part, "train" or "val".

    What lies among the videos and can be none is in neither, with the label -1.
    """

    sample: Sample
    side: str


@dataclass
class Contents:
    """What the files hold, in their order: 60 bytes for each."""

    count: int
    digests: NDArray[np.uint64] = field(init=False)
    looks: NDArray[np.uint64] = field(init=False)
    seconds: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.digests = np.zeros((self.count, 2), np.uint64)
        self.looks = np.zeros((self.count, len(PARTS)), np.uint64)
        self.seconds = np.zeros(self.count, np.float32)

    def put(self, number: int, found: Finding) -> None:
        if found.digest:
            self.digests[number] = int(found.digest[:16], 16), int(found.digest[16:], 16)
        if found.look and found.info:
            self.looks[number], self.seconds[number] = to_row(found.look), found.info.duration


FEW = 8  # that look alike, of a crowd that does
ENDS = 16  # of a crowd of copies, its first and last


@dataclass(frozen=True)
class Kin:
    """For a file that has any: those of the same bytes, itself too, and `FEW` that look alike."""

    same: Mapping[int, Sequence[int]]
    alike: Mapping[int, Sequence[int]]


def find_kin(contents: Contents) -> Kin:
    """Which files are the same and which look alike."""
    same: dict[int, list[int]] = {}
    order = np.lexsort(contents.digests.T)
    ordered = contents.digests[order]
    differ = np.flatnonzero((ordered[1:] != ordered[:-1]).any(1)) + 1
    for group in np.split(order, differ):
        if len(group) > 1 and contents.digests[group[0]].any():
            members = sorted(group.tolist())
            same.update(dict.fromkeys(members, members))
    like: dict[int, list[int]] = {}
    for a, b in alike(contents.looks, contents.seconds).tolist():
        if not same.get(a) or same.get(a) is not same.get(b):
            for one, other in ((a, b), (b, a)):
                mine = like.setdefault(one, [])
                # the last is kept too: training files come first, and the other side tells most
                mine[FEW - 1 :] = [other]
    return Kin(same, like)


def about_kin(
    number: int, entries: Sequence[Entry], classes: Sequence[str], kin: Kin, root: str
) -> list[Remark]:
    """What others that are the same or alike give cause to say of a file."""
    said = []
    mine = entries[number]
    members = kin.same.get(number, ())
    if len(members) > 2 * ENDS:  # training files come first, so both sides are at the ends
        members = [*members[:ENDS], *members[-ENDS:]]
    same = [entries[i] for i in members if i != number]
    across = [e for e in same if e.side != mine.side]
    other = [e for e in same if e.sample.labels != mine.sample.labels]
    if across:
        text = f"the same file is on the other side of the split: {_names(across, root)}"
        said.append(Remark("leak", text))
    if other:
        names = some(sorted({class_names(e.sample, classes) for e in other}))
        text = f"the same file is also of class {names}: {_names(other, root)}"
        said.append(Remark("two", text))
    if same and not said:
        said.append(Remark("copy", f"the same file again: {_names(same, root)}"))
    like = [entries[i] for i in kin.alike.get(number, ())]
    if like:
        said.append(Remark("alike", f"looks like {_names(like, root)}{_where(mine, like)}"))
    return said


def _where(mine: Entry, others: Sequence[Entry]) -> str:
    """What would make equal looks matter."""
    told = []
    if any(e.side != mine.side for e in others):
        told.append("on the other side of the split")
    if any(e.sample.labels != mine.sample.labels for e in others):
        told.append("in another class")
    return f" ({' and '.join(told)})" if told else ""


def class_names(sample: Sample, classes: Sequence[str]) -> str:
    """The classes of a sample; empty for none."""
    return ", ".join(classes[i] for i in sample.labels if 0 <= i < len(classes))


def _names(entries: Sequence[Entry], root: str) -> str:
    return some([inside(key_of(e.sample), root) for e in entries])

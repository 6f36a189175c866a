"""What can be told about labels without looking at a picture."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

from ..folders import some
from .copies import Entry
from .remarks import Remark

UNEVEN = 10  # times as many videos


class Tally:
    """Usable videos and recordings of every class, counted as files go by."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.usable: Counter[tuple[int, str]] = Counter()
        self.unusable: Counter[int] = Counter()
        self.seconds: defaultdict[int, float] = defaultdict(float)
        self.wrong: list[str] = []  # paths of files whose label is no class
        self._recordings: defaultdict[int, set[str]] = defaultdict(set)

    def add(self, entry: Entry, usable: bool, seconds: float) -> None:
        sample = entry.sample
        if not all(-1 <= label < len(self.classes) for label in sample.labels):
            self.wrong.append(sample.path)
            return
        for label in sample.labels:
            if label < 0:  # one of several-label data that shows nothing, or no video
                continue
            if not usable:
                self.unusable[label] += 1
                continue
            self.usable[label, entry.side] += 1
            self.seconds[label] += seconds
            self._recordings[label].add(sample.source)

    def count(self, label: int) -> int:
        """Usable videos of a class."""
        return self.usable[label, "train"] + self.usable[label, "val"]

    def remarks(self) -> list[Remark]:
        """What is wrong or doubtful with the classes."""
        said = [*_same_names(self.classes), *self._empty_sides()]
        if self.wrong:
            text = f"{len(self.wrong)} files have labels that are no class: {some(self.wrong)}"
            said.append(Remark("label", text))
        single = [
            name
            for i, name in enumerate(self.classes)
            if len(self._recordings[i]) == 1 and self.count(i)
        ]
        if single:
            text = f"one recording only: {some(single)}; whether they are learned cannot be tested"
            said.append(Remark("single", text))
        return said + self._uneven()

    def _empty_sides(self) -> list[Remark]:
        said = []
        numbers = range(len(self.classes))
        untrained = [
            self.classes[i]
            for i in numbers
            if not self.usable[i, "train"] and self.usable[i, "val"]
        ]
        if untrained:
            text = f"no usable video to train on, though some to test: {some(untrained)}"
            said.append(Remark("untrained", text))
        untested = [
            self.classes[i]
            for i in numbers
            if not self.usable[i, "val"] and self.usable[i, "train"]
        ]
        if untested:
            said.append(Remark("untested", f"no usable video to test on: {some(untested)}"))
        return said

    def _uneven(self) -> list[Remark]:
        trained = [(self.usable[i, "train"], name) for i, name in enumerate(self.classes)]
        trained = [pair for pair in trained if pair[0]]
        if len(trained) < 2 or max(trained)[0] < UNEVEN * min(trained)[0]:
            return []
        (few, rare), (many, frequent) = min(trained), max(trained)
        text = f"{frequent} has {many:,} training videos, {rare} has {few:,}"
        return [Remark("uneven", text)]


def _same_names(classes: Sequence[str]) -> list[Remark]:
    """Names that differ in case, blanks, hyphens, accents' encoding and the like only."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        plain = unicodedata.normalize("NFKC", name).casefold()
        groups[re.sub(r"[\W_]+", "", plain) or name].append(name)
    return [
        Remark("names", f"these classes may be one: {', '.join(map(repr, names))}")
        for names in groups.values()
        if len(names) > 1
    ]

"""A data set checked: each file's report, streamed from the journal, and remarks on the classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..folders import VIDEO_SUFFIXES, read_folder, writable_name
from ..samples import Sample, Split
from .copies import Contents, Entry, Kin, about_kin, class_names, find_kin
from .journal import Journal, is_current, key_of, stamp
from .labels import Tally
from .probe import Finding
from .remarks import Remark, about_file
from .workers import examine


@dataclass(frozen=True)
class FileReport:
    """One file, its place in the data set and what was found.

    name: the path and, where only a part of the file is meant, which one.
    class_name, side: as the split has them; both are empty for what lies among the videos and can
        be none.
    remarks: what is wrong or doubtful.
    """

    path: str
    name: str
    class_name: str
    side: str  # "train" or "val"
    found: Finding
    remarks: tuple[Remark, ...] = ()

    @property
    def usable(self) -> bool:
        return not self.found.reason

    def to_dict(self) -> dict[str, Any]:
        """All of it in one dictionary of plain values, for JSON."""
        place = {
            "path": self.path,
            "name": self.name,
            "class_name": self.class_name,
            "side": self.side,
        }
        said = [{"kind": r.kind, "text": r.text} for r in self.remarks]
        return {**place, "usable": self.usable, **self.found.to_dict(), "remarks": said}


class Checked:
    """The reports of a checked data set: an iterable that reads them from the journal, in order.

    Training files come first, then validation, then what can be no video. tally: counts per class.
    remarks: on classes and labels. doubts: further remarks on files, by their number, for whoever
    has a network to ask.
    """

    def __init__(
        self, split: Split, entries: list[Entry], journal: Journal, shortest: float
    ) -> None:
        self.split, self.entries = split, entries
        self.tally = Tally(split.classes)
        self.doubts: dict[int, Remark] = {}
        self._journal, self._shortest = journal, shortest
        contents = Contents(len(entries))
        for number, entry in enumerate(entries):
            found = self._found(entry)
            seconds = found.info.duration if found.info else 0.0
            self.tally.add(entry, not found.reason, seconds)
            contents.put(number, found)
        self._kin: Kin = find_kin(contents)
        self.remarks: tuple[Remark, ...] = tuple(self.tally.remarks())

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[FileReport]:
        root, classes = self.split.root, self.split.classes
        for number, entry in enumerate(self.entries):
            sample, found = entry.sample, self._found(entry)
            remarks = about_file(sample.path, found, self._shortest)
            remarks += about_kin(number, self.entries, classes, self._kin, root)
            remarks += [self.doubts[number]] if number in self.doubts else []
            label = class_names(sample, classes)
            name = key_of(sample)
            yield FileReport(sample.path, name, label, entry.side, found, tuple(remarks))

    def _found(self, entry: Entry) -> Finding:
        return self._journal.get(key_of(entry.sample)) or Finding(reason="it was not looked at")


def checking(
    split: Split,
    journal: Journal,
    workers: int = 2,
    seconds: float = 60.0,
    shortest: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Decode every video of a split to its end, in `workers` processes; go on where it was killed.

    journal: what was found so far. Files that have not changed since are not decoded again; the
        others, and each as soon as it is done, are written to it.
    seconds: time limit per file. The process of a file that takes longer is ended; the file counts
        as usable if it could be opened and its first frame decoded by then.
    shortest: videos of less than this many seconds are remarked on.
    progress: called with (files done, files in all).

    Memory holds the split and half a kilobyte per file. Raises `UserError` for less than one
    process or no time at all, or if the journal cannot be written.
    """
    if workers < 1:
        raise UserError(f"files are checked by 1 process or more, not by {workers}")
    if not seconds > 0:
        raise UserError(f"the time limit per file must be above 0 seconds, not {seconds:g}")
    entries = [Entry(s, "train") for s in split.train] + [Entry(s, "val") for s in split.val]
    entries += [Entry(Sample(path, -1, ""), "") for path in _no_videos(split)]
    # a file may be in a list twice
    fresh = {
        key_of(e.sample): e.sample for e in entries if not _is_known(journal, e.sample, seconds)
    }
    done = len(entries) - len(fresh)
    if progress is not None:
        progress(done, len(entries))
    stamps: dict[str, tuple[int, int]] = {}

    def stamped() -> Iterator[Sample]:
        for key, sample in fresh.items():
            stamps[key] = stamp(sample)  # before it is opened: it may change meanwhile
            yield sample

    with closing(examine(stamped(), workers, seconds)) as files:
        for sample, found in files:
            key = key_of(sample)
            size, changed = stamps.pop(key)
            found = _refused(sample.path, found)
            journal.add(key, replace(found, bytes=size, time=changed))
            done += 1
            if progress is not None:
                progress(done, len(entries))
    return Checked(split, entries, journal, shortest)


def check_files(
    folder: str | os.PathLike[str] | Split,
    workers: int = 2,
    seconds: float = 60.0,
    shortest: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[FileReport]:
    """Decode every video of a data folder to its end and report on each; see `checking`.

    Raises `UserError` as `read_folder` and `checking` do.
    """
    split = folder if isinstance(folder, Split) else read_folder(folder)
    with Journal(None) as journal:
        return list(checking(split, journal, workers, seconds, shortest, progress))


def _is_known(journal: Journal, sample: Sample, seconds: float) -> bool:
    found = journal.get(key_of(sample))
    return found is not None and is_current(found, sample, seconds)


def _refused(path: str, found: Finding) -> Finding:
    """What no list can name cannot be used, however well it can be decoded."""
    if writable_name(path) is None:
        return found
    return replace(found, reason="this name is not valid UTF-8; rename it")


def _no_videos(split: Split) -> Iterator[str]:
    """What is named like a video below the split's folder and is no file."""
    if not split.root:
        return
    for folder, folders, files in os.walk(split.root):
        for name in sorted(folders + files):
            path = Path(folder, name)
            if path.suffix.lower() in VIDEO_SUFFIXES and name[0] != "." and not path.is_file():
                yield str(path)
        folders[:] = [n for n in folders if n[0] != "." and Path(n).suffix not in VIDEO_SUFFIXES]

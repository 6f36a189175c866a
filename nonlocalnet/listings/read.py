"""What the user names on the command line -> labelled samples, divided, with what was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path

from ..errors import UserError
from ..folders import divide, note_shared, note_unseen, read_folder, read_test_folder, some
from ..labels import numbering
from ..samples import Action, Sample, Split, inside, is_address
from ..sources import recordings
from .classes import index_of, labels_of, name_classes
from .counts import compare, recognise
from .data import WORDS, Data, as_data
from .formats import FORMATS, detect
from .kinetics import uncut
from .pictures import check_template
from .places import Found, find
from .rows import TEST, TRAIN, VAL, Listed, Listing, Row, absolute


def read_data(data: Data | str | PathLike[str], seed: int = 0, val_fraction: float = 0.2) -> Split:
    """The videos to train and to validate on.

    A folder of class folders gives what `read_folder` gives. A list gives the videos of it that are
    there; which are validated on says the list, or `val`, else whole recordings are drawn as in
    `read_folder`. The notes say what was left out, and compare with the counts of published copies.

    Raises `UserError` for what cannot be read, naming file and line.
    """
    data = as_data(data)
    if is_folder(data):
        _refuse_list_flags(data)
        return read_folder(data.path, seed, val_fraction)
    kind, first, second = _listings(data)
    train, val = _sides(data, first, second)
    listings = [first, second] if second else [first]
    read = _Reader(data, kind, listings)
    notes = [read.words]
    samples = read.samples(train, notes, TRAIN if val else "")
    if not val:
        return divide(read.root, read.classes, samples, seed, val_fraction, notes)
    held = read.samples(val, notes, VAL)
    notes.append(f"{len(samples):,} videos to train on and {len(held):,} to validate on, as listed")
    note_shared(samples, held, notes)
    split = Split(read.classes, samples, held, root=read.root)
    note_unseen(split, notes, "none is here")
    return replace(split, notes=tuple(notes))


def read_test_data(data: Data | str | PathLike[str]) -> Split:
    """Videos to test on, all in `val`: those that `read_data` would validate on, if it is told
    which; else all. Raises `UserError` as `read_data` does.
    """
    data = as_data(data)
    if is_folder(data):
        _refuse_list_flags(data)
        return read_test_folder(data.path)
    kind, first, second = _listings(data)
    train, val = _sides(data, first, second)
    read = _Reader(data, kind, [first, second] if second else [first])
    notes = [read.words]
    rows = val or train
    samples = read.samples(rows, notes, TRAIN if rows[0].side == TRAIN else VAL)
    return Split(read.classes, (), samples, tuple(notes), read.root)


def is_folder(data: Data) -> bool:
    """Whether it is a folder of class folders, or may have been one, and no list."""
    if data.format is not None:
        return data.format == "folders"
    if is_address(data.path):
        return False
    path = Path(data.path).expanduser()
    if not path.exists():
        return not path.suffix
    return path.is_dir() and detect(data.path) == "folders"


def _refuse_list_flags(data: Data) -> None:
    given = [
        f"--{f.name}"
        for f in fields(Data)
        if f.name not in ("path", "format") and getattr(data, f.name) != f.default
    ]
    if given:
        raise UserError(
            f"{data.path} is a folder of class folders, for which {some(given)} has no meaning;"
            " leave it out, or give a list"
        )


def _listings(data: Data) -> tuple[str, Listing, Listing | None]:
    kind = data.format or detect(data.path)
    first = _rows(kind, data.path, data)
    if data.val is None:
        return kind, first, None
    other = data.format or detect(data.val)
    if other != kind:
        raise UserError(
            f"{data.path} is {WORDS[kind]} and {data.val} is {WORDS[other]}; both lists must be of"
            " one format"
        )
    return kind, first, _rows(kind, data.val, data)


def _rows(kind: str, address: str, data: Data) -> Listing:
    listing = FORMATS[kind](Listed(address, data.part))
    if not listing.rows:
        raise UserError(f"{address} lists no videos")
    return listing


def _sides(data: Data, first: Listing, second: Listing | None) -> tuple[list[Row], list[Row]]:
    """The rows to train on, and those to validate on if anything says which."""
    by_side: dict[str, list[Row]] = {}
    for row in first.rows:
        by_side.setdefault(row.side, []).append(row)
    if len(by_side) > 1 and second:
        raise UserError(
            f"{data.path} says itself which videos are validated on; leave --val {data.val} out"
        )
    if second:
        return first.rows, second.rows
    held = by_side.get(VAL) or by_side.get(TEST)
    if len(by_side) < 2 or not held:
        return first.rows, []
    return by_side.get(TRAIN, []) + by_side.get("", []), held


class _Reader:
    """What holds for all rows of a reading: where videos are, the classes, the words."""

    def __init__(self, data: Data, kind: str, listings: Sequence[Listing]) -> None:
        self.data = data
        self.root = absolute(data.root) if data.root else _home(data)
        self.classes, whence = name_classes(listings, data.classes)
        self.numbers = numbering(self.classes)
        self.rate = data.rate or listings[0].rate
        self.template = check_template(data.template) if data.template else None
        self.dataset = recognise(listings[0].dataset, self.classes)
        self.words = f"{data.path}: {WORDS[kind]}; {len(self.classes)} classes, {whence}"

    def samples(self, rows: Sequence[Row], notes: list[str], side: str) -> tuple[Sample, ...]:
        """Those of the rows whose videos are there; the others, and what is odd, go into notes."""
        rows = self._labelled(rows)
        found = find(rows, self.root, self.template)
        there = [(row, place) for row, place in zip(rows, found, strict=True) if place]
        if not there:
            raise UserError(
                f"none of the {len(rows):,} videos of {rows[0].file} is there: {rows[0].called} is"
                f" not below {self.root}; give the folder that the list's paths start in by --root"
            )
        self._note_missing([r for r, p in zip(rows, found, strict=True) if not p], len(rows), notes)
        if self.dataset and side:
            notes.append(compare(self.dataset, side, len(there), len(rows), rows[0].file))
        sources = self._sources(there)
        spans = _spans(there, notes)
        samples = map(self._sample, there, sources, spans)
        return tuple(_unlike(samples, self.classes, notes))

    def _labelled(self, rows: Sequence[Row]) -> list[Row]:
        """With numbers for labels."""
        numbered = []
        for row in rows:
            if row.actions is not None:
                actions = tuple((self._index(row, a), b, c) for a, b, c in row.actions)
                numbered.append(row._replace(label=-1, actions=actions))
                continue
            label = self._index(row, row.label)
            numbered.append(row if label == row.label else row._replace(label=label))
        return numbered

    def _index(self, row: Row, label: str | int) -> int:
        return index_of(row, label, self.numbers, len(self.classes))

    def _sample(self, at: tuple[Row, Found], source: str, span: tuple[float, float]) -> Sample:
        row, place = at
        actions = tuple(Action(int(label), start, end) for label, start, end in row.actions or ())
        rate = (row.rate or self.rate) if place.pictures else 30.0
        return Sample(place.path, int(row.label), source, *span, actions, place.pictures, rate)

    def _sources(self, there: Sequence[tuple[Row, Found]]) -> list[str]:
        """The recordings: as the list says them, else by the names."""
        sources = [row.source for row, _ in there]
        by_class: dict[int, list[int]] = {}
        for i, (row, _) in enumerate(there):
            if not row.source:
                by_class.setdefault(int(row.label), []).append(i)
        for label, indices in by_class.items():
            alone = [inside(_name(there[i][1]), self.root) for i in indices]
            stems = [path.rpartition("/")[2] for path in alone]
            found = recordings(stems, self.classes[label] if label >= 0 else "")
            for i, source, path in zip(indices, found, alone, strict=True):
                sources[i] = source or path
        return sources

    def _note_missing(self, missing: list[Row], listed: int, notes: list[str]) -> None:
        if not missing:
            return
        counts = Counter(self.classes[int(i)] for row in missing for i in set(labels_of(row)))
        classes = [f"{name} {count:,}" for name, count in counts.most_common()]
        names = some([row.called for row in missing])
        notes.append(
            f"left out because they are not there: {len(missing):,} of {listed:,} videos of"
            f" {missing[0].file} ({names}); by class: {some(classes)}"
        )


def _home(data: Data) -> str:
    """Where a list's paths start if nothing else is said."""
    path = absolute(data.path)
    return path if not is_address(path) and Path(path).is_dir() else Listed(path).folder


def _name(place: Found) -> str:
    """Its path without suffix; of pictures, their folder."""
    folder, slash, name = place.path.rpartition("/")
    if place.pictures:
        return folder
    stem, dot, _ = name.rpartition(".")
    return folder + slash + (stem if dot else name)


def _spans(there: Sequence[tuple[Row, Found]], notes: list[str]) -> list[tuple[float, float]]:
    """The seconds that are meant of each file."""
    doubtful = [
        (place.path, row.whole)
        for row, place in there
        if row.whole and place.name == row.names[-1] and not place.pictures
    ]
    whole, words = uncut(doubtful)
    if words:
        notes.append(words)
    return [
        row.whole if row.whole and place.path in whole else (row.start, row.end)
        for row, place in there
    ]


def _unlike(
    samples: Iterable[Sample], classes: tuple[str, ...], notes: list[str]
) -> Iterator[Sample]:
    """Each video once for each label; what is listed twice goes into the notes."""
    seen: dict[tuple[str, float, float], tuple[tuple[int, ...], ...]] = {}
    twice, unlike = 0, list[str]()
    for sample in samples:
        key, labels = (sample.path, sample.start, sample.end), sample.labels
        before = seen.get(key, ())
        if labels in before:
            twice += 1
            continue
        seen[key] = (*before, labels)
        if before:
            unlike.append(f"{sample.path} as {_and(seen[key], classes)}")
        yield sample
    if twice:
        notes.append(f"{twice:,} videos are listed twice with the same label; once is enough")
    if unlike:
        notes.append(f"warning: {len(unlike):,} videos have different labels: {some(unlike)}")


def _and(labels: Sequence[tuple[int, ...]], classes: tuple[str, ...]) -> str:
    return " and ".join(
        "+".join(classes[i] for i in one if i >= 0) or "nothing" for one in sorted(labels)
    )

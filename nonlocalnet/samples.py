"""What is learned from and tested on: labelled videos, and how they are divided."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import UserError

SPLIT = "split.json"  # in a run folder


@dataclass(frozen=True)
class Action:
    """One of several labels of a video, and the seconds in which it is seen."""

    label: int
    start: float = 0.0
    end: float = math.inf


@dataclass(frozen=True)
class Sample:
    """One labelled video.

    path: a video file; an address such as s3://bucket/a.mp4; or numbered pictures, written as
        dir/img_{:05d}.jpg with their number in `pictures`, counted from 1, `rate` a second.
    label: -1 where there are `actions`.
    source: the recording it was cut from (see `sources`).
    start, end: the part of the file that is meant, seconds.
    actions: several labels at once, with their times in the file (Charades).
    """

    path: str
    label: int
    source: str
    start: float = 0.0
    end: float = math.inf
    actions: tuple[Action, ...] = ()
    pictures: int = 0
    rate: float = 30.0

    @property
    def seen(self) -> tuple[Action, ...]:
        """Its actions; a label alone is seen all the time; nothing, where there is no label."""
        return self.actions or ((Action(self.label),) if self.label >= 0 else ())

    @property
    def labels(self) -> tuple[int, ...]:
        """Every label it has, ascending."""
        if not self.actions:
            return (self.label,)
        return tuple(sorted({action.label for action in self.actions}))


def present(
    actions: Iterable[Action], classes: int, start: float = 0.0, end: float = math.inf
) -> Tensor:
    """(classes,) float32: 1 for each action seen at any time between start and end, seconds.

    Of a training clip these are its own seconds, of a test the whole video's
    [video-long-term-feature-banks, PySlowFast].
    """
    there = torch.zeros(classes)
    for action in actions:
        if action.start <= end and action.end >= start:
            there[action.label] = 1.0
    return there


def multi_hot(sample: Sample, classes: int) -> Tensor:
    """(classes,) float32: 1 for each class seen in the part of the video that is meant."""
    return present(sample.seen, classes, sample.start, sample.end)


@dataclass(frozen=True)
class Split:
    """Labelled videos for training and for validation; notes say in words what was decided.

    drawn: the division is by chance, not what a folder or a list says: lists of these videos leave
    it open (see `listed`).
    """

    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    root: str = ""
    drawn: bool = False

    def listed(self, side: str) -> str:
        """What a list of these videos says of one on this side, "train" or "val"."""
        return "" if self.drawn else side

    @property
    def several(self) -> bool:
        """Whether a video may have several labels at once, or none."""
        return any(sample.label < 0 for sample in (*self.train, *self.val))

    def to_json(self) -> str:
        """Paths inside the root are written relative to it, so that the folder may move."""
        sides = {
            side: [_row(sample, self.root) for sample in samples]
            for side, samples in (("train", self.train), ("val", self.val))
        }
        head = {"root": self.root, "classes": self.classes, "notes": self.notes}
        return json.dumps({**head, **sides}, ensure_ascii=False, indent=0) + "\n"

    @classmethod
    def from_json(cls, text: str, root: str | os.PathLike[str] | None = None) -> Split:
        """What `to_json` wrote. root: where the folder is now, if it has moved.

        Raises `UserError` if the text is something else.
        """
        try:
            values = json.loads(text)
            base = str(Path(root).absolute()) if root is not None else str(values["root"])
            train, val = (
                tuple(_sample(base, *row) for row in values[side]) for side in ("train", "val")
            )
            return cls(tuple(values["classes"]), train, val, tuple(values["notes"]), base)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"this is no split written by nonlocalnet ({type(error).__name__}: {error})"
            ) from error


ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.")


def is_address(path: str) -> bool:
    """Whether a path is an address such as s3://bucket/a.mp4; "file://" is one too."""
    return ADDRESS.match(path) is not None


def split_of(run: Path) -> Split | None:
    """The split that a run folder was trained with; None where there is none."""
    file = run / SPLIT
    return Split.from_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def join(root: str, path: str) -> str:
    """A path below a root, either of which may be an address; an absolute path stays as it is."""
    if is_address(path) or not root:
        return path
    return f"{root.rstrip('/')}/{path}" if is_address(root) else str(Path(root) / path)


def inside(path: str, root: str) -> str:
    """The path relative to a root that it lies below, else as it is: the inverse of `join`."""
    base = root.rstrip("/") + "/"
    return path[len(base) :] if root and path.startswith(base) else path


def _row(sample: Sample, root: str) -> list[Any]:
    further: dict[str, Any] = {}
    if sample.start or sample.end < math.inf:
        further["span"] = [sample.start, _finite(sample.end)]
    if sample.label < 0:
        further["actions"] = [[a.label, a.start, _finite(a.end)] for a in sample.actions]
    if sample.pictures:
        further["pictures"] = [sample.pictures, sample.rate]
    row = [inside(sample.path, root), sample.label, sample.source]
    return [*row, further] if further else row


def _sample(
    root: str, path: str, label: int, source: str, further: dict[str, Any] | None = None
) -> Sample:
    further = further or {}
    start, end = further.get("span", (0.0, None))
    pictures, rate = further.get("pictures", (0, 30.0))
    return Sample(
        join(root, path),
        int(label),
        str(source),
        start,
        _end(end),
        tuple(Action(int(a), b, _end(c)) for a, b, c in further.get("actions", ())),
        pictures,
        rate,
    )


# JSON has no infinity
def _finite(end: float) -> float | None:
    return end if end < math.inf else None


def _end(end: float | None) -> float:
    return math.inf if end is None else float(end)

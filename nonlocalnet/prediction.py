"""Files and folders in; for each video the best classes with their scores out."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from .card import card_of
from .datasets import Broken, ViewDataset
from .errors import UserError
from .folders import VIDEO_SUFFIXES, writable_name
from .scoring import aggregate, load, score

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Prediction:
    """What the network says about one video, or why it says nothing.

    labels, scores: best first; the scores are shares of 1 over all classes.
    seconds: from asking for the video's frames to its scores; reading ahead makes it shorter.
    error: one sentence if the video could not be used (labels and scores are empty then).
    """

    path: str
    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    seconds: float = 0.0
    error: str | None = None

    def to_json(self) -> str:
        """One line of JSON, the field names being those above."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)


def predict(
    model: nn.Module,
    paths: Paths,
    clips: int | None = None,
    crops: int | None = None,
    top: int = 5,
    workers: int = 0,
) -> list[Prediction]:
    """The `top` best classes of every video, in order; folders are walked.

    One prediction per file, the broken ones with `.error` set. Everything else as in
    `predictions`, which gives them one by one.
    """
    return list(predictions(model, paths, clips, crops, top, workers))


def predictions(
    model: nn.Module,
    paths: Paths,
    clips: int | None = None,
    crops: int | None = None,
    top: int = 5,
    workers: int = 0,
) -> Iterator[Prediction]:
    """Like `predict`, each prediction as soon as it is there: for any number of files.

    paths: files and folders. A folder stands for all video files in it and below, sorted by path;
        a file is tried whatever its name.
    clips, crops: views per video, the card's if not given; the scores are then those of
        `evaluate` under the same rule.
    top: how many classes, at most all. workers: reading processes.

    The views of one video are in memory at a time, and of one more per worker. A file that cannot
    be used does not stop the others. Raises `UserError` if no path is given and `ValueError` if
    `top` is below 1.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, not {top}")
    card = card_of(model)
    found = find_videos(paths)
    files = [item for item in found if isinstance(item, str)]
    views = load(ViewDataset(files, card, *card.views(clips, crops)), workers)
    for item in found:
        start = time.monotonic()
        read = next(views) if isinstance(item, str) else item
        if isinstance(read, Broken):
            yield Prediction(read.path, error=read.reason)
            continue
        scores = aggregate(score(model, read.clips), card)
        values, classes = scores.sort(descending=True, stable=True)
        yield Prediction(
            path=read.sample.path,
            labels=tuple(card.class_name(i) for i in classes[:top].tolist()),
            scores=tuple(values[:top].tolist()),
            seconds=time.monotonic() - start,
        )


def find_videos(paths: Paths) -> list[str | Broken]:
    """The files that the paths stand for; a folder without any video as a `Broken`.

    Raises `UserError` if there is no path at all.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise UserError("there is nothing to predict; expected video files or folders of them")
    found: list[str | Broken] = []
    for path in map(Path, given):
        inside = _walk(path) if path.is_dir() else [str(path)]
        found += inside or [Broken(str(path), "there is no video file in this folder")]
    return [_refused(item) for item in found]


def _refused(item: str | Broken) -> str | Broken:
    """A path that cannot be written down is not used, as in a folder to train on."""
    escaped = writable_name(item.path if isinstance(item, Broken) else item)
    return item if escaped is None else Broken(escaped, "this name is not valid UTF-8; rename it")


def _walk(folder: Path) -> list[str]:
    """Every video file below a folder, sorted; hidden files and folders are left out."""
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [
            str(Path(root, name))
            for name in names
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")
        ]
    return sorted(files)

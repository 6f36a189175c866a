"""Any number of videos, on one machine or many -> the predictions as a folder of Parquet."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .card import card_of
from .cluster import TRIES, Cluster, Row, row_of, spread
from .datasets import Broken, ViewDataset, Views
from .errors import UserError
from .inputs import Paths, find_videos
from .parts import Parts
from .prediction import ranked
from .reading import ReaderError, as_it_is, loader, read
from .samples import is_address

COLUMNS = {
    "path": "string",
    "classes": "int32s",
    "labels": "strings",
    "scores": "floats",
    "frames": "int64",
    "seconds": "double",
    "error": "string",
}
ALL_SCORES = {"all_scores": "floats"}


@dataclass(frozen=True)
class Job:
    """What is asked of every video.

    clips, crops: views, the card's if not given. top: how many classes, best first.
    all_scores: the scores of all classes too, in the order of the classes.
    seconds: time limit for reading one file.
    """

    clips: int | None = None
    crops: int | None = None
    top: int = 5
    all_scores: bool = False
    seconds: float = 300.0

    def __post_init__(self) -> None:
        """Raises `ValueError` for a number that makes no sense."""
        if self.top < 1 or not self.seconds > 0:
            raise ValueError(f"top is 1 or more and seconds above 0, not {self.top, self.seconds}")


@dataclass(frozen=True)
class Summary:
    """What is in the folder now. new, seconds: files done in this run, and what it took.

    reasons: the most frequent ones for which files are broken, with their numbers.
    """

    files: int
    predicted: int
    broken: int
    new: int
    seconds: float
    reasons: Mapping[str, int]


def predict_many(
    model: nn.Module,
    paths: Paths,
    out: str | os.PathLike[str],
    job: Job | None = None,
    cluster: Cluster | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Summary:
    """Predict every video that `paths` stands for; the rows go to the folder `out`, see `Parts`.

    paths: see `find_videos`; a file that is named twice is done once. model: on the CPU. The scores
    are those of `predict` with `cluster.cpus` threads, to the last bit on the same kind of machine.
    progress: called with (files done, files in all, broken ones among those in the folder).

    What is in `out` is not done again, so after any interruption the same call goes on. A file that
    cannot be read, takes too long, or twice ends the process that reads or scores it has a row that
    says so in `error`, and empty values.

    Raises `UserError` as `find_videos`, `Parts` and `spread` do.
    """
    job, cluster = job or Job(), cluster or Cluster()
    found = {_known_as(item): item for item in find_videos(paths)}
    columns = COLUMNS | (ALL_SCORES if job.all_scores else {})
    with Parts(Path(out), columns, _identity(model, job)) as parts:
        rest = {path: item for path, item in found.items() if path not in parts.done}
        start, done, broken = time.monotonic(), len(found) - len(rest), parts.errors.total()
        for row in _rows(model, rest, job, cluster):
            parts.add(row)
            done, broken = done + 1, broken + (row["error"] is not None)
            if progress is not None:
                progress(done, len(found), broken)
        parts.flush()
        summary = Summary(
            files=len(parts.done),
            predicted=len(parts.done) - parts.errors.total(),
            broken=parts.errors.total(),
            new=len(rest),
            seconds=round(time.monotonic() - start, 3),
            reasons=dict(parts.errors.most_common(20)),
        )
        parts.write("_summary.json", json.dumps(asdict(summary), ensure_ascii=False, indent=1))
    return summary


def _known_as(item: str | Broken) -> str:
    """The path in its row, which means the same in every folder and on every machine."""
    path = item.path if isinstance(item, Broken) else item
    return path if is_address(path) else str(Path(path).absolute())


def _identity(model: nn.Module, job: Job) -> dict[str, Any]:
    """What the rows depend on."""
    card = card_of(model)
    digest = hashlib.sha256(json.dumps(asdict(card), sort_keys=True, default=str).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return {
        "network": digest.hexdigest()[:16],
        "views": "{}x{}".format(*card.views(job.clips, job.crops)),
        "top": job.top,
        "all_scores": job.all_scores,
    }


def _rows(
    model: nn.Module, rest: Mapping[str, str | Broken], job: Job, cluster: Cluster
) -> Iterator[Row]:
    """A row for each path."""
    files = [path for path, item in rest.items() if isinstance(item, str)]
    yield from (
        row_of(path, item.reason) for path, item in rest.items() if isinstance(item, Broken)
    )
    if files:
        size = sum(value.nbytes for value in model.state_dict().values())
        yield from spread(files, Predictor, (model, job, cluster.cpus), cluster, size)


class Predictor:
    """The network in a worker. Its videos are read in a process that may hang or die."""

    def __init__(self, model: nn.Module, job: Job, threads: int) -> None:
        torch.set_num_threads(threads)
        # Ray shows a worker its own GPUs only
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.card, self.job = card_of(model), job

    def work(self, paths: list[str]) -> Iterator[Row]:
        """A row for each path, in order; the next video is read while one is scored."""
        start = time.monotonic()
        for path, item in zip(paths, self._read(paths), strict=True):
            row = self._scored(path, item)
            yield row | {"seconds": time.monotonic() - start}
            start = time.monotonic()

    def _scored(self, path: str, item: Views | Broken) -> Row:
        if isinstance(item, Broken):
            return row_of(path, item.reason)
        try:
            scores, classes = ranked(self.model, item.clips)
        except UserError as error:  # scores that are not numbers
            return row_of(path, str(error))
        best = classes[: self.job.top].tolist()
        return row_of(
            path,
            frames=item.frames,
            classes=best,
            labels=[self.card.class_name(i) for i in best],
            scores=scores[: self.job.top].tolist(),
            all_scores=scores[classes.argsort()].tolist() if self.job.all_scores else None,
        )

    def _read(self, paths: list[str]) -> Iterator[Views | Broken]:
        """The views of each path; a reader that hangs is ended, one that dies is replaced."""
        at = tries = 0
        while at < len(paths):
            try:
                for item in self._readable(paths[at:]):
                    yield item
                    at, tries = at + 1, 0
            except TimeoutError:
                reason = f"it could not be read within {self.job.seconds:g} seconds"
            except ReaderError:
                tries += 1
                if tries < TRIES:
                    continue
                reason = f"the decoder crashed on it, {TRIES} times, or there was no memory left"
            else:
                return
            yield Broken(paths[at], reason)
            at, tries = at + 1, 0

    def _readable(self, paths: list[str]) -> Iterator[Views | Broken]:
        views = ViewDataset(paths, self.card, *self.card.views(self.job.clips, self.job.crops))
        items = loader(views, 1, as_it_is, batch_size=None, prefetch_factor=1)
        return read(items, "use fewer workers", self._patience)

    def _patience(self, waited: float) -> None:
        if waited >= self.job.seconds:
            raise TimeoutError

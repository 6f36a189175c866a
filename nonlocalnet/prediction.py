"""Files and folders in; for each video the best classes with their scores out."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from .card import card_of
from .datasets import Broken, ViewDataset
from .inputs import Paths, find_videos
from .scoring import aggregate, load, score


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

    paths: files, folders, lists, addresses and patterns, see `find_videos`.
    clips, crops: views per video, the card's if not given; the scores are then those of
        `evaluate` under the same rule.
    top: how many classes, at most all. workers: reading processes.

    The views of one video are in memory at a time, and of one more per worker. A file that cannot
    be used does not stop the others. Raises `UserError` as `find_videos` does and `ValueError` if
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
        values, classes = ranked(model, read.clips)
        yield Prediction(
            path=read.sample.path,
            labels=tuple(card.class_name(i) for i in classes[:top].tolist()),
            scores=tuple(values[:top].tolist()),
            seconds=time.monotonic() - start,
        )


def ranked(model: nn.Module, clips: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (K,) of all classes, best first, and the classes (K,), of one video's views.

    clips: (V, 3, T, S, S) uint8. Of classes with equal scores the first one comes first.
    """
    scores = aggregate(score(model, clips), card_of(model))
    values, classes = scores.sort(descending=True, stable=True)
    return values, classes

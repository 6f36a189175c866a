"""A video and a network -> an answer, part by part: what it is, when, and what is looked at."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import __version__
from ..card import WHOLE
from ..datasets import Broken, ViewDataset
from ..errors import UserError
from ..explorer import explorer_page
from ..feeds import open_feed
from ..moments import moments
from ..scoring import aggregate, score
from ..sight import attend_video
from ..smoothing import NONE
from ..timeline import Segment, Timeline, Told
from ..timeline.segments import Segments
from ..video import VideoInfo
from .networks import Served

TOP = 5
ANSWERS = 24  # of a clip network over time at most: what an answer costs must have a bound
HOP = 0.5  # clips between two of them, where these are fewer


@dataclass(frozen=True)
class Best:
    """A class with its score. without: its score from the network without its blocks."""

    label: int
    name: str
    score: float
    without: float | None = None


@dataclass(frozen=True)
class Answer:
    """What is known of a video so far; `answers` gives one after the other.

    best: the best classes of the network and, where it has blocks, those of the network without
    them too, by the first. timeline: segments and facts. told: (seconds, class or NONE, score) of
    each answer over time. page: the attention explorer, HTML. pictures: PNG files by name.
    missing: why something is not there, by its name above.
    """

    video: str
    network: str
    info: VideoInfo
    views: str
    best: tuple[Best, ...] = ()
    timeline: Timeline | None = None
    told: tuple[tuple[float, int, float], ...] = ()
    page: str = ""
    pictures: tuple[tuple[str, bytes], ...] = ()
    missing: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> str:
        """All but page and pictures."""
        facts = {
            "nonlocalnet": __version__,
            "network": self.network,
            "video": self.video,
            "seconds": round(self.info.duration, 3),
            "size": [self.info.width, self.info.height],
            "views": self.views,
            "classes": [_rounded(vars(best)) for best in self.best],
            "segments": [self._segment(s) for s in self.timeline.segments] if self.timeline else [],
            "answers": [
                {"seconds": round(t, 3), "class": self._name(k), "score": round(s, 5)}
                for t, k, s in self.told
            ],
            "missing": dict(self.missing),
        }
        return json.dumps(facts, indent=1, allow_nan=False)

    def _name(self, label: int) -> str | None:
        return None if label == NONE or self.timeline is None else self.timeline.classes[label]

    def _segment(self, segment: Segment) -> dict[str, Any]:
        scored = None if math.isnan(segment.score) else round(segment.score, 5)
        return {
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            "class": self._name(segment.label),
            "score": scored,
        }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}


def answers(served: Served, path: Path, info: VideoInfo) -> Iterator[Answer]:
    """The answer as it grows: the classes come first, then what takes longer.

    path: a video that `intake.inspect` let through, as `info`.

    Raises `UserError` if nothing can be said at all; what cannot be said besides is `missing`.
    """
    answer = Answer(path.name, served.name, info, _views(served))
    for name, part in PARTS.items():
        try:
            answer = part(served, path, answer)
        except (UserError, ImportError) as error:
            why = str(error).replace(str(path), path.name)
            if name == "best":
                raise UserError(why) from error
            answer = replace(answer, missing=(*answer.missing, (name, why)))
        yield answer


def _views(served: Served) -> str:
    clips, crops = served.views
    which = {WHOLE: "the whole frame", 1: "its middle square"}.get(crops, f"{crops} crops of each")
    return f"{clips} clip{'s' if clips > 1 else ''} of the video, {which}"


def _best(served: Served, path: Path, answer: Answer) -> Answer:
    views = ViewDataset([str(path)], served.card, *served.views)[0]
    if isinstance(views, Broken):
        raise UserError(f"this file {views.reason}")
    scores = aggregate(score(served.model, views.clips), served.card)
    bare = None
    if served.bare is not None:
        bare = aggregate(score(served.bare, views.clips), served.card)
    shown = _order(scores)[:TOP]
    if bare is not None:
        shown += [label for label in _order(bare)[:TOP] if label not in shown]
    return replace(
        answer,
        best=tuple(
            Best(
                label,
                served.telling.classes[label],
                float(scores[label]),
                None if bare is None else float(bare[label]),
            )
            for label in shown
        ),
    )


def _order(scores: Tensor) -> list[int]:
    order: list[int] = scores.argsort(descending=True, stable=True).tolist()
    return order


def _timeline(served: Served, path: Path, answer: Answer) -> Answer:
    telling, segments = served.telling, Segments(served.telling)
    before, found, told = telling.start(), list[Segment](), list[Told]()
    with open_feed(str(path)) as feed:
        step = served.pace.step(feed.fps or answer.info.fps)
        taken = answer.info.frames / step
        # long videos are looked at in places, short ones everywhere
        hop = max(HOP, taken / served.card.frames / ANSWERS)
        for moment in moments(
            served.watching, feed.take(lambda _: step, served.pace.phase), hop=hop
        ):
            now, before = telling.step(moment, before)
            found += segments.add(now)
            told.append(now)
    found += segments.finish()
    facts = {
        "source": answer.video,
        "network": served.name,
        "moments": len(told),
        "told": telling.words(),
    }
    return replace(
        answer,
        timeline=Timeline(telling.classes, tuple(found), facts),
        told=tuple((now.about, now.best, now.score) for now in told),
    )


def _look(served: Served, path: Path, answer: Answer) -> Answer:
    return replace(answer, page=explorer_page(served.model, path))


def _pictures(served: Served, path: Path, answer: Answer) -> Answer:
    from ..picture.sheet import draw  # needs matplotlib
    from ..picture.timeline import draw_timeline

    found = []
    if answer.timeline is not None:
        found.append(("timeline.png", draw_timeline(answer.timeline)))
    if served.bare is not None:
        found.append(("attention.png", draw(attend_video(served.model, path))))
    return replace(answer, pictures=tuple(found))


PARTS: dict[str, Callable[[Served, Path, Answer], Answer]] = {  # by what each adds to the answer
    "best": _best,
    "timeline": _timeline,
    "page": _look,
    "pictures": _pictures,
}

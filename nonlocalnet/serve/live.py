"""A camera in a browser, picture by picture; what is kept between two pictures is a value."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..clips import BEYOND
from ..live import Latency
from ..modes import evaluating
from ..moments import SILENCE, Moment
from ..scoring import finite, prepared, score
from ..timeline.telling import Before, Told
from ..transforms import test_crops
from .networks import Served

EVERY = 0.1  # seconds between two pictures that the browser sends
NEARLY = 0.8  # of the pace: a picture that comes a little early is taken
CAMERA = 30.0  # frames per second, where a pace is in frames and nobody knows better


@dataclass(frozen=True, eq=False)
class Watched:
    """What a camera left behind so far, a value: the next picture makes another one.

    network: by which. carried: what a network that goes frame by frame keeps. seen: seconds and
    pictures (1, 3, 1, S, S) uint8 of a clip network's clip, at most as many as that has. came: when
    the last picture came; taken: when the last one came that the network saw; start: since when
    all of it is one stretch. pictures: how many came; dropped: how many the browser had and did
    not send, since the answer before was not there.
    """

    network: str = ""
    carried: tuple[Tensor, ...] = ()
    seen: tuple[tuple[float, Tensor], ...] = ()
    before: Before | None = None
    told: Told | None = None
    began: float = 0.0
    start: float = 0.0
    came: float = 0.0
    taken: float = 0.0
    pictures: int = 0
    answers: int = 0
    dropped: int = 0
    latency: Latency = field(default_factory=Latency)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answers / max(self.came - self.began, EVERY)

    @property
    def apart(self) -> float:
        """Seconds between the pictures that the network saw, on average."""
        return (self.taken - self.began) / max(self.answers - 1, 1)


def follow(
    served: Served,
    picture: NDArray[np.uint8],
    now: float,
    watched: Watched | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Watched:
    """One more picture (H, W, 3) uint8 of a camera; what is told is in `told`.

    now: when it came, on `clock`. The network begins anew after a silence, and where it is another.
    A picture that comes sooner than the network's pace asks for is counted, and not looked at.
    """
    if watched is None or watched.network != served.name:
        watched = Watched(network=served.name, began=now, start=now)
    anew = not watched.pictures or now - watched.came > SILENCE
    late = 0 if anew else max(0, round((now - watched.came) / EVERY) - 1)
    counted = replace(
        watched,
        pictures=watched.pictures + 1,
        dropped=watched.dropped + late,
        came=now,
    )
    if not anew and now - watched.taken < NEARLY * due(served):
        return counted
    whole = torch.from_numpy(picture.copy())  # gradio's cannot be written to, and torch warns of it
    crop = test_crops(whole[None], served.card, 1)  # (1, 3, 1, S, S)
    if anew:
        counted = replace(counted, start=now, carried=(), seen=(), before=None)
    look = _frame if served.online else _clip
    moment, after = look(served, crop, now, counted, anew)
    told, before = served.telling.step(moment, counted.before or served.telling.start())
    latency = copy.deepcopy(counted.latency)
    latency.add(clock() - now)
    return replace(
        after, before=before, told=told, taken=now, answers=after.answers + 1, latency=latency
    )


def due(served: Served) -> float:
    """Seconds that the pictures which the network sees should be apart."""
    return served.card.gap or served.pace.step(CAMERA) / CAMERA


def _frame(
    served: Served, crop: Tensor, now: float, watched: Watched, anew: bool
) -> tuple[Moment, Watched]:
    """What a network says that goes frame by frame."""
    stream = served.watching
    with evaluating(stream), torch.inference_mode():
        frame = prepared(stream, crop)[:, :, 0]  # (1, 3, S, S)
        carried = stream.start(frame) if anew else watched.carried  # type: ignore[operator]
        logits, carried = stream(frame, carried)
    logits = finite(logits[0].clone())
    return Moment(now, watched.start, logits, fresh=anew), replace(watched, carried=carried)


def _clip(
    served: Served, crop: Tensor, now: float, watched: Watched, anew: bool
) -> tuple[Moment, Watched]:
    """What a clip network says of the last pictures; of fewer than a clip has, as its card says."""
    card = served.card
    seen = (*watched.seen, (now, crop))[-card.frames :]
    chosen = BEYOND[card.beyond](np.arange(card.frames), len(seen))
    clip = torch.cat([seen[i][1] for i in chosen.tolist()], 2)  # (1, 3, T, S, S)
    logits = score(served.model, clip)[0]
    return Moment(now, seen[0][0], logits, fresh=anew), replace(watched, seen=seen)

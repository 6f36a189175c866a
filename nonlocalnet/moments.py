"""What a network says about a feed: online networks frame by frame, others clip by clip."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from .card import Card, card_of
from .clips import BEYOND
from .errors import UserError
from .feeds import Frame
from .head import head_of
from .manner import By
from .modes import evaluating
from .scoring import finite, prepared, score
from .streaming import Streaming, is_stream
from .transforms import test_crops

SILENCE = 2.0  # seconds between two frames after which a network begins anew, or
PACES = 4.0  # this many times what they are mostly apart, where that is longer


@dataclass(frozen=True)
class Moment:
    """What the network says at a time.

    seconds: of the newest frame that it saw; start: of the oldest one. logits: (K,), on the CPU.
    features: (C,), what its last layer was given, averaged over frames and places; if asked for.
    fresh: the network has begun anew; nothing that was said before counts.
    """

    seconds: float
    start: float
    logits: Tensor
    features: Tensor | None = None
    fresh: bool = False


class Stepper(Protocol):
    """A network that goes frame by frame: `streaming.Streaming`, or an exported one."""

    def start(self, frame: Tensor) -> tuple[Tensor, ...]: ...
    def __call__(
        self, frame: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]: ...


def ready(model: nn.Module, by: By | None = None) -> nn.Module:
    """The network as it goes on a feed: frame by frame where it can and remembers, else by clips.

    by: one of the two. Raises `UserError` for a network that cannot go so.
    """
    if is_stream(model):
        if by == "clip":
            raise UserError("this network was exported to go frame by frame, not by clips")
        return model
    if by == "clip":
        return model
    if by == "frame" and hasattr(model, "sidecar"):
        raise UserError(
            "this network was exported for clips; export it with --stream to go frame by frame"
        )
    try:
        stream = Streaming(model)
    except UserError:
        if by == "frame":
            raise
        return model
    # one that sees every frame by itself was trained on clips for their mean
    return stream if stream.names or by == "frame" else model


def moments(
    model: nn.Module,
    frames: Iterable[Frame],
    *,
    hop: float = 0.5,
    features: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Moment]:
    """What a network says, each as soon as it can be said.

    model: as `ready` gives it. frames: those that it shall see, such as `feed.take(pace.step)`;
    each is cut and normalised as `predict` does with one crop. hop: how far clips are apart, in
    clips. features: give those too. say: is told where the network begins anew, which it does at
    a cut and after a silence.

    A clip network looks at the last `card.frames` frames taken, and once more at those before an
    end or a cut. Where there were fewer, they are continued as the card says (`beyond`).

    Raises `UserError` if a logit is not finite, or for features of an exported network.
    """
    go = _by_frames if is_stream(model) else _by_clips
    with evaluating(model), _tapped(model, features) as tapped:
        for moment in go(model, _runs(frames, say), hop):
            yield replace(moment, features=tapped.pop().clone()) if features else moment


Run = tuple[Frame, bool]  # a frame, and whether what came before is to be forgotten


def _runs(frames: Iterable[Frame], say: Callable[[str], None]) -> Iterator[Run]:
    before, usual = None, float("inf")
    for frame in frames:
        why = frame.cut
        if before is not None and not why:
            silence = frame.seconds - before
            if silence > max(SILENCE, PACES * usual):
                why = f"{silence:.1f} s without a frame"
            else:
                usual = min(usual, silence)
        if why:
            say(f"at {frame.seconds:.1f} s the network begins anew: {why}")
        yield frame, before is None or bool(why)
        before = frame.seconds


def _by_frames(model: nn.Module, runs: Iterator[Run], _: float) -> Iterator[Moment]:
    stepper, card = cast(Stepper, model), card_of(model)
    state: tuple[Tensor, ...] = ()
    start = 0.0
    for frame, anew in runs:
        with torch.inference_mode():
            picture = prepared(model, _crop(frame, card))[:, :, 0]  # (1, 3, S, S)
            if anew:
                start, state = frame.seconds, stepper.start(picture)
            logits, state = stepper(picture, state)
        yield Moment(frame.seconds, start, finite(logits[0].clone()), fresh=anew)


def _by_clips(model: nn.Module, runs: Iterator[Run], hop: float) -> Iterator[Moment]:
    card = card_of(model)
    apart = max(1, round(hop * card.frames))
    seen: deque[tuple[float, Tensor]] = deque(maxlen=card.frames)
    due, fresh, pending = 0, True, False  # pending: no clip had the newest frame yet
    for frame, anew in runs:
        if anew:
            if pending:
                yield _clip(model, seen, fresh)
            seen.clear()
            due, fresh = card.frames, True
        seen.append((frame.seconds, _crop(frame, card)))
        due, pending = due - 1, True
        if not due:
            yield _clip(model, seen, fresh)
            due, fresh, pending = apart, False, False
    if pending:
        yield _clip(model, seen, fresh)


def _clip(model: nn.Module, seen: deque[tuple[float, Tensor]], fresh: bool) -> Moment:
    card = card_of(model)
    chosen = BEYOND[card.beyond](np.arange(card.frames), len(seen))
    clip = torch.cat([seen[i][1] for i in chosen.tolist()], 2)  # (1, 3, T, S, S)
    return Moment(seen[-1][0], seen[0][0], score(model, clip)[0], fresh=fresh)


def _crop(frame: Frame, card: Card) -> Tensor:
    """(1, 3, 1, S, S) uint8."""
    return test_crops(torch.from_numpy(frame.picture)[None], card, 1)


@contextmanager
def _tapped(model: nn.Module, wanted: bool) -> Iterator[list[Tensor]]:
    """What the last layer is given appears in this list, (C,) on the CPU."""
    taken: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor]) -> None:
        features = given[0].float()
        taken[:] = [features.reshape(-1, features.shape[-1]).mean(0).cpu()]

    if not wanted:
        yield taken
        return
    hook = _head(model).register_forward_pre_hook(keep)
    try:
        yield taken
    finally:
        hook.remove()


def _head(model: nn.Module) -> nn.Module:
    try:
        return head_of(model.model if isinstance(model, Streaming) else model)
    except StopIteration:
        raise UserError(
            "features are what the last layer is given, which an exported file does not show; take"
            " them from the run itself"
        ) from None

"""A network on a feed: from its frames to what is told and written, `nonlocalnet stream`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from .calibration import find_unknown
from .card import card_of
from .evaluate import class_names
from .feeds import Feed, Frame
from .live import AHEAD, FRESH, Ahead, Latency
from .manner import Manner
from .moments import moments
from .pace import Pace
from .smoothing import Hysteresis, parse_smoothing
from .streaming import is_stream
from .timeline import Outputs, Recorder, Telling, Told
from .training.interrupt import stop_on_signals

RATE = 30.0  # frames per second of an annotated video where the feed does not tell


def tell(model: nn.Module, run: Path, manner: Manner) -> tuple[Telling, list[str]]:
    """How the answers of a network, as `ready` gives it, become what is told; and that in words.

    run: where its calibration may lie.
    """
    card, online = card_of(model), is_stream(model)
    names = class_names(card)
    found, words = find_unknown(manner.unknown, run, names, card.activation == "sigmoid")
    smooth = manner.smooth or (f"mean:{card.frames}" if online else "none")
    agree = manner.agree or (2 if online else 1)
    telling = Telling.of(card, not online, parse_smoothing(smooth), Hysteresis(agree), found)
    return telling, [*words, *telling.words()]


@dataclass
class Tally:
    """How the watching went, so far.

    live: frames do not wait. latency: from a frame, read and converted, to its answer. seconds: of
    the feed; elapsed: of this work; rate: their ratio. fps: frames per second as they came.
    """

    live: bool = False
    moments: int = 0
    dropped: int = 0
    damaged: int = 0
    latency: Latency = field(default_factory=Latency)
    last: Frame | None = None
    stopped: str | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return self.last.seconds if self.last else 0.0

    @property
    def fps(self) -> float | None:
        return self.last.number / self.seconds if self.last and self.seconds else None

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        return self.seconds / max(self.elapsed, 1e-3)

    def words(self) -> str:
        """How late answers are where that matters, and what was lost; "; ..." or nothing."""
        words = ""
        if self.live:
            p50, p95 = (1e3 * self.latency.quantile(share) for share in (0.5, 0.95))
            words = f"; latency {p50:.0f} ms, 95 % below {p95:.0f} ms; {self.dropped:,} dropped"
        return words + (f"; {self.damaged:,} damaged" if self.damaged else "")


def watch(
    model: nn.Module,
    feed: Feed,
    telling: Telling,
    outputs: Outputs,
    manner: Manner,
    *,
    seconds: float = math.inf,
    live: bool = False,
    say: Callable[[str], None] = lambda _: None,
    report: Callable[[Told, Tally], None] = lambda *_: None,
) -> Tally:
    """Watch a feed to its end, or until Ctrl-C or SIGTERM, and write what is told.

    model: as `ready` gives it. seconds: of the feed, after which to end. live: treat a file as a
    camera. say: is told what is done and what happens; report: what is told, at each moment.

    Frames are read by a thread, a few ahead. Those of a camera are dropped where the network is
    slower, the oldest first. Memory does not grow with time.

    Raises `UserError`, also where the feed fails on the way: the files then hold what came before.
    """
    pace, shown = Pace(card_of(model), is_stream(model), manner.every), outputs.video
    say(pace.words(feed.fps))
    taken = feed.take(pace.step, pace.phase, show=shown is not None)
    tally = Tally(live or feed.live)
    room = FRESH * math.ceil(pace.step(feed.fps) if shown else 1) if tally.live else AHEAD
    with (
        suppress(_Stopped),
        stop_on_signals() as stop,
        _recorder(model, feed, telling, outputs, manner, pace) as recorder,
        Ahead(
            taken,
            room,
            drop=tally.live,
            clock=live and not feed.live,
            wanted=lambda: stop.asked is None,
        ) as frames,
    ):
        seen = _seen(frames, recorder, tally, seconds)
        features = outputs.features is not None
        for moment in moments(model, seen, hop=manner.hop, features=features, say=say):
            tally.latency.add(time.monotonic() - frames.arrived)
            tally.moments, tally.dropped = tally.moments + 1, frames.dropped
            tally.damaged = feed.damaged
            report(recorder.add(moment), tally)
        tally.stopped = stop.asked
        if stop.asked:
            raise _Stopped
    return tally


class _Stopped(KeyboardInterrupt):
    """Asked for from outside: what is written says so."""


def _recorder(
    model: nn.Module, feed: Feed, telling: Telling, outputs: Outputs, manner: Manner, pace: Pace
) -> Recorder:
    local = Path(feed.name)
    network = card_of(model).architecture.get("name", "")
    facts = {"source": feed.name, "network": network, "pace": pace.words(feed.fps)}
    also = []
    if outputs.picture is not None:
        from .picture.timeline import Drawn  # needs matplotlib

        also = [Drawn(outputs.picture, telling, facts)]
    return Recorder(
        telling,
        outputs,
        facts,
        shortest=manner.shortest,
        rate=feed.fps or RATE,
        sound=local if local.is_file() else None,
        also=also,
    )


def _seen(frames: Ahead, recorder: Recorder, tally: Tally, seconds: float) -> Iterator[Frame]:
    """The frames that the network takes; all are shown."""
    for frame in frames:
        if frame.seconds >= seconds:
            return
        tally.last = frame
        if frame.cut:
            recorder.cut(frame.seconds, frame.cut)
        recorder.see(frame.picture, frame.seconds)
        if frame.taken:
            yield frame

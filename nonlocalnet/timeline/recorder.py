"""From moments to every file that was asked for, while the feed runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..moments import Moment
from .annotate import Annotated
from .features import Features
from .segments import Segment, Segments
from .telling import Telling, Told
from .writers import Listing, Rows, Subtitles


class Output(Protocol):
    """What becomes of a timeline."""

    def told(self, told: Told) -> None:
        """One more moment."""

    def segment(self, segment: Segment) -> None:
        """A segment that nothing can change any more, by its end."""

    def close(self, facts: Mapping[str, Any]) -> None:
        """The feed has ended; facts: what is known now."""


@dataclass(frozen=True)
class Outputs:
    """The files that are wanted; see the classes that write them.

    picture: drawn by `picture.timeline.Drawn`, which needs matplotlib and is handed to a `Recorder`
        as `also`.
    """

    csv: Path | None = None
    json: Path | None = None
    srt: Path | None = None
    video: Path | None = None
    features: Path | None = None
    picture: Path | None = None

    def paths(self) -> list[Path]:
        """Those that are wanted."""
        return [path for path in vars(self).values() if path is not None]


class Recorder:
    """Tells what moments say, and writes it down; a context manager.

    telling: how moments become what is told. facts: plain values for the head of the JSON file,
        such as source, network and pace. shortest: seconds, see `Track`.
    rate: the feed's pictures per second, nominally. sound: a file whose sound goes with the
        annotated video. also: what else becomes of the timeline.

    However the context is left, by Ctrl-C and errors too, the files hold what was told until then
    and are complete; "ended" in the JSON file says which it was. Where nothing was told, no file is
    written. Memory does not grow with time.

    Raises `UserError` where a file cannot be written.
    """

    def __init__(
        self,
        telling: Telling,
        outputs: Outputs,
        facts: Mapping[str, Any] | None = None,
        *,
        shortest: float = 0.0,
        rate: float = 30.0,
        sound: Path | None = None,
        also: Sequence[Output] = (),
    ) -> None:
        self.telling = telling
        self._before = telling.start()
        self._segments = Segments(telling, shortest)
        self._last: Told | None = None
        self._moments, self._late = 0, 0.0
        self._cuts: list[dict[str, Any]] = []
        head = {**(facts or {}), "told": telling.words()}
        classes = telling.classes
        self._outputs: list[Output] = []
        self._film: Annotated | None = None
        if outputs.csv is not None:
            self._outputs.append(Rows(outputs.csv, classes))
        if outputs.json is not None:
            self._outputs.append(Listing(outputs.json, classes, head))
        if outputs.srt is not None:
            self._outputs.append(Subtitles(outputs.srt, classes))
        if outputs.features is not None:
            self._outputs.append(Features(outputs.features, telling))
        if outputs.video is not None:
            self._film = Annotated(outputs.video, telling, rate, sound)
            self._outputs.append(self._film)
        self._outputs += also

    def __enter__(self) -> Recorder:
        return self

    def see(self, picture: NDArray[np.uint8], seconds: float) -> None:
        """A picture (H, W, 3) of the feed, for the annotated video: before what is told of it."""
        if self._film is not None:
            self._film.see(picture, seconds)

    def cut(self, seconds: float, why: str) -> None:
        """What is shown from here on does not go on what came before: another file, a break."""
        self._cuts.append({"seconds": round(seconds, 3), "why": why})

    def add(self, moment: Moment) -> Told:
        """One more moment; what is told now."""
        told, self._before = self.telling.step(moment, self._before)
        finished = self._segments.add(told)
        self._moments += 1
        self._late = max(self._late, moment.seconds - told.about)
        self._last = told
        for output in self._outputs:
            output.told(told)
        self._pass_on(finished)
        return told

    def _pass_on(self, segments: list[Segment]) -> None:
        for output in self._outputs:
            for segment in segments:
                output.segment(segment)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the files. The first that cannot be is told once the others are."""
        self._pass_on(self._segments.finish())
        facts = {
            "seconds": round(self._last.moment.seconds, 3) if self._last else 0.0,
            "moments": self._moments,
            "late": round(self._late, 3),
            "cuts": self._cuts,
            "ended": _how(error),
        }
        failed = None
        for output in self._outputs:
            try:
                output.close(facts)
            except UserError as problem:
                failed = failed or problem
        if failed is not None and error is None:
            raise failed


def _how(error: BaseException | None) -> str:
    if error is None:
        return "where the feed ended"
    return "stopped" if isinstance(error, KeyboardInterrupt) else f"{error}"

"""The files of a timeline: rows as CSV, segments as JSON and as subtitles.

Each grows while the feed runs, in whole lines and in memory that does not grow with it.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import Growing
from ..smoothing import NONE
from .segments import Segment
from .telling import Told


class Rows:
    """A CSV with a line per moment: what was told there, and the scores of all classes.

    seconds: when the answer was there; about: the time it tells of. label is empty for none of the
    classes, and has "; " between several.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.classes = classes
        self._file = Growing(path)
        self._begun = False

    def told(self, told: Told) -> None:
        if not self._begun:
            self._write(["seconds", "about", "label", "score", *self.classes])
            self._begun = True
        names = "; ".join(self.classes[label] for label in told.labels)
        scores = [f"{score:.6g}" for score in told.scores.tolist()]
        times = [f"{told.moment.seconds:.3f}", f"{told.about:.3f}"]
        self._write([*times, names, f"{told.score:.6g}", *scores])

    def segment(self, segment: Segment) -> None:
        pass

    def close(self, facts: Mapping[str, Any]) -> None:
        self._file.close()

    def _write(self, cells: Iterable[str]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self._file.write(line.getvalue().encode(errors="backslashreplace"))


class Listing:
    """A JSON object: facts, the classes, a line per segment, and what was known only at the end.

    A segment has start, end, label (null for none of the classes), score (mean), top and moments.
    """

    def __init__(self, path: Path, classes: Sequence[str], facts: Mapping[str, Any]) -> None:
        self.classes = classes
        self._file = Growing(path)
        self._facts = {**facts, "classes": list(classes)}
        self._before = ""

    def told(self, told: Told) -> None:
        if not self._before:  # so that there is a file if there is but one answer
            head = "".join(f"{_json(k)}: {_json(v)},\n" for k, v in self._facts.items())
            self._file.write(f'{{{head}"segments": ['.encode())
            self._before = "\n"

    def segment(self, segment: Segment) -> None:
        self._file.write((self._before + _json(self.row(segment))).encode())
        self._before = ",\n"

    def close(self, facts: Mapping[str, Any]) -> None:
        if self._before:
            tail = "".join(f",\n{_json(k)}: {_json(v)}" for k, v in facts.items())
            self._file.write(f"\n]{tail}}}\n".encode())
        self._file.close()

    def row(self, segment: Segment) -> dict[str, Any]:
        named = segment.label != NONE
        return {
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            "label": self.classes[segment.label] if named else None,
            "score": round(segment.score, 6) if named else None,
            "top": round(segment.top, 6) if named else None,
            "moments": segment.moments,
        }


@dataclass(frozen=True)
class Timeline:
    """A finished timeline, as the JSON file has it.

    facts: what it says besides the classes and the segments.
    """

    classes: tuple[str, ...]
    segments: tuple[Segment, ...]
    facts: Mapping[str, Any]


def read_timeline(path: Path) -> Timeline:
    """What `Listing` wrote. Raises `UserError` for other files."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        classes = tuple(map(str, facts.pop("classes")))
        numbers: dict[str | None, int] = {None: NONE, **{c: i for i, c in enumerate(classes)}}
        segments = tuple(
            Segment(
                float(row["start"]),
                float(row["end"]),
                numbers[row["label"]],
                math.nan if row["score"] is None else float(row["score"]),
                math.nan if row["top"] is None else float(row["top"]),
                int(row["moments"]),
            )
            for row in facts.pop("segments")
        )
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no timeline; expected the JSON that `nonlocalnet stream` writes"
        ) from error
    return Timeline(classes, segments, facts)


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


class Subtitles:
    """An .srt file with the segments that have a class, for any player."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.classes = classes
        self._file = Growing(path)
        self._count = 0

    def told(self, told: Told) -> None:
        self._file.write(b"")  # a file also where no class is told

    def segment(self, segment: Segment) -> None:
        start, end = srt_time(segment.start), srt_time(segment.end)
        if segment.label == NONE or start == end:
            return
        self._count += 1
        name = " ".join(self.classes[segment.label].split())
        block = f"{self._count}\n{start} --> {end}\n{name} {100 * segment.score:.0f} %\n\n"
        self._file.write(block.encode(errors="backslashreplace"))

    def close(self, facts: Mapping[str, Any]) -> None:
        self._file.close()


def srt_time(seconds: float) -> str:
    """3723.5 -> "01:02:03,500"."""
    return f"{clock(seconds, 3):0>12}".replace(".", ",")


def clock(seconds: float, decimals: int = 0) -> str:
    """Hours, minutes and seconds: 3723.5 -> "1:02:04", with one decimal "1:02:03.5"."""
    unit = 10**decimals
    whole, part = divmod(max(round(unit * seconds), 0), unit)
    words = f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{words}.{part:0{decimals}}" if decimals else words

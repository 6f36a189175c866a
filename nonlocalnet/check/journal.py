"""Findings on disk, one line of JSON for each file, so that a killed check goes on."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..errors import UserError
from ..samples import Sample, is_address
from .probe import Finding

FILES = "files.jsonl"  # the name of a journal that is kept


class Journal:
    """Key of a sample -> the newest `Finding`; a context manager.

    Only the place of each line is held in memory. A line that was cut off by a kill is left out,
    and so are lines of another version of this program.

    path: the file, which is gone on with; None: a temporary one. Raises `UserError` if it cannot
    be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.name = "the temporary journal" if path is None else str(path)
        self._file = self._open(path)
        self._places: dict[str, int] = {}
        end = 0
        for place, line in self._lines():
            end = place + len(line)
            name = _parse(line)[0]
            if name:
                self._places[name] = place
        self._file.truncate(end)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, key: str, found: Finding) -> None:
        """Write a line; it is the operating system's when this returns."""
        line = (json.dumps({"key": key, **found.to_dict()}) + "\n").encode()
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise _unwritable(self.name, error) from error
        self._places[key] = self._file.tell() - len(line)

    def get(self, key: str) -> Finding | None:
        """What was found last about this file."""
        place = self._places.get(key)
        if place is None:
            return None
        self._file.seek(place)
        return _parse(self._file.readline())[1]

    def _open(self, path: Path | None) -> IO[bytes]:
        try:
            return tempfile.TemporaryFile("a+b") if path is None else path.open("a+b")
        except OSError as error:
            raise _unwritable(self.name, error) from error

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines with their places."""
        self._file.seek(0)
        place = 0
        for line in self._file:
            if line.endswith(b"\n"):
                yield place, line
            place += len(line)


def _parse(line: bytes) -> tuple[str, Finding | None]:
    try:
        values: dict[str, Any] = json.loads(line)
        return values.pop("key"), Finding.from_dict(values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", None


def key_of(sample: Sample) -> str:
    """What a sample is called in the journal: its path, and the part of it that is meant."""
    if sample.start > 0 or sample.end < math.inf:
        return f"{sample.path}#t={sample.start:g},{sample.end:g}"
    return f"{sample.path}#n={sample.pictures}" if sample.pictures else sample.path


def stamp(sample: Sample) -> tuple[int, int]:
    """Size and time of the last change; a time of 0 for what may not be read now.

    Of numbered pictures it is their folder's. What has an address is taken as it was, since asking
    for each would take longer than all the rest.
    """
    path = sample.path.rpartition("/")[0] if sample.pictures else sample.path
    if is_address(path):
        return 0, 1
    try:
        status = os.stat(path)  # noqa: PTH116  # a hundred thousand times: no object for each
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns if os.access(path, os.R_OK) else 0


def is_current(found: Finding, sample: Sample, seconds: float) -> bool:
    """Whether a file need not be looked at again.

    What could not be opened is tried again, since new permissions leave no trace in a file, and so
    is what an address did not give, and what ran out of a shorter time than it has now.
    """
    if found.limit and found.limit < seconds:
        return False
    if found.reason and is_address(sample.path):
        return False
    return bool(found.time) and (found.bytes, found.time) == stamp(sample)


def _unwritable(name: str, error: OSError) -> UserError:
    return UserError(f"{name} cannot be written: {error.strerror or error}")

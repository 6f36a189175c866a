"""A file of what is done, a line of JSON each, for work that goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import UserError


class Ledger:
    """What was found for each key, and the stamp it was found under; a context manager.

    A line that was cut off is passed over. Raises `UserError` where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._done: dict[str, tuple[list[Any], list[Any]]] = {}
        try:
            self._file = path.open("a+", encoding="utf-8")
            self._file.seek(0)
            for line in self._file:
                self._read(line)
            self._file.write("\n")  # after a line that was cut off
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from error

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def get(self, key: str, stamp: list[Any]) -> list[Any] | None:
        """What was found, if it was under this stamp."""
        old, found = self._done.get(key, ([], []))
        return found if found and old == stamp else None

    def add(self, key: str, stamp: list[Any], found: list[Any]) -> None:
        """Stamps and values are of what JSON gives back as it was."""
        self._file.write(json.dumps([key, stamp, *found]) + "\n")
        self._file.flush()

    def _read(self, line: str) -> None:
        try:
            key, stamp, *found = json.loads(line)
            self._done[key] = stamp, found
        except (ValueError, TypeError):
            return  # empty, or cut off

"""Writing a file so that at any moment either the old one or the whole new one is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from .errors import UserError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path`, which takes its place when the context ends well.

    The folder is made if need be. Raises `UserError` where the file cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Before long work: raises `UserError` where a file could not be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raises `UserError` where a file would replace what is none: a folder, a device."""
    if os.path.lexists(path) and not Path(path).is_file():
        raise UserError(f"{path} cannot be written: it is no regular file")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, whole or not at all. Raises `UserError` as `replacing` does."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


class Growing:
    """A file that grows piece by piece under a temporary name and takes its own when it is closed.

    A process that is killed leaves the pieces written so far under the temporary name. Without any
    piece there is no file, and one of that name stays as it was. Raises `UserError` where it cannot
    be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        check_place(self.path)
        self._unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self._file: BinaryIO | None = None

    def write(self, piece: bytes, place: int | None = None) -> None:
        """Write a piece at the end, or over what is at a place."""
        try:
            if self._file is None:
                self._file = self._unfinished.open("wb")
            self._file.seek(place or 0, os.SEEK_END if place is None else os.SEEK_SET)
            self._file.write(piece)
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """The file is whole."""
        if self._file is None:
            return
        try:
            self._file.close()
            self._unfinished.replace(self.path)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> UserError:
        return UserError(f"{self.path} cannot be written: {error.strerror or error}")

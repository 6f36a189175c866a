"""A published list: its lines, wherever it lies, and what each says before a file is looked for."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import fsspec

from ..errors import UserError
from ..samples import is_address, join

TRAIN, VAL, TEST = "train", "val", "test"
SIDES = {
    "": "",
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "validate", "validation", "valid", "dev"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}


class Row(NamedTuple):
    """One video as a list names it.

    file, line: where it is written.
    path: a path from the root; or, where a list gives only the name of a video, `names`: the file
        names without suffix, or folders of pictures, that may hold it, the likeliest first.
    label: a class name, or a number.
    actions: instead of a label, any number of (label, start, end), seconds.
    side: "train", "val", "test", or "" where the list does not say.
    start, end: the part of the file that is meant, seconds.
    whole: the same, for the case that the file is the whole recording; `names[-1]` may be one.
    pictures: how many, where they are listed as numbered pictures.
    source: the recording; "" to read it from the file name.
    """

    file: str
    line: int
    path: str = ""
    names: tuple[str, ...] = ()
    label: str | int = ""
    actions: tuple[tuple[str | int, float, float], ...] | None = None
    side: str = ""
    start: float = 0.0
    end: float = math.inf
    whole: tuple[float, float] | None = None
    pictures: int = 0
    rate: float | None = None
    source: str = ""

    @property
    def called(self) -> str:
        """What to call it when it is missing."""
        return self.path or self.names[0]


@dataclass(frozen=True)
class Listing:
    """What a format's function makes of a list.

    classes: their names in the order of the labels, where the list says; () where it does not.
    dataset: which one it is by its format alone, such as "charades" (see `counts`).
    rate: of its pictures, per second, where they come without a rate.
    """

    rows: list[Row]
    classes: tuple[str, ...] = ()
    dataset: str = ""
    rate: float = 30.0


@dataclass(frozen=True)
class Listed:
    """A list by its path or address. part: which of the three divisions of UCF101 or HMDB51."""

    address: str
    part: int = 1

    @property
    def name(self) -> str:
        return self.address.rstrip("/").rpartition("/")[2]

    @property
    def folder(self) -> str:
        """Where it lies, as an address or an absolute path."""
        return parent(absolute(self.address))

    def beside(self, name: str) -> Listed:
        """The file of that name in the same folder."""
        return Listed(join(self.folder, name), self.part)

    @contextmanager
    def open(self) -> Iterator[IO[str]]:
        """Its text, with any line ends and without a byte-order mark. Raises `UserError`."""
        try:
            if is_address(self.address):
                with _remote(self.address) as raw:
                    yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline=None)
            else:
                path = Path(self.address).expanduser()
                with path.open(encoding="utf-8-sig", newline=None) as file:
                    yield file
        except FileNotFoundError:
            # a folder at an address is not looked into
            what = "list" if is_address(self.address) else "file or folder"
            raise UserError(f"{self.address}: there is no such {what}") from None
        except UnicodeDecodeError:
            raise UserError(
                f"{self.address} is no UTF-8 text; a list of videos is expected here"
            ) from None
        except OSError as error:
            raise UserError(
                f"{self.address} cannot be read: {error.strerror or error or type(error).__name__}"
            ) from error

    def lines(self) -> Iterator[tuple[int, str]]:
        """(line number from 1, text), blank lines left out."""
        with self.open() as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if text:
                    yield number, text

    def text(self) -> str:
        with self.open() as file:
            return file.read()

    def records(self) -> Iterator[tuple[int, dict[str, str]]]:
        """(line number, column -> cell) of a CSV with a header.

        The separator is the first of comma, semicolon and tab that the header has. Raises
        `UserError` for a line with another number of columns.
        """
        with self.open() as file:
            header = ""
            while not header.strip():
                header = file.readline()
                if not header:
                    raise UserError(f"{self.address} is empty")
            mark = separator(header)
            names = [cell.strip().lower() for cell in next(csv.reader([header], delimiter=mark))]
            reader = csv.reader(file, delimiter=mark)
            for cells in reader:
                if not any(cells):
                    continue
                number = reader.line_num + 1
                if len(cells) != len(names):
                    raise at(
                        self.address,
                        number,
                        f"it has {len(cells)} columns and the header {len(names)}"
                        f" ({', '.join(names)})",
                    )
                yield number, dict(zip(names, (cell.strip() for cell in cells), strict=True))


def _remote(address: str) -> Any:
    try:
        return fsspec.open(address, "rb")
    except (ImportError, ValueError) as error:  # no such protocol, or not without a package
        raise UserError(f"{address}: {error}") from error


def separator(header: str) -> str:
    """The first of comma, semicolon and tab that a header has."""
    return next((mark for mark in ",;\t" if mark in header), ",")


def at(file: str, line: int, text: str) -> UserError:
    """The error of a line."""
    return UserError(f"{file}, line {line}: {text}")


def number(file: str, line: int, text: str, what: str) -> float:
    """A number written in a list. Raises `UserError` where it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise at(file, line, f"the {what} is {text!r}; expected a number")
    return value


def span(file: str, line: int, start: str, end: str) -> tuple[float, float]:
    """Seconds; "" is the beginning, or the end. Raises `UserError` for what is no time."""
    first = number(file, line, start, "start") if start else 0.0
    last = number(file, line, end, "end") if end not in ("", "inf") else math.inf
    if not 0 <= first < last:
        raise at(file, line, f"it starts at {first:g} s and ends at {last:g} s")
    return first, last


def side_of(file: str, line: int, text: str) -> str:
    """train, val, test or "". Raises `UserError` for another word."""
    side = SIDES.get(text.lower())
    if side is None:
        raise at(file, line, f"the split is {text!r}; expected train, val or test")
    return side


def exists(address: str) -> bool:
    """Whether there is a file or folder of that path or address."""
    if not is_address(address):
        return Path(address).expanduser().exists()
    try:
        fs, inner = fsspec.core.url_to_fs(address)
        return bool(fs.exists(inner))
    except (ImportError, ValueError, OSError):
        return False


def absolute(address: str) -> str:
    """An address as it is, a local path in full."""
    return address if is_address(address) else str(Path(address).expanduser().absolute())


def parent(address: str) -> str:
    """The folder that a path or address lies in."""
    if is_address(address):
        return address.rstrip("/").rpartition("/")[0]
    return str(Path(address).parent)

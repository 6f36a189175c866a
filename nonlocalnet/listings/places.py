"""Which of the listed videos are there: every folder is listed once, no file is asked for alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple, Protocol

import fsspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import UserError
from ..samples import is_address, join
from .lists import is_video
from .pictures import count, fill, template_of
from .rows import Row

DEEPEST = 6  # folders below the root that are looked into
LOOKED_INTO = 5  # folders of pictures, for how they are named


class Found(NamedTuple):
    """A file; or, with `pictures`, a pattern of numbered pictures. name: of the file or folder."""

    path: str
    name: str
    pictures: int = 0


class Contents(NamedTuple):
    """The names in a folder."""

    files: frozenset[str]
    folders: frozenset[str]


class Advance(Protocol):
    def __call__(self, total: int | None = None) -> None: ...


def names_in(folder: str) -> list[str]:
    """The files in a folder, sorted. Raises `UserError` if there is no such folder."""
    found = _contents(folder)
    if found is None:
        raise UserError(f"{folder}: there is no such folder")
    return sorted(found.files)


def find(rows: Sequence[Row], root: str, template: str | None) -> list[Found | None]:
    """Where each row's video is below the root; None where it is missing."""
    by_path = [i for i, row in enumerate(rows) if row.path]
    by_name = [i for i, row in enumerate(rows) if not row.path]
    found: dict[int, Found] = {}
    if by_path:
        at = _by_path([rows[i] for i in by_path], root, template)
        found |= {by_path[i]: place for i, place in at.items()}
    if by_name:
        at = _by_name([rows[i] for i in by_name], root, template)
        found |= {by_name[i]: place for i, place in at.items()}
    return [found.get(i) for i in range(len(rows))]


def _by_path(rows: Sequence[Row], root: str, template: str | None) -> dict[int, Found]:
    """Index -> place. A row of pictures names their folder, or a pattern in it."""
    patterns = [bool(row.pictures) and "{" in row.path.rpartition("/")[2] for row in rows]
    wanted: dict[str, list[tuple[int, str]]] = {}
    for i, (row, pattern) in enumerate(zip(rows, patterns, strict=True)):
        path = row.path.rpartition("/")[0] if pattern else row.path
        folder, _, name = path.rpartition("/")
        if path.startswith("/") and not folder:
            folder = "/"
        wanted.setdefault(folder, []).append((i, name))
    found: dict[int, Found] = {}
    folders: dict[int, str] = {}  # of rows of pictures
    with _bar("looking for videos") as advance:
        for folder, entries in wanted.items():
            where = _normal(join(root, folder) if folder else root)
            contents = _contents(where)
            for i, name in entries:
                if not _holds(contents, name, folder=bool(rows[i].pictures)):
                    continue
                path = f"{where.rstrip('/')}/{name}"
                if rows[i].pictures:
                    folders[i] = path
                else:
                    found[i] = Found(path, name)
            advance(len(wanted))
    if template is None:
        template = _template([path for i, path in folders.items() if not patterns[i]])
    for i, path in folders.items():
        name = path.rpartition("/")[2]
        last = rows[i].path.rpartition("/")[2] if patterns[i] else fill(template, name)
        found[i] = Found(f"{path}/{last}", name, rows[i].pictures)
    return found


def _normal(folder: str) -> str:
    """Without "..", so that a video has one path however a list writes it."""
    return folder if is_address(folder) else os.path.normpath(folder)


def _holds(contents: Contents | None, name: str, folder: bool) -> bool:
    if contents is None:
        return False
    return contents is UNKNOWN or name in (contents.folders if folder else contents.files)


def _by_name(rows: Sequence[Row], root: str, template: str | None) -> dict[int, Found]:
    """Index -> place, of videos known by the name of their file or folder of pictures alone."""
    wanted = {name for row in rows for name in row.names}
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    with _bar("looking for videos") as advance:
        for path, name, is_folder in _walk(root, wanted, advance):
            (folders if is_folder else files).setdefault(name, path)
    chosen = {
        i: name
        for i, row in enumerate(rows)
        for name in islice((n for n in row.names if n in files or n in folders), 1)
    }
    found = {i: Found(files[name], name) for i, name in chosen.items() if name in files}
    pictured = {i: name for i, name in chosen.items() if name not in files}
    if template is None:
        template = _template([folders[name] for name in pictured.values()])
    with _bar("counting pictures") as advance:
        for i, name in pictured.items():
            contents = _contents(folders[name])
            pictures = count(tuple(contents.files), template, name) if contents else 0
            if pictures:
                found[i] = Found(f"{folders[name]}/{fill(template, name)}", name, pictures)
            advance(len(pictured))
    return found


def _walk(
    root: str, wanted: set[str], advance: Advance, depth: int = 0
) -> Iterator[tuple[str, str, bool]]:
    """(path, name without suffix, whether it is a folder) of what is wanted below the root."""
    contents = _contents(root)
    if contents is UNKNOWN:
        raise UserError(
            f"{root} cannot be listed, and the list gives names without paths; give the videos'"
            " folder as a local path or a bucket by --root"
        )
    advance()
    if contents is None:
        return
    for name in sorted(contents.files):
        stem = name.rpartition(".")[0]
        if stem in wanted and is_video(name):
            yield f"{root.rstrip('/')}/{name}", stem, False
    for name in sorted(contents.folders):
        path = f"{root.rstrip('/')}/{name}"
        if name in wanted:
            yield path, name, True
        elif depth < DEEPEST:
            yield from _walk(path, wanted, advance, depth + 1)


def _template(folders: Sequence[str]) -> str:
    """How pictures are named, from the first folders. Raises `UserError` if they do not agree."""
    seen: dict[str, str] = {}
    for folder in folders[:LOOKED_INTO]:
        contents = _contents(folder)
        name = folder.rpartition("/")[2]
        found = template_of(sorted(contents.files), name) if contents else None
        if found:
            seen.setdefault(found, folder)
    if len(seen) > 1:
        (one, here), (other, there) = list(seen.items())[:2]
        raise UserError(
            f"pictures are named {one} in {here} and {other} in {there}; say which by --template"
        )
    if folders and not seen:
        raise UserError(
            f"{folders[0]} holds no numbered pictures such as img_00001.jpg; say how they are named"
            " by --template"
        )
    return next(iter(seen), "")


UNKNOWN = Contents(frozenset(), frozenset())  # of a server that lists nothing


def _contents(folder: str) -> Contents | None:
    """What lies in a folder, hidden names left out; None if there is none."""
    try:
        if is_address(folder):
            return _remote(folder)
        with os.scandir(folder) as entries:
            seen = [(entry.name, entry.is_dir()) for entry in entries if entry.name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror or error}") from error
    return _split(seen)


def _remote(folder: str) -> Contents | None:
    if folder.startswith(("http://", "https://")):
        return UNKNOWN
    try:
        fs, inner = fsspec.core.url_to_fs(folder)
        entries: list[dict[str, Any]] = fs.ls(inner, detail=True)
    except (ImportError, ValueError) as error:
        raise UserError(f"{folder}: {error}") from error
    names = ((e["name"].rstrip("/").rpartition("/")[2], e["type"] == "directory") for e in entries)
    return _split([(name, is_folder) for name, is_folder in names if name and name[0] != "."])


def _split(seen: Iterable[tuple[str, bool]]) -> Contents:
    pairs = list(seen)
    return Contents(
        frozenset(name for name, is_folder in pairs if not is_folder),
        frozenset(name for name, is_folder in pairs if is_folder),
    )


@contextmanager
def _bar(what: str) -> Iterator[Advance]:
    """A bar over folders on standard error, if that is a terminal."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(what, total=None)

        def advance(total: int | None = None) -> None:
            bar.update(task, advance=1, total=total)

        yield advance

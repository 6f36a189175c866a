"""The videos that a user names: files, folders, lists of them, addresses and patterns."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path

import fsspec

from .datasets import Broken
from .errors import UserError
from .folders import VIDEO_SUFFIXES, writable_name
from .samples import is_address

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

LISTS = (".csv", ".list", ".lst", ".txt")


def find_videos(paths: Paths) -> list[str | Broken]:
    """The files that the paths stand for, in order; one that stands for none as a `Broken`.

    A folder, here or at an address, stands for all video files in it and below, sorted by path; a
    pattern, which is anything with a * in it, for what it matches (`fsspec`'s rules, ** any depth).
    A list stands for its lines: a .txt has one path a line, a .csv a column `path` or paths alone.
    Paths in it are relative to where it lies. Any other file is a video, whatever its name.

    Raises `UserError` if there is no path at all, for a list that cannot be read, and for an
    address that cannot be searched.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise UserError("there is nothing to predict; expected video files or folders of them")
    return [_refused(item) for path in given for item in _meant(os.fspath(path))]


def _meant(path: str) -> list[str | Broken]:
    if not is_address(path):  # such a path may hold a * and still be one file
        if Path(path).is_dir():
            return [*_walk(Path(path))] or [_nothing(path, "there is no video file in this folder")]
        if Path(path).suffix.lower() in LISTS:
            return [*_read_list(Path(path))] or [_nothing(path, "there is no path in this list")]
        if "*" not in path or Path(path).exists():
            return [str(Path(path))]
    return _search(path)


def _nothing(path: str, reason: str) -> str | Broken:
    return Broken(path, reason)


def _refused(item: str | Broken) -> str | Broken:
    """A path that cannot be written down is not used, as in a folder to train on."""
    escaped = writable_name(item.path if isinstance(item, Broken) else item)
    return item if escaped is None else Broken(escaped, "this name is not valid UTF-8; rename it")


def _walk(folder: Path) -> list[str]:
    """Every video file below a folder, sorted; hidden files and folders are left out."""
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [str(Path(root, name)) for name in names if _is_video(name)]
    return sorted(files)


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")


def _read_list(path: Path) -> list[str]:
    """The paths of a list, seen from here."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"the list {path} cannot be read: {reason}") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if path.suffix.lower() == ".csv":
        rows = list(csv.reader(lines))
        heads = rows[0] if rows and "path" in rows[0] else ["path"]
        if {"start", "end"} & set(heads):
            raise UserError(
                f"{path} names parts of videos (start, end), which cannot be predicted from a list"
                " yet; cut them out first, or leave the columns out to predict whole files"
            )
        column = heads.index("path")
        found = [row[column] for row in rows if row is not heads and len(row) > column]
    else:
        found = [line.strip() for line in lines]
    return [item if is_address(item) else str(path.parent / item) for item in found]


def _search(address: str) -> list[str | Broken]:
    """What a pattern or an address stands for."""
    try:
        system, inside = fsspec.core.url_to_fs(address)
        if "*" in address:
            found = system.glob(inside, detail=True)
            files = [name for name, facts in found.items() if facts["type"] == "file"]
        elif _is_video(Path(inside).name) or not system.isdir(inside):
            return [address]
        else:
            files = [name for name in system.find(inside) if _is_video(Path(name).name)]
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{address} cannot be searched: {error}") from error
    local = "file" in system.protocol
    names = sorted(name if local else system.unstrip_protocol(name) for name in files)
    return [*names] or [_nothing(address, "no file matches this")]

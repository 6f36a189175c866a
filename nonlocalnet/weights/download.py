"""A published model from its address to a checkpoint of ours, fetched once and kept.

What was interrupted goes on where it stopped. Nothing is deleted; a file counts as complete only
after its size, and its hash where the publisher gives one, were checked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from torch import nn

from ..card import card_of, set_card
from ..errors import UserError
from ..labels import class_names
from . import load, save
from .published import Published, find

try:
    from fcntl import LOCK_EX, flock
except ImportError:  # Windows; two processes that fetch the same file there disturb each other
    flock = None  # type: ignore[assignment]

Progress = Callable[[int, int | None], None]  # bytes done, bytes in all where that is known

PIECE = 1 << 18  # bytes read at a time
PATIENCE = 30.0  # seconds without a byte after which a connection counts as lost


def cache_folder() -> Path:
    """Where published models are kept: $NONLOCALNET_HOME, else nonlocalnet in the user's cache."""
    home, cache = os.environ.get("NONLOCALNET_HOME"), os.environ.get("XDG_CACHE_HOME")
    if home:
        return Path(home).expanduser()
    return (Path(cache) if cache else Path.home() / ".cache") / "nonlocalnet"


def ready(name: str, folder: Path | None = None, progress: Progress | None = None) -> Path:
    """The checkpoint of a published model, as NAME.safetensors in `folder`.

    The first call downloads and converts, later ones return at once. Its card has the class names,
    input and view rule of the table, the address it came from and its licence.

    Raises:
        UserError: no such model, no network, a damaged download, a folder that cannot be written,
            a file that is not what the table says.
    """
    row = find(name)
    folder = cache_folder() if folder is None else folder
    path = folder / f"{row.name}.safetensors"
    if path.is_file():
        return path
    with _alone(folder, row.name):
        if not path.is_file():  # another process may have made it meanwhile
            model = _load(_fetch(row, folder, progress or _ignore), row)
            _complete_card(model, row)
            save(model, path, prove=True)
    return path


def fetch(row: Published, folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Download the publisher's file of a row into `folder`, or find it there; return its path.

    While it is incomplete it is called NAME.partial, and a later call goes on from there.

    Raises `UserError` as `ready` does.
    """
    folder = cache_folder() if folder is None else folder
    with _alone(folder, row.name):
        return _fetch(row, folder, progress or _ignore)


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes from fetching the same model; they wait."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f".{name}.lock").open("ab")
    except OSError as error:
        raise _unwritable(folder, error) from None
    with lock:
        if flock is not None:
            with suppress(OSError):  # not every file system can
                flock(lock, LOCK_EX)
        yield


def _fetch(row: Published, folder: Path, progress: Progress) -> Path:
    suffix = re.search(r"(\.[a-z]+){0,2}$", urlsplit(row.url).path)  # such as .pth.tar
    path = folder / f"{row.name}{suffix[0] if suffix else ''}"
    if not path.is_file():
        partial = path.with_name(path.name + ".partial")
        _transfer(row, partial, path, progress)
        _check_hash(row, partial)
        partial.replace(path)
    return path


def _transfer(row: Published, partial: Path, path: Path, progress: Progress) -> None:
    """Bring `partial` to its full size, whatever of it is there already."""
    done = partial.stat().st_size if partial.is_file() else 0
    headers = {"User-Agent": "nonlocalnet"}
    if done:
        headers["Range"] = f"bytes={done}-"
    try:
        response = urlopen(Request(row.url, headers=headers), timeout=PATIENCE)
    except HTTPError as error:
        error.close()
        if error.code == 416 and done:  # nothing lies beyond what is here
            _check_size(row, partial, _total(error.headers.get("Content-Range")), path)
            progress(done, done)
            return
        raise UserError(
            f"{row.url} answers {error.code} {error.reason}: the publisher may have moved the"
            f" file; {_by_hand(row, path)}"
        ) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"cannot reach {row.url} ({reason}); {_by_hand(row, path)}") from None
    with response:
        _receive(row, response, partial, path, done, progress)


def _receive(
    row: Published,
    response: HTTPResponse,
    partial: Path,
    path: Path,
    done: int,
    progress: Progress,
) -> None:
    """Write what the server sends behind the `done` bytes, or over them if it sends all again."""
    headers = response.headers
    if headers.get_content_type() == "text/html":
        raise UserError(f"{row.url} answers with a web page instead of it; {_by_hand(row, path)}")
    if response.status == 206:
        sent = headers.get("Content-Range", "")
        total = _total(sent)
        if not sent.startswith(f"bytes {done}-"):
            raise UserError(
                f"the server of {row.url} sends another part than asked for ({sent!r}): delete"
                f" {partial} and start again"
            )
    else:
        done, length = 0, headers.get("Content-Length")
        total = int(length) if length and length.isdecimal() else row.bytes or None
    try:
        partial.touch()
        with partial.open("r+b") as file:
            file.truncate(done)
            file.seek(done)
            progress(done, total)
            while piece := _read(response, row, done, total):
                file.write(piece)
                done += len(piece)
                progress(done, total)
    except OSError as error:
        raise _unwritable(partial.parent, error) from None
    if total is not None and done < total:
        raise _interrupted(row, "the connection was closed", done, total)
    _check_size(row, partial, total, path)


def _read(response: HTTPResponse, row: Published, done: int, total: int | None) -> bytes:
    try:
        return response.read(PIECE)
    except (OSError, HTTPException) as error:
        raise _interrupted(row, str(error) or type(error).__name__, done, total) from None


def _total(content_range: str | None) -> int | None:
    """The full size in "bytes 10-99/100" or "bytes */100"."""
    match = re.search(r"/(\d+)$", content_range or "")
    return int(match[1]) if match else None


def _check_size(row: Published, partial: Path, total: int | None, path: Path) -> None:
    size = partial.stat().st_size
    for wanted, who in ((total, "its server has"), (row.bytes or None, "its publisher states")):
        if wanted is not None and size != wanted:
            raise UserError(
                f"{partial} has {size} bytes, but {who} {wanted}: delete it and start again;"
                f" if that does not help, {_by_hand(row, path)}"
            )


def _check_hash(row: Published, partial: Path) -> None:
    if not row.sha256:
        return
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(row.sha256):
        raise UserError(
            f"{partial} has the sha256 {found[:16]}..., but that of {row.url} begins with"
            f" {row.sha256}: delete it and start again; if the next one is the same, its publisher"
            f" has replaced it, and `nonlocalnet convert` with --preset {row.preset} reads it all"
            " the same, without the table's frames, views and class names"
        )


def _load(file: Path, row: Published) -> nn.Module:
    try:
        return load(file, preset=row.preset)
    except UserError as error:
        raise UserError(f"{error}; to fetch it again from {row.url}, delete {file}") from None


def _complete_card(model: nn.Module, row: Published) -> None:
    """Give a network read from a file what the table knows beyond it."""
    card = card_of(model)
    classes = class_names(row.classes) if row.classes else card.classes
    outputs = card.architecture.get("num_classes", len(classes))
    if row.classes and outputs != len(classes):
        raise UserError(
            f"{row.name} has {outputs} outputs, but {row.classes} has {len(classes)} classes: the"
            " file is not the model that the table names"
        )
    changes = {**row.card, "classes": classes, "source": row.url, "licence": row.licence}
    set_card(model, dataclasses.replace(card, **changes))


def _by_hand(row: Published, path: Path) -> str:
    return f"put a file fetched in another way at {path} and give the same command again"


def _interrupted(row: Published, reason: str, done: int, total: int | None) -> UserError:
    of = f" of {total / 1e6:.1f}" if total else ""
    return UserError(
        f"the download of {row.url} stopped after {done / 1e6:.1f}{of} MB ({reason}); the same"
        " command goes on from there"
    )


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write in {folder} ({error.strerror or error}); name another folder in"
        " NONLOCALNET_HOME"
    )


def _ignore(done: int, total: int | None) -> None:
    """No one watches."""

"""Files at an address, s3://..., https://..., any that fsspec knows: read by ranges, not fetched.

Only where a server cannot send a part of a file is it fetched whole, once, to a temporary file.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import fsspec

from .packets import VideoError

BLOCK = 2**18  # bytes of a request, unless more are asked for at once
KEPT = 16  # blocks of a file in memory


class Remote:
    """A file at an address, of which any part can be read; `close` it.

    Raises `VideoError` when it cannot be reached, is no file or is empty, here and in `read`.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        with _in_words(address):
            self._system, self._path = fsspec.core.url_to_fs(address)
            info = self._system.info(self._path)
            if info.get("type") == "directory":
                raise IsADirectoryError
            if info.get("size") == 0:
                raise VideoError(address, "is empty (0 bytes)")
            self._whole = info.get("size") is None or not info.get("partial", True)
            self._file = self._copied() if self._whole else self._opened()
            self.size = int(self._file.seek(0, io.SEEK_END))
        if not self.size:
            self.close()
            raise VideoError(address, "is empty (0 bytes)")

    def read(self, start: int, count: int) -> bytes:
        """`count` bytes from `start` on, fewer at the end of the file."""
        if start >= self.size or not count:
            return b""
        with _in_words(self.address):
            try:
                return self._part(start, count)
            except ValueError:  # a server that does not heed ranges, and did not say so
                if self._whole:
                    raise
                self._whole, self._file = True, self._copied()
                return self._part(start, count)

    def close(self) -> None:
        """Nothing can be read afterwards."""
        self._file.close()

    def _part(self, start: int, count: int) -> bytes:
        self._file.seek(start)
        return bytes(self._file.read(count))

    def _opened(self) -> Any:
        options = {"cache_type": "blockcache", "cache_options": {"maxblocks": KEPT}}
        return self._system.open(self._path, "rb", block_size=BLOCK, **options)

    def _copied(self) -> Any:
        copy = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        with self._system.open(self._path, "rb", block_size=0) as stream:
            shutil.copyfileobj(stream, copy)
        return copy


class Reading(io.RawIOBase):
    """A remote file as Python's own files are, from its start; closing it leaves the other open.

    silent: stretches (start, end) that are not fetched but read as zeros.
    """

    def __init__(self, remote: Remote, silent: Sequence[tuple[int, int]] = ()) -> None:
        self._remote, self._silent, self._place = remote, silent, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._remote.size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, count: int = -1) -> bytes:
        end = self._remote.size if count < 0 else min(self._place + count, self._remote.size)
        parts = []
        for start, stop in (*self._silent, (end, end)):
            parts.append(self._take(self._remote.read, min(start, end)))
            parts.append(self._take(lambda _, count: bytes(count), min(stop, end)))
        return b"".join(parts)

    def _take(self, source: Callable[[int, int], bytes], end: int) -> bytes:
        """What lies from here to `end`, and the place moves there."""
        data = source(self._place, max(end - self._place, 0))
        self._place += len(data)
        return data


def media_data(remote: Remote) -> list[tuple[int, int]]:
    """Where the pictures and the sound of an mp4 lie, (start, end); empty for other files.

    ISO 14496-12, section 4.2: a box is its length, its kind, its content.
    """
    found, place = [], 0
    while place + 8 <= remote.size:
        head = remote.read(place, 16)
        length, kind, start = int.from_bytes(head[:4], "big"), head[4:8], place + 8
        if place == 0 and kind != b"ftyp":
            break
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), place + 16
        end = place + length if length else remote.size
        if end < start:
            break
        if kind == b"mdat":
            found.append((start, min(end, remote.size)))
        place = end
    return found


@contextmanager
def _in_words(address: str) -> Iterator[None]:
    """Whatever the library of a storage raises becomes one sentence."""
    try:
        yield
    except VideoError:
        raise
    except Exception as error:  # each library has errors of its own, without a common class
        raise VideoError(address, _reason(error)) from error


def _reason(error: Exception) -> str:
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause is not None:  # HTTP: whatever went wrong
        status = getattr(cause, "status", None)
        if status in (401, 403):
            return f"cannot be opened: no access (status {status})"
        if status not in (404, 410):
            return f"cannot be reached ({_first_line(cause)})"
    if isinstance(error, FileNotFoundError):
        return "cannot be opened: there is no such file"
    if isinstance(error, PermissionError):
        return f"cannot be opened: no access ({_first_line(error)})"
    if isinstance(error, IsADirectoryError):
        return "is a folder, not a video file"
    if isinstance(error, ImportError):
        return f'needs pip install "nonlocalnet[remote]" ({_first_line(error)})'
    return f"cannot be read ({_first_line(error)})"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

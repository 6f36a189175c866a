"""Before training: what is in a folder of videos, and what cannot be used and why."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from .errors import UserError
from .folders import read_folder
from .samples import Split
from .video import Video, VideoError, VideoInfo

DECODED_BYTES = 1 << 27  # whole frames held at a time while a file is decoded to its end


@dataclass(frozen=True)
class FileReport:
    """What was found out about one file.

    usable: whether frames can be had from it; if not, `reason` says why and `info` may be None.
    bytes: its size. corrupt: damaged pictures and packets. complete: whether it was decoded to
    its end within the time limit. short: shorter than asked for.
    same_as: other files with the same content; leak: one of them is on the other side of the split.
    """

    path: str
    class_name: str
    side: str  # "train" or "val"
    bytes: int = 0
    usable: bool = False
    reason: str = ""
    info: VideoInfo | None = None
    corrupt: int = 0
    complete: bool = False
    short: bool = False
    same_as: tuple[str, ...] = ()
    leak: bool = False


@dataclass(frozen=True)
class _Found:
    """What a checking process sends: once after opening, once after decoding to the end."""

    info: VideoInfo | None = None
    reason: str = ""
    corrupt: int = 0
    complete: bool = False


def check_files(
    folder: str | os.PathLike[str] | Split,
    workers: int = 2,
    seconds: float = 60.0,
    shortest: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[FileReport]:
    """Decode every video of a data folder to its end, in `workers` processes, and report on each.

    seconds: time limit per file. The process of a file that takes longer is ended; the file counts
        as usable if it could be opened and its first frame decoded by then.
    shortest: videos of less than this many seconds are marked as short.
    progress: called with (files done, files in all).

    The reports come in the order of the split: training, then validation. Raises `UserError` as
    `read_folder` does, and for less than one process or no time at all.
    """
    if workers < 1:
        raise UserError(f"files are checked by 1 process or more, not by {workers}")
    if not seconds > 0:
        raise UserError(f"the time limit per file must be above 0 seconds, not {seconds:g}")
    split = folder if isinstance(folder, Split) else read_folder(folder)
    reports = {
        sample.path: FileReport(sample.path, split.classes[sample.label], side, _size(sample.path))
        for side, samples in (("train", split.train), ("val", split.val))
        for sample in samples
    }
    with closing(_examine(list(reports), workers, seconds)) as files:
        for done, (path, found) in enumerate(files, 1):
            reports[path] = replace(
                reports[path],
                usable=not found.reason,
                reason=found.reason,
                info=found.info,
                corrupt=found.corrupt,
                complete=found.complete,
                short=found.info is not None and found.info.duration < shortest,
            )
            if progress is not None:
                progress(done, len(reports))
    return _mark_copies(list(reports.values()))


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _mark_copies(reports: list[FileReport]) -> list[FileReport]:
    """Fill in `same_as` and `leak`. Only files of equal size are read."""
    by_size: dict[int, list[FileReport]] = {}
    for report in reports:
        by_size.setdefault(report.bytes, []).append(report)
    marked = {}
    for size, group in by_size.items():
        if not size or len(group) < 2:
            continue
        by_content: dict[bytes, list[FileReport]] = {}
        for report in group:
            by_content.setdefault(_digest(report.path), []).append(report)
        for same in by_content.values():
            leak = len({report.side for report in same}) > 1
            for report in same:
                others = tuple(other.path for other in same if other is not report)
                marked[report.path] = replace(report, same_as=others, leak=leak)
    return [marked.get(report.path, report) for report in reports]


def _digest(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return path.encode()  # unlike any other


@dataclass
class _Worker:
    """A checking process, the file it is at, and what it has said about it so far."""

    process: BaseProcess
    pipe: Connection
    path: str = ""
    deadline: float = 0.0
    found: _Found | None = None

    def give(self, path: str, seconds: float) -> None:
        self.path, self.deadline, self.found = path, time.monotonic() + seconds, None
        self.pipe.send(path)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _examine(
    paths: list[str], workers: int, seconds: float
) -> Generator[tuple[str, _Found], None, None]:
    """(path, what was found) in the order in which files are done.

    Processes of our own, because a pool can neither end a task nor outlive a crash in a codec.
    """
    waiting = paths[::-1]
    busy: list[_Worker] = []
    idle: list[_Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < max(1, workers):
                worker = idle.pop() if idle else _start()
                worker.give(waiting.pop(), seconds)
                busy.append(worker)
            soonest = min(worker.deadline for worker in busy)
            ready = wait([w.pipe for w in busy], max(0.0, soonest - time.monotonic()))
            for worker in list(busy):
                found = _hear(worker, worker.pipe in ready, seconds)
                if found is None:
                    continue
                busy.remove(worker)
                if worker.process.is_alive():
                    idle.append(worker)
                yield worker.path, found
    finally:
        for worker in busy + idle:
            worker.end()


def _hear(worker: _Worker, ready: bool, seconds: float) -> _Found | None:
    """The end of a file, if it has come: the worker's own word, its death, or its time limit."""
    if ready:
        try:
            worker.found = worker.pipe.recv()
        except (EOFError, OSError):
            worker.end()
            return _Found(reason="the decoder crashed on this file")
        if worker.found.reason or worker.found.complete:
            return worker.found
    if time.monotonic() < worker.deadline:
        return None
    worker.end()
    return worker.found or _Found(reason=f"it could not be opened within {seconds:g} seconds")


def _start() -> _Worker:
    # a fork needs no second import of torch; elsewhere than on Linux it is not safe
    linux = sys.platform == "linux"
    ours, theirs = multiprocessing.Pipe()
    new = multiprocessing.get_context("fork" if linux else "spawn").Process  # type: ignore[attr-defined]
    process = new(target=_serve, args=(theirs,), daemon=True)
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; the child takes none of their locks
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    theirs.close()
    return _Worker(process, ours)


def _serve(pipe: Connection) -> None:
    """A checking process: paths come in, findings go out, until nobody is there to read them."""
    parent = multiprocessing.parent_process()
    try:
        while parent is not None and parent.is_alive():
            if pipe.poll(1.0):
                path = pipe.recv()
                for found in _decode_all(path):
                    pipe.send(found)
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _decode_all(path: str) -> Iterator[_Found]:
    try:
        with Video(path) as video:
            info = video.info
            yield _Found(info)
            step = max(1, DECODED_BYTES // (info.height * info.width * 3))
            for start in range(0, len(video), step):
                video.frames(range(start, min(start + step, len(video))))
            yield _Found(info, corrupt=video.corrupt, complete=True)
    except VideoError as error:
        yield _Found(reason=error.reason)
    except (OSError, MemoryError) as error:
        yield _Found(reason=str(error) or "there is not enough memory to decode it")

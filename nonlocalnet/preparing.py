"""A data set written anew for quick reading: every video by `reencode`, and a list of them.

It may be stopped or killed at any moment: a video is there whole or not at all, a ledger says
which ones are done, and the same call goes on. What has changed since is done anew.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from .children import end, start
from .errors import UserError
from .ledger import Ledger
from .listings.own import columns_of, write_csv
from .reading import end_with_parent
from .reencoding import Form, Written, reencode
from .samples import Sample, Split, inside, is_address
from .video import VideoError

JOURNAL = "prepared.jsonl"
LIST = "data.csv"


@dataclass
class Prepared:
    """What `prepare` did: the list of new files, and what could not be written and why."""

    listing: Path
    written: int = 0
    kept: int = 0  # from an earlier call
    bytes: int = 0  # of all new files
    damaged: list[str] = field(default_factory=list)  # written, with pictures that were damaged
    broken: list[tuple[str, str]] = field(default_factory=list)  # path, reason


@dataclass(frozen=True)
class _Task:
    sample: Sample
    target: Path
    stamp: list[Any]


def prepare(
    split: Split,
    out: Path,
    form: Form,
    workers: int,
    seconds: float = 3600.0,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Write every video of a split to the same place below `out`, as .mp4, and `out`/data.csv.

    seconds: time limit per file. progress: called with (files done, files in all).

    Raises `UserError` where `out` cannot be used.
    """
    _check(split, out, workers, seconds)
    targets = new_paths((*split.train, *split.val), split.root, out)
    found = Prepared(out / LIST)
    ledger = Ledger(out / JOURNAL)
    good: dict[str, Written] = {}

    def tasks() -> Iterator[_Task]:
        for sample, target in targets.values():
            stamp = [_stamp(sample), *dataclasses.astuple(form), str(target)]
            task = _Task(sample, target, stamp)
            if (old := _kept(ledger, task)) is not None:
                found.kept += 1
                good[_key(sample)] = old
            else:
                yield task

    with ledger, closing(_each(tasks(), form, workers, seconds)) as results:
        for task, result in results:
            if isinstance(result, Written):
                ledger.add(_key(task.sample), task.stamp, [*dataclasses.astuple(result)])
                good[_key(task.sample)] = result
                found.written += 1
            else:
                found.broken.append((task.sample.path, result))
            if progress is not None:
                progress(len(good) + len(found.broken), len(targets))
    found.bytes = sum(written.bytes for written in good.values())
    found.damaged = [targets[key][0].path for key, written in good.items() if written.corrupt]
    _write_list(split, {key: targets[key][1] for key in good}, out)
    return found


def new_paths(samples: Iterable[Sample], root: str, out: Path) -> dict[str, tuple[Sample, Path]]:
    """Key of each file -> a sample of it, and where its new form lies.

    Its path below the root with .mp4 for its suffix, or after it where two would be one. What lies
    outside the root keeps its whole path.
    """
    files = {_key(sample): sample for sample in samples}
    places = {}
    for key, sample in files.items():
        path = sample.path.rpartition("/")[0] if sample.pictures else sample.path
        path = inside(path, root).partition("://")[2] or inside(path, root)
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        places[key] = PurePosixPath(*parts)
    count = Counter(place.with_suffix(".mp4") for place in places.values())
    found = {}
    for key, place in places.items():
        alone = count[place.with_suffix(".mp4")] == 1 and not files[key].pictures
        new = place.with_suffix(".mp4") if alone else place.with_name(place.name + ".mp4")
        found[key] = (files[key], out / new)
    return found


def _check(split: Split, out: Path, workers: int, seconds: float) -> None:
    if workers < 1:
        raise UserError(f"files are prepared by 1 process or more, not by {workers}")
    if not seconds > 0:
        raise UserError(f"the time limit per file must be above 0 seconds, not {seconds:g}")
    here = out.absolute()
    if split.root and not is_address(split.root) and here.is_relative_to(split.root):
        raise UserError(f"{out} lies in the data themselves; name a folder outside {split.root}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not (out / JOURNAL).is_file():
            raise UserError(f"{out} holds something else; name a new folder")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error


def _key(sample: Sample) -> str:
    """The file that a sample lies in: several may."""
    return f"{sample.path}|{sample.pictures}" if sample.pictures else sample.path


def _kept(ledger: Ledger, task: _Task) -> Written | None:
    """What was written, if the old file and the new are as they were then."""
    found = ledger.get(_key(task.sample), task.stamp)
    try:
        written = Written(*found or ())
        return written if task.target.stat().st_size == written.bytes else None
    except (OSError, TypeError):
        return None


def _stamp(sample: Sample) -> list[int]:
    """Size and time of the last change, so that a changed file is seen; of an address nothing."""
    path = sample.path.rpartition("/")[0] if sample.pictures else sample.path
    try:
        status = os.stat(path)  # noqa: PTH116  # for very many
    except (OSError, ValueError):
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _each(
    tasks: Iterator[_Task], form: Form, workers: int, seconds: float
) -> Generator[tuple[_Task, Written | str], None, None]:
    """(task, what was written or why not), in the order in which they are done.

    A process for each file: beside the work it costs nothing, and none can crash or hang another.
    """
    running: dict[Connection, tuple[_Task, BaseProcess, float]] = {}
    try:
        while True:
            while len(running) < workers and (task := next(tasks, None)) is not None:
                pipe, process = start(_work, task, form)
                running[pipe] = task, process, time.monotonic() + seconds
            if not running:
                return
            soonest = min(deadline for _, _, deadline in running.values())
            ready = wait(list(running), max(0.0, soonest - time.monotonic()))
            for pipe, (task, process, deadline) in list(running.items()):
                if pipe in ready:
                    result = _heard(pipe)
                elif time.monotonic() >= deadline:
                    result = f"it took more than {seconds:g} seconds"
                else:
                    continue
                del running[pipe]
                end(pipe, process)
                yield task, result
    finally:
        for pipe, (_, process, _) in running.items():
            end(pipe, process)


def _heard(pipe: Connection) -> Written | str:
    try:
        result: Written | str = pipe.recv()
        return result
    except (EOFError, OSError):
        return "the process that read it ended unexpectedly"


def _work(pipe: Connection, task: _Task, form: Form) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        task.target.parent.mkdir(parents=True, exist_ok=True)
        for left in task.target.parent.glob(f".{task.target.name}.*.tmp"):
            left.unlink(missing_ok=True)  # by a process that was killed
        pipe.send(reencode(task.sample, task.target, form))
    except VideoError as error:
        pipe.send(error.reason)
    except (OSError, MemoryError) as error:
        pipe.send(str(error) or "there is not enough memory for it")
    except KeyboardInterrupt:
        return


def _write_list(split: Split, new: dict[str, Path], out: Path) -> None:
    samples = [
        (split.listed(side), dataclasses.replace(sample, path=str(new[_key(sample)]), pictures=0))
        for side, given in (("train", split.train), ("val", split.val))
        for sample in given
        if _key(sample) in new
    ]
    columns = columns_of([sample for _, sample in samples], split.several)
    write_csv(out / LIST, split.classes, samples, columns)

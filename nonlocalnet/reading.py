"""Reading processes whose items come through a pipe, and a wait for them that can be left.

PyTorch hands tensors over in shared memory, and where that is full (64 MB in a container, if nobody
asked for more) an item is lost in the reader while its receiver waits without end. A pipe is never
full, only slow, and at some GB/s it is faster than any decoder.
"""

from __future__ import annotations

import ctypes
import io
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing import Lock, active_children, parent_process
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .errors import UserError

TICK = 1.0  # seconds between two looks at whether somebody still wants to wait


class ReaderError(UserError):
    """A reading process ended before the item that was waited for came."""


class _Pickler(pickle.Pickler):
    """Tensors as their plain bytes; torch's own way takes several copies more."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, Tensor):
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


class Packed:
    """An item as bytes, which a process can send without shared memory; tensors are on the CPU."""

    def __init__(self, item: Any) -> None:
        buffer = io.BytesIO()
        _Pickler(buffer, protocol=5).dump(item)
        self.bytes = buffer.getvalue()

    def unpack(self) -> Any:
        """The item."""
        return pickle.loads(self.bytes)

    def pin_memory(self) -> Any:
        """The item in page-locked memory: what a `DataLoader` calls where it pins."""
        return self.unpack().pin_memory()


def _begin(further: Callable[[int], None] | None, number: int) -> None:
    """Let no reader outlive its parent.

    One that is sending meets a full pipe then, not a broken one: other readers hold its end too.
    """
    threading.Thread(target=end_with_parent, daemon=True).start()
    keep_memory()
    if further is not None:
        further(number)


def keep_memory() -> None:
    """Let this process use again what it frees, up to 256 MB, where glibc manages its memory.

    Otherwise the pages of each clip are given back and fetched anew, a fifth of all the work.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return  # another library, with rules of its own
    mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: up to 32 MB, the most there is, from the heap
    mallopt(-1, 2**28)  # M_TRIM_THRESHOLD


def end_with_parent() -> None:
    """Wait for the end of the process that started this one, then end it; for a thread."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _pack(collate: Callable[[Any], Any], items: Any) -> Packed:
    return Packed(collate(items))


def loader(
    items: Any,
    workers: int,
    collate: Callable[[Any], Any],
    begin: Callable[[int], None] | None = None,
    **options: Any,
) -> DataLoader[Any]:
    """A `DataLoader` for `read`. It neither reads nor moves the global random state.

    begin: called in each reading process, with its number, before it reads.

    Raises `UserError` for a negative number of workers.
    """
    if workers < 0:
        raise UserError(f"there cannot be {workers} reading processes: workers must be 0 or more")
    if workers:
        options |= {"timeout": TICK, "worker_init_fn": partial(_begin, begin)}
        collate = partial(_pack, collate)
    return DataLoader(
        items, num_workers=workers, collate_fn=collate, generator=torch.Generator(), **options
    )


def read(
    loader: DataLoader[Any], advice: str, waiting: Callable[[float], None] = lambda _: None
) -> Generator[Any, None, None]:
    """The items of a `loader`; closed or at its end, it leaves no process behind.

    waiting: called about every second in which nothing came, with the seconds so far; what it
        raises ends the wait.

    Raises `UserError`, which ends in `advice`, if a reading process cannot start, and `ReaderError`
    if one dies.
    """
    others = set(active_children())
    try:
        # each process takes a few semaphores, and torch is not tidy where one cannot be had
        del [Lock() for _ in range(4 + 4 * loader.num_workers)][:]
        items = _iterator(loader)
    except OSError as error:
        raise UserError(
            f"the reading processes cannot be started ({error.strerror or error}); {advice}"
        ) from error
    readers, owner = set(active_children()) - others, os.getpid()
    try:
        yield from _read(items, advice, waiting)
    finally:
        del items
        if os.getpid() == owner:  # not in a fork that holds this iterator too
            _kill(readers)


def _iterator(loader: DataLoader[Any]) -> Iterator[Any]:
    """Without torch's handler of signals: it tells of a reader's death where the program happens to
    be, in the middle of the network, not where the item is waited for.
    """
    child = getattr(signal, "SIGCHLD", None)
    if child is None or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(child)
    items = iter(loader)
    if _is_torchs(signal.getsignal(child)):
        signal.signal(child, signal.SIG_DFL if before is None or _is_torchs(before) else before)
    return items


def _is_torchs(handler: Any) -> bool:
    return str(getattr(handler, "__module__", "")).startswith("torch.")


def _read(
    items: Iterator[Any], advice: str, waiting: Callable[[float], None]
) -> Generator[Any, None, None]:
    waited = 0.0
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader timed out" in str(error):
                waited += TICK
                waiting(waited)
                continue
            if "DataLoader worker (pid" not in str(error):
                raise
            raise ReaderError(
                "a reading process ended unexpectedly, most often for want of memory; " + advice
            ) from error
        waited = 0.0
        yield item.unpack() if isinstance(item, Packed) else item


def _kill(readers: set[BaseProcess]) -> None:
    """What hangs may take no other signal, and the program could not end before it."""
    for act in (BaseProcess.kill, BaseProcess.join):
        for reader in readers:
            with suppress(RuntimeError):  # by which torch tells of the death of a reader, once
                act(reader)


def as_it_is(item: Any) -> Any:
    """The `collate` of a loader that makes no batches."""
    return item

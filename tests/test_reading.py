"""Reading processes without shared memory, and waits that end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nonlocalnet.errors import UserError
from nonlocalnet.reading import Packed, ReaderError, as_it_is, loader, read


@dataclass(frozen=True)
class Item:
    clip: Tensor
    label: int


class Clips:
    """Map-style: clips that differ; the item `hangs` never comes."""

    def __init__(self, count: int, hangs: int = -1) -> None:
        self.count, self.hangs = count, hangs

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        if index == self.hangs:
            time.sleep(1000)
        return Item(torch.full((3, 8, 112, 112), index, dtype=torch.uint8), index)


def test_packed_tensors_are_the_same() -> None:
    flipped = torch.arange(12, dtype=torch.uint8).view(3, 4).flip(1).T
    scalar, none = torch.tensor(2.5, dtype=torch.float64), torch.empty(0, dtype=torch.int64)
    again = Packed((flipped, scalar, none, "a")).unpack()
    for one, other in zip(again[:3], (flipped, scalar, none), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert again[3] == "a"
    again[0].add_(1)  # writable


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_order_and_random_state(workers: int) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    items = list(read(loader(Clips(5), workers, as_it_is, batch_size=None), "advice"))
    assert [(item.label, int(item.clip.amin())) for item in items] == [(i, i) for i in range(5)]
    assert torch.equal(torch.get_rng_state(), state)


LIMITED = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_reading import Clips
from nonlocalnet.scoring import load
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
# a segment of shared memory is a file to this limit, a pipe is none
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
print(sum(item.label for item in load(Clips(6), 2)))
"""


def test_no_shared_memory_is_needed() -> None:
    """Where it was full, the loader used to wait for ever."""
    command = [sys.executable, "-c", LIMITED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("15\n", 0), done.stderr


def _ignore_signals(_: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Enough(Exception):  # noqa: N818
    pass


def test_a_wait_can_be_left_and_says_how_long_it_was() -> None:
    told, before = [], set(multiprocessing.active_children())

    def waiting(seconds: float) -> None:
        told.append(seconds)
        if seconds >= 2:
            raise Enough

    deaf = {"begin": _ignore_signals}
    items = read(loader(Clips(4, hangs=1), 1, as_it_is, batch_size=None, **deaf), "advice", waiting)
    assert next(items).label == 0
    with pytest.raises(Enough):
        next(items)
    assert told == [1.0, 2.0]
    assert not set(multiprocessing.active_children()) - before


KILLED = f"""
import multiprocessing, signal, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_reading import Clips, _ignore_signals
from nonlocalnet.reading import as_it_is, loader, read
items = read(loader(Clips(99), 2, as_it_is, begin=_ignore_signals, batch_size=None), "advice")
next(items)
print(*(reader.pid for reader in multiprocessing.active_children()), flush=True)
time.sleep(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_no_reader_outlives_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        readers = parent.stdout.readline().split()
        time.sleep(0.5)  # until they stand before a full pipe
        parent.kill()
    assert len(readers) == 2
    until = time.monotonic() + 20
    while any(_runs(int(reader)) for reader in readers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(_runs(int(reader)) for reader in readers)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Slow(Clips):
    def __getitem__(self, index: int) -> Item:
        time.sleep(1.5 if index == 1 else 0)
        return super().__getitem__(index)


def test_a_slow_item_is_neither_lost_nor_doubled() -> None:
    items = read(loader(Slow(4), 2, as_it_is, batch_size=None), "advice")
    assert [item.label for item in items] == [0, 1, 2, 3]


def test_negative_workers() -> None:
    with pytest.raises(UserError, match="cannot be -1 reading processes"):
        loader(Clips(1), -1, as_it_is)


class DiesAtTwo:
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_death_is_told_where_the_item_is_waited_for() -> None:
    """Not in the midst of what is done with the item before."""
    items = read(loader(DiesAtTwo(), 1, as_it_is, batch_size=None, prefetch_factor=1), "advice")
    assert [next(items), next(items)] == [0, 1]
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:  # the reader of item 2 dies meanwhile
        sum(range(1000))
    with pytest.raises(ReaderError, match="ended unexpectedly"):
        next(items)

"""Several processes that wait for each other: who hangs, who is gone, and who says so.

Each process has a thread that tells the others, through the store that torch.distributed has for
them anyway, that it lives and where it stands. So a wait that would never end becomes a sentence.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

from ..errors import UserError
from .interrupt import Stop, Stopped

if TYPE_CHECKING:
    from lightning.fabric import Fabric

BEAT = 1.0  # seconds between two signs of life
SILENT = 4 * BEAT  # without one a process is taken to be gone


class Followed(UserError):  # noqa: N818  # the error is another's
    """Another process of the run has said, or will say, why it ends."""

    silent = True  # the command prints nothing

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class Place(NamedTuple):
    """Where a process stands; `mark` counts what all processes do alike, in the same order."""

    moves: int
    mark: int
    step: int
    doing: str
    host: str


class Watch:
    """The view of one process. Alone it watches nothing."""

    def __init__(self, rank: int = 0, processes: int = 1, seconds: float = 0.0) -> None:
        self.rank, self.processes, self.seconds = rank, processes, seconds
        self.place = Place(0, 0, 0, "begins", socket.gethostname())
        self.store: Store | None = None
        self.beats = 0

    def at(self, step: int, doing: str) -> None:
        """Every process calls it at the same points of its way; `step` counts from 1."""
        p = self.place
        self.place = p._replace(moves=p.moves + 1, mark=p.mark + 1, step=step, doing=doing)

    def moves(self) -> None:
        """One does, at a point of its own."""
        self.place = self.place._replace(moves=self.place.moves + 1)

    def speaks(self) -> bool:
        """Whether this process is the first with something to say, so that it is said once."""
        if self.store is None:
            return True
        try:
            mine = str(self.rank).encode()
            return self.store.compare_set("speaks", "", mine.decode()) == mine
        except RuntimeError:  # the store is gone, and process 0 with it
            return self.rank == 1

    def all(self) -> list[tuple[int, Place]]:
        """Signs of life of each process and its place. Raises `RuntimeError` without the store."""
        assert self.store is not None
        values = self.store.multi_get([f"at {rank}" for rank in range(self.processes)])
        return [(beats, Place(*place)) for beats, place in map(json.loads, values)]

    def beat(self) -> None:
        """Tell the others."""
        assert self.store is not None
        self.beats += 1
        self.store.set(f"at {self.rank}", json.dumps((self.beats, self.place)))

    def gone(self) -> list[int]:
        """The processes that give no sign of life; looking takes some seconds."""
        try:
            before = self.all()
            time.sleep(SILENT)
            after = self.all()
        except RuntimeError:
            return [0]  # which holds the store, unless torchrun does
        pairs = zip(before, after, strict=True)
        return [rank for rank, (a, b) in enumerate(pairs) if a[0] == b[0]]

    def who_hangs(self) -> str:
        """In words, after nobody has moved for the time allowed."""
        places = [place for _, place in self.all()]
        last = min(places, key=lambda p: p.mark)
        behind = [rank for rank, p in enumerate(places) if p.mark == last.mark]
        ahead = next((p for p in places if p.mark > last.mark), None)
        if ahead is None:
            return f"all {self.processes} processes hang at step {last.step} ({last.doing})"
        names = ", ".join(map(str, behind[:8])) + (" ..." if len(behind) > 8 else "")
        hang = f"process {names} hangs" if len(behind) == 1 else f"processes {names} hang"
        return (
            f"{hang} on {last.host} at step {last.step} ({last.doing}), while the others wait at"
            f" step {ahead.step} ({ahead.doing})"
        )


@contextmanager
def speaking_once() -> Iterator[None]:
    """A `UserError` before the processes know each other is said once on each machine."""
    try:
        yield
    except UserError as error:
        if int(os.environ.get("LOCAL_RANK", "0")):
            raise Followed(str(error)) from error
        raise


@contextmanager
def watching(fabric: Fabric, seconds: float, advice: str, stop: Stop) -> Iterator[Watch]:
    """A watch over the processes of a run, for as long as the context lasts.

    seconds: how long all may stand still before the process is ended, with a sentence that names
        who hangs; not even an exception could reach one that waits for others.
    advice: what to do then. stop: what one process is asked is asked of all.

    Raises what came out of the context: in one process as it is; in several once, with the number
    of its process, and in the others `Followed`.
    """
    if fabric.world_size == 1:
        yield Watch()
        return
    watch = Watch(fabric.global_rank, fabric.world_size, seconds)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store outlives them
    watch.store = PrefixStore(f"watch {attempt}", _get_default_store().clone())
    watch.beat()
    fabric.barrier()  # now each has told its place
    over = threading.Event()
    thread = threading.Thread(target=_look, args=(watch, advice, stop, over), daemon=True)
    thread.start()
    try:
        yield watch
        fabric.barrier()
    except Exception as error:
        explained = _explained(watch, error, advice)
        if explained is error:
            raise
        raise explained from error
    finally:
        over.set()
        thread.join()


def _look(watch: Watch, advice: str, stop: Stop, over: threading.Event) -> None:
    moved, seen, at = time.monotonic(), watch.place.moves, time.monotonic()
    before: list[int] = []  # how far each has moved, looked at once this process stands still
    while not over.wait(BEAT):
        now = time.monotonic()
        with suppress(RuntimeError):  # the store is gone: whoever waits for others is told by them
            watch.beat()
            _pass_on(watch, stop)
            if watch.place.moves != seen or not watch.place.mark:
                moved, seen, before = now, watch.place.moves, []
            elif now - moved > watch.seconds / 2:
                moves = [place.moves for _, place in watch.all()]
                if moves != before:
                    before, at = moves, now
        if now - moved > watch.seconds and now - at > watch.seconds / 2:
            _end(watch, advice)


def _pass_on(watch: Watch, stop: Stop) -> None:
    assert watch.store is not None
    if stop.asked and not watch.store.check(["stop"]):
        watch.store.set("stop", stop.asked)
    elif not stop.asked and watch.store.check(["stop"]):
        stop.asked = watch.store.get("stop").decode()


def _end(watch: Watch, advice: str) -> None:
    try:
        words = watch.who_hangs()
    except RuntimeError:
        words = "process 0 cannot be reached"
    if watch.speaks():
        text = f"nonlocalnet: {words}; nothing has moved for {watch.seconds:g} s. {advice}\n"
        sys.stderr.write(text)
        sys.stderr.flush()
    os._exit(1)


def _explained(watch: Watch, error: Exception, advice: str) -> Exception:
    """What to raise where an error ends one process of several."""
    if isinstance(error, Stopped):  # all of them do
        return Followed(str(error), error.exit_code) if watch.rank else error
    if isinstance(error, UserError):
        if not watch.speaks():
            return Followed(str(error))
        return UserError(f"process {watch.rank} of {watch.processes}: {error}")
    if not isinstance(error, RuntimeError):
        watch.speaks()
        return error
    gone = watch.gone()  # where another one ended, the exchange with it fails with such an error
    if not watch.speaks():
        return Followed(f"process {watch.rank} ends, because another one failed")
    if not gone:
        return error
    names = ", ".join(map(str, gone[:8])) + (" ..." if len(gone) > 8 else "")
    return UserError(
        f"process {names} of {watch.processes} is gone (killed, out of memory, or cut off), at step"
        f" {watch.place.step}. {advice}"
    )

"""Files to workers on any number of machines, and their rows back: each file once, whatever dies.

Ray starts the workers, finds room for them and carries what they say. Which file is done when, and
what to do when a worker dies, is decided here, in the process that also keeps the rows.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import tempfile
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from .errors import UserError
from .machine import this_machine

BLOCK = 16  # files given to a worker at a time; it may read ahead among them
TRIES = 2  # of a file at which its worker ends
STARTS = 3  # workers in a row that may end before they are ready
PER_GPU = 4  # workers that share one unless told otherwise: reading is what takes long
STORE = 128 << 20  # bytes of shared memory beside the arguments; Ray asks for 75 MB at least

# what Ray reads when it is imported or started
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # it would print a paragraph for each worker that dies
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # listen to this machine alone, on Linux too

Row = dict[str, Any]  # with a `path`, and an `error` or None


class Work(Protocol):
    """What a worker does with its files: one row for each, in order."""

    def work(self, paths: list[str]) -> Iterator[Row]: ...


@dataclass(frozen=True)
class Cluster:
    """Where the work is done.

    address: "local" is this machine alone; "auto", or HOST:PORT, a running Ray cluster that this
        machine belongs to.
    workers: None is as many as there are cores for, at most `PER_GPU` per GPU if there are any.
    cpus: cores of a worker. gpus: its share; None divides those there are.
    """

    address: str = "local"
    workers: int | None = None
    cpus: int = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        """Raises `UserError` for a number that makes no sense, or an address."""
        if self.cpus < 1 or (self.workers is not None and self.workers < 1):
            raise UserError(f"workers and their cores are 1 or more, not {self.workers, self.cpus}")
        if self.gpus is not None and not (0 <= self.gpus < 1 or self.gpus % 1 == 0):
            raise UserError(f"a worker has part of a GPU or a whole number, not {self.gpus}")
        if self.address.startswith("ray://"):  # through which no rows come one by one
            raise UserError(
                f"{self.address} is an address for Ray's client, which cannot be used; give the"
                " command on a machine of the cluster, with the address auto"
            )


def spread(
    files: Sequence[str],
    work: Callable[..., Work],
    arguments: Sequence[Any],
    cluster: Cluster,
    size: int = 0,
) -> Iterator[Row]:
    """The row of every file, in the order in which they are done.

    work: called with the arguments once in each worker. size: bytes of the arguments, about.

    A worker that dies is replaced, and the files it had not finished are given out again; the one
    it was at counts as tried, and after `TRIES` of them its row has the error that it ends its
    worker. Nothing of Ray is left running when this generator ends or is closed.

    Raises `UserError` if Ray cannot be started or reached and if workers do not start; what a
    worker itself raises is raised here.
    """
    with _session(cluster, size) as ray:
        yield from _Pool(ray, files, work, arguments, cluster).rows()


@contextmanager
def _session(cluster: Cluster, size: int) -> Iterator[Any]:
    """Ray, started or reached: the only place that does either."""
    with ExitStack() as stack:
        settings = QUIET
        if cluster.address == "local":  # with a password of its own, of which nothing is written
            settings = QUIET | LOOPBACK | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        stack.enter_context(_environment(settings))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # Ray's own, of its parts that it will change
        try:
            import ray  # not above: it reads the environment now
        except ImportError as error:
            raise ImportError(
                'predicting on many workers needs Ray: pip install "nonlocalnet[scale]"'
            ) from error
        options: dict[str, Any] = {"address": cluster.address}
        if cluster.address == "local":
            stack.enter_context(_read_again(ray))
            wanted = (cluster.workers or 1) * cluster.cpus
            options |= {
                "num_cpus": max(wanted, this_machine("cpu").cores),
                "include_dashboard": False,
                "object_store_memory": STORE + 2 * size,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="nl-", ignore_cleanup_errors=True)
                ),
            }
        else:
            _reach(cluster.address)
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UserError(f"Ray cannot be had at {cluster.address!r}: {_line(error)}") from error
        stack.callback(ray.shutdown)
        yield ray


def _reach(address: str) -> None:
    """Raises `UserError` if nothing answers there; Ray would try for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"nothing answers at {address!r}, where Ray should: {error}") from error


def _line(error: Exception) -> str:
    """What is wrong, of the page that Ray writes."""
    return str(error).strip().rpartition("\n")[2].strip()


@contextmanager
def _read_again(ray: Any) -> Iterator[None]:
    """The environment counts too where Ray has been imported or used before."""
    constants, tokens = ray._private.ray_constants, ray._raylet.AuthenticationTokenLoader.instance()
    before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    tokens.reset_cache()
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        tokens.reset_cache()


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """With these settings; afterwards as it was, for Ray adds some of its own."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass
class _Turn:
    """A worker, and the files it has still to do, the one it is at first."""

    actor: Any
    files: deque[str]


class _Pool:
    """The workers, and the files that wait for one."""

    def __init__(
        self,
        ray: Any,
        files: Sequence[str],
        work: Callable[..., Work],
        arguments: Sequence[Any],
        cluster: Cluster,
    ) -> None:
        self.ray, self.waiting = ray, deque(files)
        self.starting: dict[Any, Any] = {}  # what tells that a worker is ready -> the worker
        self.busy: dict[Any, _Turn] = {}  # the rows it is going to give -> a worker's turn
        self.ends: Counter[str] = Counter()  # file -> workers that ended at it
        self.failed = 0  # workers in a row that never got ready
        self.count, gpus = shares(ray.cluster_resources(), cluster)
        if cluster.address == "local" and gpus > ray.cluster_resources().get("GPU", 0):
            raise UserError(f"there are no {gpus:g} GPUs for a worker on this machine")
        actor = ray.remote(_Actor).options(num_cpus=cluster.cpus, num_gpus=gpus, max_restarts=0)
        packed = ray.put((work, tuple(arguments)))  # once, for all workers
        self.new: Callable[[], Any] = partial(actor.remote, [packed])

    def rows(self) -> Iterator[Row]:
        """The row of each file, as they come."""
        for _ in range(min(self.count, len(self.waiting))):
            self._start()
        while self.waiting or self.busy:
            ready, _ = self.ray.wait([*self.starting, *self.busy], timeout=1.0)
            for said in ready:
                row = self._hear(said)
                if row is not None:
                    yield row

    def _start(self) -> None:
        actor = self.new()
        self.starting[actor.ready.remote()] = actor

    def _give(self, actor: Any) -> None:
        """The worker's next turn; towards the end they get short, so that all end together."""
        if self.waiting:
            count = max(1, min(BLOCK, len(self.waiting) // (2 * self.count)))
            files = deque(self.waiting.popleft() for _ in range(count))
            rows = actor.work.options(num_returns="streaming").remote(list(files))
            self.busy[rows] = _Turn(actor, files)

    def _hear(self, said: Any) -> Row | None:
        """What a worker said: that it is ready, a row, that its turn is over; or its death."""
        errors = self.ray.exceptions
        try:
            if said in self.starting:
                self.ray.get(said)
                self.failed = 0
                self._give(self.starting.pop(said))
                return None
            row: Row = self.ray.get(next(said))
        except StopIteration:
            self._give(self.busy.pop(said).actor)
            return None
        except errors.RayTaskError as error:
            raise error.cause or error from None
        except errors.RayError as error:
            return self._lost(said, error)
        self.busy[said].files.popleft()
        return row

    def _lost(self, said: Any, error: Exception) -> Row | None:
        """Replace a worker, give its files back; the row of the file at fault, if it is known."""
        if said in self.starting:
            del self.starting[said]
            self.failed += 1
            if self.failed == STARTS:
                raise UserError(
                    f"{STARTS} workers in a row ended before they were ready: {_line(error)}"
                ) from error
            self._start()
            return None
        turn = self.busy.pop(said)
        self.ray.kill(turn.actor)  # if it lives: nobody listens to it any more
        at = turn.files[0] if turn.files else None
        self.ends.update([at] if at else [])
        fault = at is not None and self.ends[at] == TRIES
        if fault:
            turn.files.popleft()
        self.waiting.extendleft(reversed(turn.files))
        if self.waiting:
            self._start()
        return row_of(at, f"its worker ended at it, {TRIES} times") if at and fault else None


def row_of(path: str, error: str | None = None, **values: Any) -> Row:
    """A row for this file."""
    return {"path": path, "error": error, **values}


def shares(resources: Mapping[str, float], cluster: Cluster) -> tuple[int, float]:
    """Workers, and the share of a GPU of each, where Ray has these resources."""
    cores, gpus = int(resources.get("CPU", 0)), resources.get("GPU", 0.0)
    workers = cluster.workers or max(1, cores // cluster.cpus)
    if gpus and cluster.workers is None:
        workers = min(workers, int(gpus * PER_GPU))
    if cluster.gpus is not None:
        return workers, cluster.gpus
    # Ray counts in ten-thousandths; rounded up, the last share of a GPU would not fit
    return workers, math.floor(1e4 / math.ceil(workers / gpus)) / 1e4 if gpus else 0.0


class _Actor:
    """What runs in a worker."""

    def __init__(self, packed: Any) -> None:
        import ray

        work, arguments = ray.get(packed[0])
        self.work_of: Work = work(*arguments)

    def ready(self) -> None:
        """Said when the worker has started."""

    def work(self, paths: list[str]) -> Iterator[Row]:
        """The rows of these files."""
        yield from self.work_of.work(paths)

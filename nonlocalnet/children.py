"""Processes for work that may crash or hang: a pool can neither end such work nor outlive it."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


def start(work: Callable[..., None], *args: Any) -> tuple[Connection, BaseProcess]:
    """A process in which `work(pipe, *args)` runs, and this end of the pipe."""
    # a fork needs no second import of torch; elsewhere than on Linux it is not safe
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ours, theirs = multiprocessing.Pipe()
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]
        target=work, args=(theirs, *args), daemon=True
    )
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; the child takes none of their locks
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    theirs.close()
    return ours, process


def end(pipe: Connection, process: BaseProcess) -> None:
    """Whatever it is at: what hangs may take no other signal."""
    process.kill()
    process.join()
    pipe.close()

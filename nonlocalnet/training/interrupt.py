"""Ctrl-C, SIGTERM and SIGUSR1 as a request: finish what you are at, save, and stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from ..errors import UserError

# SIGUSR1: by it Slurm may tell of the end of the time allowed; Windows has none
_WORDS = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGUSR1": "SIGUSR1"}
NAMES = {signal.Signals[name]: words for name, words in _WORDS.items() if hasattr(signal, name)}


class Stopped(UserError):  # noqa: N818  # not an error of anyone
    """Work that was stopped from outside after its state was saved; the command exits with 130."""

    exit_code = 130


class Starved(Stopped):
    """Asked to stop in the middle of a wait that may never end."""


@dataclass
class Stop:
    """Who asked to stop, if anybody did."""

    asked: str | None = None


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within this context the first of these signals only sets `asked`; a second one acts at once.

    Outside the main thread, where Python takes no signals, nothing changes.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # a handler that was not set from Python shows as None
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in NAMES}

    def ask(number: int, _: FrameType | None) -> None:
        stop.asked = NAMES[signal.Signals(number)]
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in NAMES:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

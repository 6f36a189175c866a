"""Frames read ahead: nothing of a file is lost, the oldest of what does not wait is."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from nonlocalnet.feeds import Frame
from nonlocalnet.live import AHEAD, Ahead, Latency
from nonlocalnet.packets import VideoError

PICTURE = np.zeros((2, 2, 3), np.uint8)


def frames(count: int, cut: int = -1) -> Iterator[Frame]:
    for number in range(count):
        yield Frame(number, number / 100, PICTURE, "cut" if number == cut else "")


def test_a_file_waits_for_the_network() -> None:
    read: list[int] = []

    def noted() -> Iterator[Frame]:
        for frame in frames(20):
            read.append(frame.number)
            yield frame

    with Ahead(noted()) as ahead:
        time.sleep(0.1)
        assert len(read) <= AHEAD + 1
        assert [frame.number for frame in ahead] == list(range(20))
        assert ahead.dropped == 0


def test_the_oldest_frames_are_dropped() -> None:
    everything = threading.Event()

    def noted() -> Iterator[Frame]:
        yield from frames(20, cut=5)
        everything.set()

    with Ahead(noted(), 2, drop=True) as ahead:
        assert everything.wait(5)
        left = list(ahead)
    assert [frame.number for frame in left] == [18, 19]
    assert ahead.dropped == 18
    # what the cut told holds for the frame that now follows it
    assert [frame.cut for frame in left] == ["cut", ""]


def test_frames_that_are_only_shown_are_not_missed() -> None:
    shown = (Frame(n, 0.0, PICTURE, taken=n % 5 == 0) for n in range(20))
    with Ahead(shown, 2, drop=True) as ahead:
        ahead._thread.join(5)
        list(ahead)
    assert ahead.dropped == 4


def test_a_file_at_the_pace_of_a_camera() -> None:
    start = time.monotonic()
    with Ahead(frames(11), clock=True, drop=True) as ahead:
        arrived = [(frame.number, ahead.arrived - start) for frame in ahead]
    for number, when in arrived:
        assert when >= number / 100 - 0.005
    assert arrived[-1][0] == 10


def test_an_error_comes_after_the_frames_before_it() -> None:
    def breaks() -> Iterator[Frame]:
        yield from frames(3)
        raise VideoError("a.mp4", "breaks")

    with Ahead(breaks()) as ahead:
        time.sleep(0.05)
        assert [next(ahead).number for _ in range(3)] == [0, 1, 2]
        with pytest.raises(VideoError, match="breaks"):
            next(ahead)


def test_leaving_it_ends_the_reading() -> None:
    def endless() -> Iterator[Frame]:
        while True:
            yield from frames(100)

    with Ahead(endless()) as ahead:
        next(ahead)
    assert not ahead._thread.is_alive()


def test_who_wants_no_more_need_not_wait_for_a_silent_camera() -> None:
    heard, wanted = threading.Event(), [True]

    def silent() -> Iterator[Frame]:
        yield from frames(1)
        heard.wait(5)

    with Ahead(silent(), wanted=lambda: wanted[0]) as ahead:
        assert next(ahead).number == 0
        threading.Timer(0.05, lambda: wanted.clear() or wanted.append(False)).start()
        start = time.monotonic()
        assert list(ahead) == []
        assert time.monotonic() - start < 2
        heard.set()


def test_quantiles_of_latency() -> None:
    latency = Latency()
    assert math.isnan(latency.quantile(0.5))
    for number in range(1, 1001):
        latency.add(number / 1000)
    assert latency.quantile(0.5) == pytest.approx(0.5, rel=0.011)
    assert latency.quantile(0.95) == pytest.approx(0.95, rel=0.011)
    for _ in range(100_000):
        latency.add(0.010)
    assert latency.quantile(0.95) == pytest.approx(0.010, rel=0.011)
    assert len(latency._counts) < 400

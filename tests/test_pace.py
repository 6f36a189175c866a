"""Which frames a network takes of a feed, and what is said about it."""

from __future__ import annotations

import pytest

from nonlocalnet.card import Card
from nonlocalnet.clips import spacing
from nonlocalnet.pace import Pace

SEGMENTS = Card(frames=8, stride=1, sampling="segments")


@pytest.mark.parametrize(
    ("card", "online", "every", "fps", "step"),
    [
        (Card(stride=4), False, None, 30.0, 4.0),
        (Card(stride=4), False, 3, 30.0, 3.0),
        (Card(stride=4, gap=0.134), False, None, 30.0, 4.0),  # as trained: the card's own rule
        (Card(stride=4, gap=0.134), False, None, 60.0, 8.0),
        (Card(stride=4, gap=0.134), False, None, 5.0, 1.0),
        (Card(stride=4, gap=0.134), False, None, None, 4.0),
        (Card(stride=2, rate=30.0), False, None, 25.0, 2 * 25 / 30),
        (Card(frames=8, stride=8, window="spread"), False, None, 25.0, 9.0),
        (Card(frames=1, stride=8, window="spread"), False, None, 25.0, 8.0),
        (SEGMENTS, False, None, 30.0, 15.0),  # half a second, where nothing is known
        (SEGMENTS, True, None, 30.0, 2.0),  # the demo of TSM's authors
    ],
)
def test_how_far_frames_are_apart(
    card: Card, online: bool, every: int | None, fps: float | None, step: float
) -> None:
    assert Pace(card, online, every).step(fps) == pytest.approx(step)


def test_the_middle_of_segments() -> None:
    assert Pace(SEGMENTS).phase == 0.5
    assert Pace(SEGMENTS, online=True).phase == 0.0
    assert Pace(Card()).phase == 0.0
    assert spacing(SEGMENTS) is None


@pytest.mark.parametrize(
    ("gap", "fps", "every", "words"),
    [
        (
            0.0667,
            25.0,
            None,
            "trained on a frame every 0.067 s; the feed gives one every 0.040 s, every 2nd frame is"
            " taken: 0.080 s, 20 % slower than trained",
        ),
        (
            0.04,
            25.0,
            None,
            "trained on a frame every 0.040 s; the feed gives one every 0.040 s, every frame is"
            " taken: 0.040 s, as trained",
        ),
        (
            0.5,
            25.0,
            11,
            "trained on a frame every 0.500 s; the feed gives one every 0.040 s, every 11th frame"
            " is taken: 0.440 s, 12 % faster than trained",
        ),
        (
            0.0,
            10.0,
            None,
            "its pace in training is not known; the feed gives one every 0.100 s, every 2nd frame"
            " is taken: 0.200 s",
        ),
        (
            0.04,
            None,
            3,
            "trained on a frame every 0.040 s; the feed does not tell its rate, every 3rd frame is"
            " taken",
        ),
    ],
)
def test_the_pace_in_words(gap: float, fps: float | None, every: int | None, words: str) -> None:
    card = Card(sampling="segments", gap=gap)
    assert Pace(card, online=True, every=every).words(fps) == words

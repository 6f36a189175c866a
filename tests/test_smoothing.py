"""Means and hysteresis over time against their definitions; streams of a batch by themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nonlocalnet.errors import UserError
from nonlocalnet.smoothing import NONE, Exponential, Hysteresis, WindowMean, parse_smoothing
from nonlocalnet.streaming import restart

DOUBLE = torch.float64


def values(steps: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(steps, *shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def run(rule, xs: Tensor, elapsed=None) -> Tensor:
    state, out = rule.start(xs[0]), []
    for i, x in enumerate(xs):
        y, state = rule.step(x, state, *(() if elapsed is None else (elapsed[i],)))
        out.append(y)
    return torch.stack(out)


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_a_mean_is_that_of_the_last_answers(count: int) -> None:
    xs = values(17, 3)
    expected = torch.stack([xs[max(0, t - count + 1) : t + 1].mean(0) for t in range(17)])
    torch.testing.assert_close(run(WindowMean(count), xs), expected, rtol=0, atol=1e-14)
    if count == 1:
        assert torch.equal(run(WindowMean(1), xs), xs)


def test_a_mean_does_not_drift() -> None:
    """A large answer leaves no trace once it is out of the window."""
    xs = values(9, 2)
    xs[0] = 1e12
    assert torch.equal(run(WindowMean(3), xs)[5:], run(WindowMean(3), xs[3:])[2:])


@pytest.mark.parametrize("half_life", [0.05, 0.5, 30.0])
def test_an_exponential_mean_has_its_closed_form(half_life: float) -> None:
    xs, gaps = values(25, 4), 0.01 + values(25, seed=1).abs()
    times = gaps.cumsum(0)
    expected = []
    for t in range(25):
        weights = 2.0 ** (-(times[t] - times[: t + 1]) / half_life)
        expected.append((weights[:, None] * xs[: t + 1]).sum(0) / weights.sum())
    found = run(Exponential(half_life), xs, gaps)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rule", [WindowMean(3), Exponential(2.0)])
def test_what_never_changes_stays(rule) -> None:
    xs = torch.tensor([0.25, 0.5, 0.25]).expand(9, 3)
    torch.testing.assert_close(run(rule, xs), xs)


@pytest.mark.parametrize("rule", [WindowMean(3), Exponential(2.0), Hysteresis(2)])
def test_streams_of_a_batch_are_by_themselves_and_begin_anew(rule) -> None:
    """Stream 1 is restarted at step 4; every stream is what it would be alone."""
    xs = values(9, 3, 5)
    if isinstance(rule, Hysteresis):
        xs = xs.argmax(-1)
    state, out = rule.start(xs[0]), []
    for t, x in enumerate(xs):
        if t == 4:
            state = restart(state, torch.tensor([False, True, False]))
        before = [part.clone() for part in state]
        y, after = rule.step(x, state)
        assert all(map(torch.equal, before, state))  # a value: the old one is still good
        out.append(y)
        state = after
    found = torch.stack(out)
    for stream in (0, 2):
        torch.testing.assert_close(found[:, stream], run(rule, xs[:, stream]))
    torch.testing.assert_close(found[4:, 1], run(rule, xs[4:, 1]))
    torch.testing.assert_close(found[:4, 1], run(rule, xs[:4, 1]))


def test_half_precision_stays_itself() -> None:
    xs = values(5, 2, 3).half()
    for rule in (WindowMean(3), Exponential(1.0)):
        assert run(rule, xs).dtype == torch.float16


def told(rule: Hysteresis, *answers: int) -> list[int]:
    return run(rule, torch.tensor(answers)).tolist()


def test_a_label_changes_when_enough_agree() -> None:
    assert told(Hysteresis(1), 3, 4, NONE, 4) == [3, 4, NONE, 4]
    assert told(Hysteresis(2), 3, 4, 4, 3, 4, 3, 3) == [3, 3, 4, 4, 4, 4, 3]
    assert told(Hysteresis(3), 5, 5, 5, 1, 1, 5, 1, 1, 1) == [5, 5, 5, 5, 5, 5, 5, 5, 1]
    assert told(Hysteresis(2), 0, 0, NONE, 0, NONE, NONE, 0) == [0, 0, 0, 0, 0, NONE, NONE]


def test_silent_and_merged_classes() -> None:
    """mit-han-lab's demo on Jester: some gestures are never told, and one is another."""
    jester = Hysteresis(1, frozenset({7, 8, 21, 22, 3}), {0: 2})
    assert told(jester, 7, 5, 8, 0, 3, 6) == [NONE, 5, 5, 2, 2, 6]
    # an answer that is not told counts for what is told, so it breaks a row of others
    assert told(Hysteresis(2, frozenset({9})), 1, 1, 4, 9, 4, 4) == [1, 1, 1, 1, 1, 4]


@given(st.lists(st.integers(-1, 3), max_size=30), st.integers(1, 4))
def test_hysteresis_by_hand(answers: list[int], agree: int) -> None:
    now, expected = NONE, []
    for i, answer in enumerate(answers):
        tail = answers[max(0, i - agree + 1) : i + 1]
        now = answer if i == 0 or tail == [answer] * agree else now
        expected.append(now)
    assert (told(Hysteresis(agree), *answers) if answers else []) == expected


def test_the_words_of_the_command() -> None:
    assert parse_smoothing("none") == WindowMean(1)
    assert parse_smoothing("mean:12") == WindowMean(12)
    assert parse_smoothing("exp:0.5s") == Exponential(0.5)
    for text in ("", "mean", "mean:0", "mean:-1", "exp:0s", "exp:5", "exp:0.5", "median:3"):
        with pytest.raises(UserError, match=r"such as mean:12"):
            parse_smoothing(text)


@pytest.mark.parametrize(
    "make", [lambda: WindowMean(0), lambda: Exponential(0), lambda: Hysteresis(0)]
)
def test_what_makes_no_sense_is_refused(make) -> None:
    with pytest.raises(ValueError, match="not 0"):
        make()

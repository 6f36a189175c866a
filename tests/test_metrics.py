"""Figures counted from outcomes, against published values and counting by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nonlocalnet.errors import UserError
from nonlocalnet.metrics import Rate, Result, Rule, Scored, Skipped, outcome


# Newcombe, "Two-sided confidence intervals for the single proportion" (1998), Table I, method 3
@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published(hits: int, count: int, low: float, high: float) -> None:
    assert Rate(hits, count).interval == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_where_the_score_test_turns(pair: tuple[int, int]) -> None:
    rate = Rate(*pair)
    low, high = rate.interval
    assert 0 <= low <= rate.value <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            deviation = abs(rate.value - end) / math.sqrt(end * (1 - end) / rate.count)
            assert deviation == pytest.approx(1.959964, rel=1e-5)


def test_nothing_counted() -> None:
    rate = Rate(0, 0)
    assert math.isnan(rate.value)
    assert rate.interval == (0.0, 1.0)
    assert rate.to_dict()["value"] is None


def test_outcome_ranks() -> None:
    scores = torch.tensor([0.1, 0.05, 0.4, 0.05, 0.3, 0.02, 0.08])
    seen = outcome(scores, label=0)
    assert seen.top == (2, 4, 0, 6, 1)
    assert seen.scores == pytest.approx((0.4, 0.3, 0.1, 0.08, 0.05))
    assert (seen.rank, seen.truth) == (2, pytest.approx(0.1))
    assert outcome(scores, label=3).rank == 5  # equal to class 1, which has the lower number
    assert outcome(torch.full((4,), 0.25), label=0).rank == 0


def made(
    scores: torch.Tensor, labels: list[int], groups: dict[str, tuple[str, ...]] | None = None
) -> Result:
    """A result with one rule from scores (videos, K)."""
    videos = tuple(
        Scored(f"v{i}.mp4", label, f"s{i // 2}", (outcome(row, label),))
        for i, (row, label) in enumerate(zip(scores, labels, strict=True))
    )
    classes = tuple(f"class {k}" for k in range(scores.shape[1]))
    return Result(classes, (Rule(10, 3),), videos, groups=groups or {})


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(1, 40), st.integers(0, 10_000))
def test_figures_equal_counting(k: int, n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(n, k, generator=generator).softmax(-1)
    labels = torch.randint(k, (n,), generator=generator).tolist()
    result = made(scores, labels)
    answers = scores.argmax(-1).tolist()
    right = [a == b for a, b in zip(answers, labels, strict=True)]
    assert result.accuracy().hits == sum(right)
    in_five = [b in row.topk(min(5, k)).indices for row, b in zip(scores, labels, strict=True)]
    assert result.accuracy(k=5).hits == sum(in_five)
    per_class = [
        np.mean([r for r, b in zip(right, labels, strict=True) if b == c]) for c in set(labels)
    ]
    assert result.mean_class_accuracy() == pytest.approx(float(np.mean(per_class)))
    table = result.confusion()
    assert table.sum() == n
    for a in range(k):
        for b in range(k):
            both = sum((x, y) == (b, a) for x, y in zip(answers, labels, strict=True))
            assert table[a, b] == both
    for c, row in enumerate(result.class_rows()):
        assert row.recall == Rate(int(table[c, c]), labels.count(c))
        assert row.precision == Rate(int(table[c, c]), answers.count(c))
    assert result.guess().hits == max(labels.count(c) for c in range(k))
    mistakes = result.confused_pairs()
    assert sum(times for *_, times, _ in mistakes) == n - sum(right)
    assert [m[2] for m in mistakes] == sorted((m[2] for m in mistakes), reverse=True)


def test_calibration_by_hand() -> None:
    # two bins of the fifteen are used: 0.9 (three of four right) and 0.5 (none of one right)
    scores = torch.tensor([[0.9, 0.1]] * 4 + [[0.5, 0.5]])
    result = made(scores, [0, 0, 0, 1, 1])
    found = result.calibration()
    assert found.error == pytest.approx(4 / 5 * abs(0.75 - 0.9) + 1 / 5 * abs(0 - 0.5))
    assert [(c, r.hits, r.count) for c, r in found.bins] == [
        (pytest.approx(0.5), 0, 1),
        (pytest.approx(0.9), 3, 4),
    ]
    sure = made(torch.tensor([[1.0, 0.0]]), [0]).calibration()  # a score of exactly 1 has a bin
    assert sure.error == pytest.approx(0)
    assert sure.bins == ((1.0, Rate(1, 1)),)
    # the upper edge belongs to a bin, the lower does not
    half = made(torch.tensor([[0.5, 0.5], [0.75, 0.25]]), [0, 0]).calibration(bins=2)
    assert half.bins == ((0.5, Rate(1, 1)), (0.75, Rate(1, 1)))


def test_calibration_equals_torch_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = (3 * torch.randn(500, 6, generator=generator)).softmax(-1)
    labels = torch.randint(6, (500,), generator=generator)
    best, answers = scores.max(-1)
    error = 0.0
    for b in range(15):  # the definition, bin by bin
        inside = (best > b / 15) & (best <= (b + 1) / 15)
        if inside.any():
            accuracy = (answers == labels)[inside].double().mean()
            gap = (accuracy - best[inside].double().mean()).abs()
            error += float(inside.double().mean() * gap)
    assert made(scores, labels.tolist()).calibration().error == pytest.approx(error, abs=1e-6)


def test_worst_is_the_surest_mistake() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.99, 0.01], [0.6, 0.4], [0.2, 0.8]])
    result = made(scores, [1, 0, 1, 0])
    assert [v.path for v in result.worst(2)] == ["v0.mp4", "v3.mp4"]
    assert [v.path for v in result.worst(9)] == ["v0.mp4", "v3.mp4", "v2.mp4"]


def test_groups_and_sources() -> None:
    groups = {"same?": ("no", "no", "yes", "yes"), "direction?": ("left", "right") * 2}
    eye = torch.eye(4) * 0.7 + 0.075
    result = made(eye[[0, 1, 2, 2, 3]], [1, 1, 3, 0, 3], groups)
    assert result.accuracy() == Rate(2, 5)
    assert result.group_accuracy() == {"same?": Rate(4, 5), "direction?": Rate(3, 5)}
    assert result.guess("same?") == Rate(3, 5)
    assert result.guess("direction?") == Rate(4, 5)
    assert result.sources == 3


def test_rule_names() -> None:
    assert [Rule(1, 1).name, Rule(10, 1).name, Rule(10, 3).name, Rule(1, 3).name] == [
        "1 clip",
        "10 clips",
        "10 clips × 3 crops",
        "1 clip × 3 crops",
    ]


def test_json_round_trip() -> None:
    result = made(torch.rand(7, 6, generator=torch.Generator().manual_seed(0)).softmax(-1), [1] * 7)
    result = Result(
        **{
            **vars(result),
            "skipped": (Skipped("bad\udcff.mp4", "is <empty>"),),
            "groups": {"g": tuple("aabbcc")},
            "obtained": {"Date": "today"},
        }
    )
    text = result.to_json()
    assert Result.from_json(text) == result
    summary = json.loads(text)["summary"]
    assert summary["rules"][0]["top1"]["count"] == 7
    assert summary["per_class"][0]["recall"]["value"] is None  # no video of class 0
    assert "top5" in summary["rules"][0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"classes": 3}', '{"rules": [{"x": 1}]}'])
def test_json_of_something_else(text: str) -> None:
    with pytest.raises(UserError, match="not"):
        Result.from_json(text)

"""Average precision against a hand-worked example, a loop over the definition, and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multilabel_average_precision

from nonlocalnet.precision import average_precisions, mean_average_precision


def test_worked_by_hand() -> None:
    # class 0: ranks 1 and 3 of 4 are right, (1/1 + 2/3) / 2; class 1: rank 4 alone, 1/4;
    # class 2: nobody has it; class 3: everybody has it
    scores = [
        [0.9, 0.9, 0.1, 0.3],
        [0.8, 0.8, 0.2, 0.2],
        [0.7, 0.7, 0.3, 0.4],
        [0.1, 0.2, 0.0, 0.1],
    ]
    targets = [[1, 0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]]
    found = average_precisions(scores, targets)
    assert found[[0, 1, 3]].tolist() == pytest.approx([5 / 6, 1 / 4, 1.0])
    assert math.isnan(found[2])
    assert mean_average_precision(scores, targets) == pytest.approx((5 / 6 + 1 / 4 + 1) / 3)


def test_videos_without_any_class() -> None:
    """Charades puts them last, whatever their scores; PySlowFast ranks them."""
    scores, targets = [[0.9], [0.5], [0.1]], [[0], [1], [0]]
    assert average_precisions(scores, targets).tolist() == [1.0]
    assert average_precisions(scores, targets, unlabelled=True).tolist() == [0.5]
    assert math.isnan(mean_average_precision(scores, [[0], [0], [0]]))
    assert math.isnan(mean_average_precision(np.zeros((0, 3)), np.zeros((0, 3))))


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**31))
def test_the_definition(videos: int, classes: int, seed: int) -> None:
    """Against Charades' own loop: unlabelled videos at minus infinity, then class by class."""
    random = np.random.default_rng(seed)
    scores = random.permutation(videos * classes).reshape(videos, classes).astype(float)  # no ties
    targets = (random.random((videos, classes)) < 0.3).astype(int)
    last = np.where(targets.any(1, keepdims=True), scores, -np.inf)
    for k, found in enumerate(average_precisions(scores, targets)):
        right, total = 0, 0.0
        for rank, video in enumerate(np.argsort(-last[:, k], kind="stable"), 1):
            if targets[video, k]:
                right += 1
                total += right / rank
        assert found == pytest.approx(total / right) if right else math.isnan(found)


@given(st.integers(2, 40), st.integers(2, 6), st.integers(0, 2**31))
def test_against_torchmetrics(videos: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.permutation(videos * classes).reshape(videos, classes) / (videos * classes)
    targets = (random.random((videos, classes)) < 0.4).astype(int)
    targets[0] = 1
    theirs = multilabel_average_precision(
        torch.tensor(scores), torch.tensor(targets), classes, average="none"
    )
    ours = average_precisions(scores, targets, unlabelled=True)
    assert ours == pytest.approx(theirs.numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "targets", "match"),
    [
        ([0.1], [1], "expected scores and targets"),
        ([[0.1, 0.2]], [[1]], "expected scores and targets"),
        ([[0.1]], [[2]], "targets of 0 and 1"),
        ([[math.nan]], [[1]], "NaN"),
    ],
)
def test_wrong_input(scores: list[float], targets: list[int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        average_precisions(scores, targets)

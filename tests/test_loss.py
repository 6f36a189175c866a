"""Losses and right answers, against loops."""

from __future__ import annotations

import math

import pytest
import torch

from nonlocalnet.training.loss import LOSSES, labels_in, right

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])


def test_cross_entropy_is_weighed_by_class() -> None:
    labels, weights = torch.tensor([2, 1]), torch.tensor([1.0, 3.0, 0.5])
    loss, weight = LOSSES["cross_entropy"](LOGITS, labels, weights)
    rows = [[math.exp(v) for v in row] for row in LOGITS.tolist()]
    terms = [-math.log(row[k] / sum(row)) for row, k in zip(rows, (2, 1), strict=True)]
    assert float(loss) == pytest.approx(0.5 * terms[0] + 3 * terms[1])
    assert float(weight) == 3.5
    loss, weight = LOSSES["cross_entropy"](LOGITS, labels, None)
    assert (float(loss), float(weight)) == (pytest.approx(sum(terms)), 2)


def test_bce_is_a_mean_over_classes_and_a_sum_over_clips() -> None:
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    loss, weight = LOSSES["bce"](LOGITS, targets, None)
    terms = [
        -math.log(1 / (1 + math.exp(-v)) if t else 1 - 1 / (1 + math.exp(-v)))
        for row, wanted in zip(LOGITS.tolist(), targets.tolist(), strict=True)
        for v, t in zip(row, wanted, strict=True)
    ]
    assert float(loss) == pytest.approx(sum(terms) / 3, rel=1e-6)
    assert float(weight) == 2
    one = LOSSES["bce"](LOGITS, torch.tensor([0, 1]), None)[0]
    assert one == LOSSES["bce"](LOGITS, torch.tensor([[1.0, 0, 0], [0, 1, 0]]), None)[0]


def test_right_answers() -> None:
    assert int(right(LOGITS, torch.tensor([0, 2]))) == 1
    assert int(right(LOGITS, torch.tensor([[1.0, 0, 1], [0, 1, 0]]))) == 2
    assert int(right(LOGITS, torch.tensor([[0.0, 0, 1], [0, 0, 0]]))) == 0
    assert labels_in(torch.tensor([2, 0, 2])) == [0, 2]
    assert labels_in(torch.tensor([[0.0, 1, 0], [0, 1, 1]])) == [1, 2]
    assert labels_in(torch.empty(0)) == []

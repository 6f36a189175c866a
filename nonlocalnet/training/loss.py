"""What learning makes small, and which answers count as right: for one label, or for several."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recipes import Loss


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """-sum_i w_i log softmax(logits_i)[label_i] and sum_i w_i; labels (B,), weights by class."""
    loss = F.cross_entropy(logits, labels, weights, reduction="sum")
    return loss, logits.new_tensor(len(labels)) if weights is None else weights[labels].sum()


def bce(logits: Tensor, targets: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each class by itself: the mean over classes of binary cross-entropy, summed over clips; B.

    targets: (B, K) of 0 and 1, or (B,) labels. The mean over clips and classes is PySlowFast's
    loss (`bce_logit`); a sum over classes would be K times as much.
    """
    classes = logits.shape[1]
    if targets.ndim == 1:
        targets = F.one_hot(targets, classes).to(logits)
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / classes
    return loss, logits.new_tensor(len(targets))


# logits (B, K), targets, weights of the classes -> sum of losses, sum of weights
LOSSES: dict[Loss, Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]] = {
    "cross_entropy": cross_entropy,
    "bce": bce,
}


def right(logits: Tensor, targets: Tensor) -> Tensor:
    """How many of the first answers are the label, or among the labels."""
    first = logits.argmax(1)
    if targets.ndim == 1:
        return (first == targets).sum()
    return targets.gather(1, first[:, None]).sum()


def labels_in(targets: Tensor) -> list[int]:
    """The labels that a batch holds."""
    found = targets if targets.ndim == 1 else torch.nonzero(targets)[:, 1]
    return sorted(set(found.tolist()))

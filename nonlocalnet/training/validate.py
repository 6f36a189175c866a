"""The centre clip of every validation video, through the path that test and predict take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..card import Activation, card_of
from ..datasets import Broken, Views
from ..recipes import Loss
from ..samples import Sample, multi_hot
from ..scoring import score
from .interrupt import Starved, Stop
from .loss import LOSSES, right

LOSS_OF: dict[Activation, Loss] = {"softmax": "cross_entropy", "sigmoid": "bce"}


@dataclass
class Validation:
    """Sums over videos, so that those of several processes can be added."""

    right: int = 0
    loss: float = 0.0
    videos: int = 0
    broken: list[Broken] = field(default_factory=list)
    # of videos with several labels: logits and labels, (K,) each
    answers: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def validate(
    network: nn.Module,
    items: Iterable[Views | Broken],
    batch: int,
    stop: Stop,
    moves: Callable[[], None] = lambda: None,
) -> Validation | None:
    """One clip of each video, scored by the network's card; None if asked to stop meanwhile.

    `batch` clips go through the network at once; after each such batch `moves` is called.
    """
    try:
        return _validate(network, items, batch, stop, moves)
    except Starved:
        return None


def _validate(
    network: nn.Module,
    items: Iterable[Views | Broken],
    batch: int,
    stop: Stop,
    moves: Callable[[], None],
) -> Validation | None:
    card, result = card_of(network), Validation()
    for group in _grouped(items, batch, result.broken):
        if stop.asked:
            return None
        moves()
        clips = torch.cat([views.clips for views in group])  # (B, 3, T, S, S), one clip a video
        for views, logits in zip(group, score(network, clips, batch), strict=True):
            target = _target(views.sample, len(logits))
            result.right += int(right(logits[None], target[None]))
            result.loss += float(
                LOSSES[LOSS_OF[card.activation]](logits[None], target[None], None)[0]
            )
            result.videos += 1
            if views.sample.label < 0:
                result.answers.append((logits, target))
    return result


def _target(sample: Sample, classes: int) -> Tensor:
    """The label; or (K,), what is seen anywhere in the video [PySlowFast, Charades]."""
    if sample.label >= 0:
        return torch.tensor(sample.label)
    return multi_hot(sample, classes)


def _grouped(
    items: Iterable[Views | Broken], size: int, broken: list[Broken]
) -> Iterator[list[Views]]:
    group: list[Views] = []
    for item in items:
        if isinstance(item, Broken):
            broken.append(item)
            continue
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group

"""The centre clip of every validation video, through the path that test and predict take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from ..card import card_of
from ..datasets import Broken, Views
from ..scoring import aggregate, score
from ..transforms import normalize
from .interrupt import Starved, Stop
from .probe import block_shares


@dataclass
class Validation:
    """Sums over videos, so that those of several processes can be added."""

    right: int = 0
    loss: float = 0.0  # cross-entropy of the scores
    videos: int = 0
    broken: list[Broken] = field(default_factory=list)
    blocks: dict[str, float] = field(default_factory=dict)  # what each adds to its input


def validate(
    network: nn.Module, items: Iterable[Views | Broken], batch: int, stop: Stop
) -> Validation | None:
    """One clip of each video, scored by the network's card; None if asked to stop meanwhile.

    `batch` clips go through the network at once.
    """
    try:
        return _validate(network, items, batch, stop)
    except Starved:
        return None


def _validate(
    network: nn.Module, items: Iterable[Views | Broken], batch: int, stop: Stop
) -> Validation | None:
    card, result = card_of(network), Validation()
    for group in _grouped(items, batch, result.broken):
        if stop.asked:
            return None
        clips = torch.cat([views.clips for views in group])  # (B, 3, T, S, S), one clip a video
        if not result.blocks:
            device = next(network.parameters()).device
            result.blocks = block_shares(network, normalize(clips.to(device), card))
        for views, logits in zip(group, score(network, clips, batch), strict=True):
            scores = aggregate(logits[None], card)
            result.right += int(scores.argmax() == views.sample.label)
            result.loss -= float(scores[views.sample.label].clamp_min(1e-30).log())
            result.videos += 1
    return result


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

"""uint8 views -> logits -> one score per class: the one path of validation, test, predict, attend.

Whoever wants to know what a network says about a video goes through here, so that two parts of the
program cannot disagree about normalisation, mode or averaging.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from .card import Activation, Aggregate, Card, card_of
from .errors import UserError
from .models import IMAGE_MODELS
from .modes import evaluating
from .reading import as_it_is, loader, read
from .transforms import normalize

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# input values per forward pass when no batch is given: five views of 32 x 256 x 256, 100 MB of
# float32, or a thousand of the demo's
VALUES = 1 << 25


class Items(Protocol[T_co]):
    """A map-style data set: what `load` reads from."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> T_co: ...


def score(model: nn.Module, clips: Tensor, batch: int | None = None) -> Tensor:
    """Logits of every view of one video: (V, 3, T, S, S) uint8 -> (V, K) float32, on the CPU.

    The views travel to the model's device as uint8 and are normalised there by the model's card.
    The model runs in eval mode without gradients; afterwards each module is back in the mode it
    had. `batch` views go through at once (`None`: as many as make a bounded input); the split
    changes nothing but the last bits.

    Raises `TypeError`/`ValueError` for another kind of tensor, `UserError` if a logit is not
    finite.
    """
    _check(clips, card_of(model))
    size = batch or max(1, VALUES // clips[0].numel())
    with evaluating(model), torch.inference_mode():
        parts = [model(prepared(model, part)).float().cpu() for part in clips.split(size)]
    return finite(torch.cat(parts))  # outside inference mode: callers get an ordinary tensor


def prepared(model: nn.Module, clips: Tensor) -> Tensor:
    """uint8 views as the network takes them: on its device, normalised by its card, in its type."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return normalize(clips.to(weight.device), card_of(model)).to(weight.dtype)


def finite(logits: Tensor) -> Tensor:
    """The logits, float32 on the CPU. Raises `UserError` if one is not finite."""
    logits = logits.float().cpu()
    if not bool(torch.isfinite(logits).all()):
        raise UserError(
            "the network's scores are not numbers (NaN or infinity): its weights are damaged or its"
            " training diverged; train again with a lower learning rate, or use another checkpoint"
        )
    return logits


def _check(clips: Tensor, card: Card) -> None:
    if clips.dtype != torch.uint8:
        raise TypeError(f"clips must be uint8, as transforms give them, not {clips.dtype}")
    if clips.ndim != 5 or clips.shape[1] != 3 or 0 in clips.shape:
        raise ValueError(f"clips must be (V, 3, T, S, S), not {tuple(clips.shape)}")
    if card.architecture.get("name") in IMAGE_MODELS:
        raise UserError(f"{card.architecture['name']} is a network of images, and these are videos")


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": lambda logits: logits.sigmoid(),
}

AGGREGATES: dict[Aggregate, Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]] = {
    "softmax": lambda logits, activation: activation(logits).mean(0),
    "logits": lambda logits, activation: activation(logits.mean(0)),
    "max": lambda logits, activation: activation(logits).amax(0),
}


def aggregate(logits: Tensor, card: Card) -> Tensor:
    """One score per class from the logits of all views, by the card: (V, K) -> (K,).

    "softmax": mean of the views' scores (the paper, section 4; both Caffe2 and PySlowFast).
    "logits": the score of the mean logits (TSN, TSM).
    "max": the highest score of any view (PySlowFast's ENSEMBLE_METHOD max, for Charades).
    Where the card's activation is softmax the scores sum to 1, those of "max" scaled to; a
    sigmoid's are each of its own.
    """
    # float64, so that the order of views cannot decide a tie
    scores = AGGREGATES[card.aggregate](logits.double(), ACTIVATIONS[card.activation])
    if card.activation == "softmax" and card.aggregate == "max":
        scores = scores / scores.sum()
    return scores.float()


def load(items: Items[T], workers: int = 0) -> Iterator[T]:
    """Every item in order, read ahead by worker processes; `workers=0` reads in this one.

    At most one item per worker waits, whatever the length: thirty views of 32 x 256 x 256 are
    190 MB. The global random state is neither read nor moved. Raises `UserError` for a
    negative number of workers, or if a worker process dies.
    """
    reader = loader(
        items, workers, as_it_is, batch_size=None, prefetch_factor=1 if workers else None
    )
    yield from read(reader, "use fewer workers, or workers=0")

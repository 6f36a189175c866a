"""A proof inside a checkpoint: what the network gave for a clip that anyone can make again."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..card import card_of
from ..errors import UserError
from ..models import input_shape
from ..modes import evaluating

SEED, SIDE = 0, 64  # pixels: a twelfth of the work at 224 x 224
MOST_NUMBERS = 10**8  # of all clips; 128 frames have three million
TOLERANCE = 1e-3  # of the logits' standard deviation; damaged weights are far beyond it


def record(model: nn.Module) -> str:
    """The logits of two seeded clips, as JSON. The network is left in the mode it had.

    Raises UserError if they are not finite.
    """
    shape = _shape(model)
    logits = _logits(model, clips(SEED, shape))
    if not bool(logits.isfinite().all()):
        raise UserError(
            "the network gives no finite numbers for the self-test's clip: its weights are damaged,"
            " or save it without a self-test (convert --no-verify)"
        )
    told = {"seed": SEED, "shape": shape, "classes": logits.shape[1], "logits": logits.tolist()}
    return json.dumps(told)


def parse(text: str) -> dict[str, Any]:
    """A record's seed, shape, classes and logits. Raises UserError for what `record` did not write.

    A file of someone else's says how much is computed here, so the clips have a largest size.
    """
    try:
        told = json.loads(text)
        shape, logits = told["shape"], told["logits"]
        good = (
            all(type(n) is int for n in (told["seed"], told["classes"], *shape))
            and told["seed"] >= 0
            and min(shape) > 0
            and prod(shape) <= MOST_NUMBERS
            and [len(row) for row in logits] == [told["classes"]] * shape[0]
            and all(type(x) in (int, float) for row in logits for x in row)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise UserError("the file's self-test is damaged; load it with verify=False")
    return told


def verify(model: nn.Module, text: str) -> float:
    """The largest difference from a record, in standard deviations of its logits.

    Raises UserError if it is larger than rounding explains.
    """
    told = parse(text)
    want = torch.tensor(told["logits"])
    got = _logits(model, clips(told["seed"], tuple(told["shape"])))
    if got.shape != want.shape:
        raise UserError(
            f"the self-test expects logits {tuple(want.shape)}, the network gave {tuple(got.shape)}"
        )
    error = float((got - want).abs().max() / want.std().clamp_min(1e-12))
    if not error <= TOLERANCE:
        raise UserError(
            f"the self-test fails: the network's logits differ by {error:.1e} of their standard"
            f" deviation from those it was saved with, {TOLERANCE:.0e} at most was expected; the"
            " file is damaged, or this machine computes otherwise"
        )
    return error


def clips(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Noise about a level of its own for each clip, channel and frame: float32 of that shape.

    From the raw bits of PCG64, whose stream is the same in every version of NumPy.
    """

    def draw(*size: int) -> Tensor:
        bits = generator.random_raw(int(np.prod(size))) >> np.uint64(40)  # 24 bits
        return torch.from_numpy((bits.astype(np.float32) / 2**22 - 2).reshape(size))

    generator = np.random.PCG64(seed)
    return draw(*shape) / 2 + draw(*shape[:-2], 1, 1)


def _shape(model: nn.Module) -> tuple[int, ...]:
    *rest, height, width = input_shape(card_of(model))
    return (2, *rest, min(SIDE, height), min(SIDE, width))


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    weight = next(model.parameters())
    try:
        with evaluating(model), torch.inference_mode():
            return model(x.to(weight.device, weight.dtype)).float().cpu()
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the network does not take a clip of {tuple(x.shape[1:])}, as its file says: {error}"
        ) from None

"""What a written file computes, beside what the network computes that it was made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..sidecar import ExportPrecision
from ..streaming import Streaming, is_stream, restart, step_through

# The largest difference of a logit that is let through, in standard deviations of the logits.
# fp32: the same sums in another order give 1e-6. fp16: 11 bits, 5e-4, in each of some fifty
# layers. int8: 8 bits of each layer's range; beyond half a deviation the order of classes goes.
BOUNDS: dict[ExportPrecision, float] = {"fp32": 1e-4, "fp16": 5e-2, "int8": 1.0}
AGREEMENT = 0.8  # of the frames that must have the same best class in int8


@dataclass(frozen=True)
class Proof:
    """How a file compares with its network on real frames.

    error: the largest difference of a logit over the deviation of all logits; mean: the root mean
    square of the differences over it. agreement: the share of clips, or of frames of streams,
    whose best class is the same. clips, steps: how many clips, and frames one by one of each.
    """

    clips: int
    steps: int
    error: float
    mean: float
    agreement: float
    bound: float

    def to_dict(self) -> dict[str, Any]:
        return {"against": "torch", **dataclasses.asdict(self)}


def prove(
    network: nn.Module,
    exported: nn.Module,
    batches: list[Tensor],
    precision: ExportPrecision,
    progress: Callable[[int, int], None],
) -> Proof:
    """Run both on the same clips; streams frame by frame with their states carried and a restart.

    network: in float32, of clips or a `Streaming`. exported: the file, opened. batches: normalised
    clips (N, 3, T, S, S) each.

    Raises `UserError` where they differ by more than the precision explains.
    """
    logits: list[list[Tensor]] = [[], []]
    for i, clips in enumerate(batches):
        for model, kept in zip((network, exported), logits, strict=True):
            with torch.inference_mode():
                kept += stepped(model, clips) if is_stream(model) else [model(clips)]
        progress(i + 1, len(batches))
    want, got = (torch.cat(kept).double() for kept in logits)
    steps = batches[0].shape[2] if is_stream(network) else 0
    proof = _compared(want, got, sum(len(clips) for clips in batches), steps, BOUNDS[precision])
    low = precision == "int8" and proof.agreement < AGREEMENT
    if not proof.error <= proof.bound or low:
        raise UserError(
            f"the {precision} file gives other scores than the network: they differ by"
            f" {proof.error:.2g} of the logits' deviation ({proof.bound:g} at most was expected)"
            f" and the best class is the same for {proof.agreement:.0%}; nothing was written"
            + (": calibrate with videos the network is for, or use fp16" if low else "")
        )
    return proof


def same_on_clips(stream: Streaming, network: nn.Module, clips: Tensor) -> Streaming:
    """The stream, if the mean of its logits over normalised clips is what the network gives.

    Raises `UserError` if it is not: the network mixes frames where no layer shows it.
    """
    with torch.inference_mode():
        want, got = network(clips), step_through(stream, clips).mean(1)
    apart = float((got - want).abs().max() / want.std().clamp_min(1e-12))
    if not apart <= BOUNDS["fp32"]:
        raise UserError(
            f"frame by frame this network gives other scores than for whole clips, by {apart:.2g}"
            " of the logits' deviation: something in it mixes frames; nothing was written"
        )
    return stream


def stepped(model: nn.Module, clips: Tensor) -> Iterator[Tensor]:
    """The logits of each frame of clips (N, 3, T, S, S); the first clip begins anew at half."""
    frames = clips.unbind(2)
    state = model.start(frames[0])  # type: ignore[operator]
    for t, frame in enumerate(frames):
        if t == len(frames) // 2:
            state = restart(state, torch.arange(len(clips)) == 0)
        logits, state = model(frame, state)
        yield logits


def _compared(want: Tensor, got: Tensor, clips: int, steps: int, bound: float) -> Proof:
    deviation = want.std().clamp_min(1e-12)
    difference = (got - want) / deviation
    same = (got.argmax(1) == want.argmax(1)).double().mean()
    return Proof(
        clips,
        steps,
        float(difference.abs().max()),
        float(difference.square().mean().sqrt()),
        float(same),
        bound,
    )

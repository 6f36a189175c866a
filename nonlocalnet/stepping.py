"""What an online network says after every frame of a clip, beside what it says of the whole clip.

Its logits after each frame come from that frame and earlier ones; their mean over the frames is
the clip's, so the two ways to it must agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .scoring import VALUES, finite, prepared
from .streaming import Streaming, step_through


def score_frames(stream: Streaming, clips: Tensor) -> Tensor:
    """Logits after each frame: (V, 3, T, S, S) uint8 -> (V, T, K) float32, on the CPU.

    Raises `UserError` if a logit is not finite.
    """
    size = max(1, VALUES // clips[0].numel())
    with torch.no_grad():
        parts = [step_through(stream, prepared(stream, part)) for part in clips.split(size)]
    return finite(torch.cat(parts))


@dataclass(frozen=True)
class Agreement:
    """How far two ways to the same logits are apart: sums over videos, which can be added."""

    largest: float = 0.0  # difference
    count: int = 0  # of logits; then their sum, and that of their squares
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, logits: Tensor, others: Tensor) -> Agreement:
        """That of one video, from two tensors of the same shape."""
        x, y = logits.double(), others.double()
        return cls(float((x - y).abs().max()), x.numel(), float(x.sum()), float(x.square().sum()))

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            max(self.largest, other.largest),
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
        )

    @property
    def relative(self) -> float:
        """The largest difference, relative to the standard deviation of all the logits."""
        variance = self.squares / self.count - (self.total / self.count) ** 2
        return self.largest / max(variance, 1e-30) ** 0.5

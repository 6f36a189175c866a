"""What kernels ask of numbers: how precisely to add them, and whether they are numbers at all."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sums_in(*tensors: Tensor) -> torch.dtype:
    """The type in which kernels add: float64 if one of the tensors is, else float32."""
    double = any(t.dtype == torch.float64 for t in tensors)
    return torch.float64 if double else torch.float32


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on for x's device."""
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def all_finite(*tensors: Tensor) -> bool:
    """Whether no tensor holds inf or nan (nor numbers whose sum is inf). Waits for the device."""
    return all(math.isfinite(t.sum(dtype=sums_in(t))) for t in tensors)

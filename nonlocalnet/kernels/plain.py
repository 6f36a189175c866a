"""Our operators as torch's own, for graphs that run where nonlocalnet is not: ONNX, a .pt2 file.

Some rows of the matrix of pairs at a time, so that none is ever whole. How many is a fixed number,
since such a graph serves every batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import PAIRS_AT_ONCE


def relu_sum(a: Tensor, b: Tensor, g: Tensor, factor: float) -> Tensor:
    """factor sum_j ReLU(a_i + b_j) g_j for a (N, P), b (N, Q), g (N, Q, D): (N, P, D)."""
    at_once = max(1, PAIRS_AT_ONCE // b.shape[1])
    values = g * factor
    rows = [(some.unsqueeze(2) + b.unsqueeze(1)).relu() @ values for some in a.split(at_once, 1)]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def softmax_rows(theta: Tensor, phi: Tensor, g: Tensor, at_once: int) -> Tensor:
    """softmax(theta phi^T) g for theta (N, P, C), phi (N, Q, C), g (N, Q, D): (N, P, D)."""
    rows = [(some @ phi.mT).softmax(-1) @ g for some in theta.split(at_once, 1)]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def plain_forms() -> dict[torch._ops.OpOverload, Callable[..., Tensor]]:
    """Operator -> the function here, as `ExportedProgram.run_decompositions` takes them."""
    ours = torch.ops.nonlocalnet
    return {
        ours.relu_sum.default: relu_sum,
        ours.softmax_rows.default: softmax_rows,
    }

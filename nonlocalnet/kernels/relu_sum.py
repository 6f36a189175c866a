"""The sum of ReLU(a_i + b_j) g_j over j by sorting: what Eq. 6 (concatenation) comes down to.

w_f . [theta_i, phi_j] = a_i + b_j, so all pairs share two sorted lists. This is the plain torch
form, for every device; compiled ones take its place behind `relu_sum`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Channels of g per prefix sum: keeps the float64 accumulators small and in cache.
CHANNELS_AT_ONCE = 64


def relu_sum(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    """R_i = sum_j ReLU(a_i + b_j) g_j for a (N, P), b (N, Q), g (N, Q, D): (N, P, D).

    O((P + Q) log(P + Q) + (P + Q) D) in time and linear in memory, in every order of gradient.
    """
    total: Tensor = _ReluSum.apply(a, b, g)
    return total


class _ReluSum(torch.autograd.Function):
    """R(a, b, g)_i = sum_j ReLU(a_i + b_j) g_j, by sorting instead of pairing.

    Its derivatives are R itself with a and b exchanged (for g) and the step sum H below (for a
    and b), and those of H are H again; so every order of gradient stays free of the matrix.
    """

    @staticmethod
    def forward(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
        return _sorted_sum(a, b, g, relu=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b, g = ctx.saved_tensors
        da = db = dg = None
        if ctx.needs_input_grad[0]:
            da = (dy * _StepSum.apply(a, b, g)).sum(-1)
        if ctx.needs_input_grad[1]:
            db = (g * _StepSum.apply(b, a, dy)).sum(-1)
        if ctx.needs_input_grad[2]:
            dg = _ReluSum.apply(b, a, dy)
        return da, db, dg


class _StepSum(torch.autograd.Function):
    """H(a, b, g)_i = sum of g_j over the j with a_i + b_j > 0 (torch's ReLU'(0) = 0)."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
        return _sorted_sum(a, b, g, relu=False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], inputs[1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        return None, None, _StepSum.apply(b, a, dy) if ctx.needs_input_grad[2] else None


def _sorted_sum(a: Tensor, b: Tensor, g: Tensor, relu: bool) -> Tensor:
    """R or H of a (N, P), b (N, Q), g (N, Q, D) -> (N, P, D), by prefix sums over sorted keys.

    With t = -b ascending, k_i the number of t below a_i and G_k the sum of the first k values,
    H_i = G_(k_i). R is summed in Abel's form, S_(k+1) = S_k + (t_(k+1) - t_k) G_k and
    R_i = S_(k_i) + (a_i - t_(k_i)) G_(k_i): its increments never cancel, as a_i G - sum t g does.
    """
    exact = torch.float32 if a.device.type == "mps" else torch.float64
    # Sort in the given dtype, where a_i + b_j > 0 and -b_j < a_i are the same comparison.
    t, order = (-b).sort(dim=1)
    k = torch.searchsorted(t.contiguous(), a.contiguous())  # (N, P): keys strictly below a_i
    last = (k - 1).clamp(min=0)
    t = t.to(exact)
    rise = (a.to(exact) - t.gather(1, last)).unsqueeze(-1)  # a_i - t_(k_i)
    steps = t.diff(dim=1).unsqueeze(-1)
    parts = []
    for some in g.split(CHANNELS_AT_ONCE, dim=-1):
        index = order.unsqueeze(-1).expand_as(some)
        G = some.gather(1, index).to(exact).cumsum(1)  # G[k-1] holds the sum of the first k
        at = last.unsqueeze(-1).expand(-1, -1, some.shape[-1])
        y = G.gather(1, at)
        if relu:
            S = F.pad((steps * G[:, :-1]).cumsum(1), (0, 0, 1, 0))
            y = S.gather(1, at) + rise * y
        parts.append(torch.where((k > 0).unsqueeze(-1), y, 0.0).to(g.dtype))
    return torch.cat(parts, dim=-1) if parts else g.new_zeros(*a.shape, 0)

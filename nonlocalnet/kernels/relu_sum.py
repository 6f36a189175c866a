"""The sum of ReLU(a_i + b_j) g_j over j by sorting: what Eq. 6 (concatenation) comes down to.

w_f . [theta_i, phi_j] = a_i + b_j, so all pairs share two sorted lists. This is the plain torch
form, for every device; compiled ones take its place behind `relu_sum`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Channels of g per prefix sum: keeps the float64 accumulators small and in cache.
CHANNELS_AT_ONCE = 16


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
    n, p = a.shape
    q, channels = g.shape[1:]
    # allocated before what is dropped again, which would otherwise spread the heap
    out = g.new_empty(n, p, channels)
    # Sort in the given dtype, where a_i + b_j > 0 and -b_j < a_i are the same comparison.
    t, order = (-b).sort(dim=1)
    k = torch.searchsorted(t.contiguous(), a.contiguous()).unsqueeze(-1)  # keys strictly below a_i
    t = t.to(exact)
    last = (k - 1).clamp_(min=0)
    rise = a.to(exact).unsqueeze(-1) - t.gather(1, last.squeeze(-1)).unsqueeze(-1)  # a_i - t_(k_i)
    steps = t.diff(dim=1).unsqueeze(-1)
    for start in range(0, channels, CHANNELS_AT_ONCE):
        some = g[..., start : start + CHANNELS_AT_ONCE]
        width = some.shape[-1]
        # G[k - 1] holds G_k, the sum of the first k values
        G = some.gather(1, order.unsqueeze(-1).expand(n, q, width)).to(exact).cumsum_(1)
        y = G.gather(1, last.expand(n, p, width))
        if relu:
            y *= rise
            if q > 1:  # S[k - 2] holds S_k, and S_1 = 0
                S = G[:, :-1].mul_(steps).cumsum_(1)
                y += S.gather(1, (k - 2).clamp_(min=0).expand(n, p, width)).mul_(k > 1)
        out[..., start : start + width] = y.mul_(k > 0)
    return out

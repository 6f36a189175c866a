"""softmax(theta phi^T) g a few rows at a time, for widths that fused attention does not take.

The plain torch form, for every device. Its long-lived tensors are allocated before the first
rows are formed: between them, a score chunk is freed and reused instead of spreading the heap.
Scores, their sums and the gradients' sums are float32 whatever the inputs are (float64 stays).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def softmax_rows(theta: Tensor, phi: Tensor, g: Tensor, at_once: int) -> Tensor:
    """softmax(theta phi^T) g for theta (N, P, C), phi (N, Q, C), g (N, Q, D): (N, P, D).

    `at_once` rows are formed at a time; the backward pass forms them again, as in
    FlashAttention (Dao et al. 2022), from the logarithm of each row's sum. Under autocast the
    products are of its type, in both passes.
    """
    kind = theta.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return _SoftmaxRows.apply(theta, phi, g, at_once)
    dtype = torch.get_autocast_dtype(kind)
    with torch.autocast(kind, enabled=False):
        return _SoftmaxRows.apply(theta.to(dtype), phi.to(dtype), g.to(dtype), at_once)


def _chunks(rows: int, at_once: int) -> Iterator[slice]:
    return (slice(i, min(i + at_once, rows)) for i in range(0, rows, at_once))


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class _SoftmaxRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, phi: Tensor, g: Tensor, at_once: int) -> Tensor:
        n, p, _ = theta.shape
        y = g.new_empty(n, p, g.shape[-1])
        log_sum = _precise(theta.new_empty(n, p, 1))
        for rows in _chunks(p, at_once):
            s = _precise(theta[:, rows] @ phi.mT)  # (N, rows, Q)
            log_sum[:, rows] = s.logsumexp(-1, keepdim=True)
            y[:, rows] = s.sub_(log_sum[:, rows]).exp_().to(g.dtype) @ g
        ctx.save_for_backward(theta, phi, g, y, log_sum)
        ctx.at_once = at_once
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # a second derivative is wanted: the same by autograd
            return (*_differentiable_backward(ctx, dy), None)
        theta, phi, g, y, log_sum = ctx.saved_tensors
        dtheta = torch.zeros_like(theta)
        dphi, dg = (torch.zeros_like(_precise(t)) for t in (phi, g))
        mean = _precise(dy * y).sum(-1, keepdim=True)  # sum_j p_ij dp_ij
        for rows in _chunks(theta.shape[1], ctx.at_once):
            p = _precise(theta[:, rows] @ phi.mT).sub_(log_sum[:, rows]).exp_()
            dg += p.mT.to(g.dtype) @ dy[:, rows]
            ds = _precise(dy[:, rows] @ g.mT).sub_(mean[:, rows]).mul_(p).to(theta.dtype)
            dtheta[:, rows] = ds @ phi
            dphi += ds.mT @ theta[:, rows]
        return dtheta, dphi.to(phi.dtype), dg.to(g.dtype), None


def _differentiable_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    with torch.enable_grad():
        # views, so that a gradient stops here and does not go on to what they were made from
        theta, phi, g = inputs = [t.view_as(t) for t in ctx.saved_tensors[:3]]
        y = torch.cat(
            [
                _precise(theta[:, rows] @ phi.mT).softmax(-1).to(g.dtype) @ g
                for rows in _chunks(theta.shape[1], ctx.at_once)
            ],
            dim=1,
        )
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[:3]) if needed]
        found = torch.autograd.grad(y, [inputs[i] for i in wanted], dy, create_graph=True)
    by_place = dict(zip(wanted, found, strict=True))
    return tuple(by_place.get(i) for i in range(3))

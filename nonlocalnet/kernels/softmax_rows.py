"""softmax(theta phi^T) g a few rows at a time, for widths that fused attention does not take.

The plain torch form, for every device. Its long-lived tensors are allocated before the first
rows are formed: between them, a score chunk is freed and reused instead of spreading the heap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def softmax_rows(theta: Tensor, phi: Tensor, g: Tensor, at_once: int) -> Tensor:
    """softmax(theta phi^T) g for theta (N, P, C), phi (N, Q, C), g (N, Q, D): (N, P, D).

    `at_once` rows are formed at a time; the backward pass forms them again, as in
    FlashAttention (Dao et al. 2022), from the logarithm of each row's sum.
    """
    y: Tensor = _SoftmaxRows.apply(theta, phi, g, at_once)
    return y


def _chunks(rows: int, at_once: int) -> Iterator[slice]:
    return (slice(i, min(i + at_once, rows)) for i in range(0, rows, at_once))


class _SoftmaxRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, phi: Tensor, g: Tensor, at_once: int) -> Tensor:
        n, p, _ = theta.shape
        y = g.new_empty(n, p, g.shape[-1])
        log_sum = theta.new_empty(n, p, 1)
        for rows in _chunks(p, at_once):
            s = theta[:, rows] @ phi.mT  # (N, rows, Q)
            log_sum[:, rows] = s.logsumexp(-1, keepdim=True)
            y[:, rows] = s.sub_(log_sum[:, rows]).exp_().to(g.dtype) @ g
        ctx.save_for_backward(theta, phi, g, y, log_sum)
        ctx.at_once = at_once
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        theta, phi, g, y, log_sum = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: the same by autograd
            with torch.enable_grad():
                again = torch.cat(
                    [
                        (theta[:, rows] @ phi.mT).softmax(-1).to(g.dtype) @ g
                        for rows in _chunks(theta.shape[1], ctx.at_once)
                    ],
                    dim=1,
                )
                found = torch.autograd.grad(again, (theta, phi, g), dy, create_graph=True)
            return (*found, None)
        dtheta, dphi, dg = (torch.zeros_like(t) for t in (theta, phi, g))
        mean = (dy * y).sum(-1, keepdim=True)  # sum_j p_ij dp_ij
        for rows in _chunks(theta.shape[1], ctx.at_once):
            p = (theta[:, rows] @ phi.mT).sub_(log_sum[:, rows]).exp_()
            dg += p.mT.to(g.dtype) @ dy[:, rows]
            ds = (dy[:, rows] @ g.mT).sub_(mean[:, rows]).to(p.dtype).mul_(p)
            dtheta[:, rows] = ds @ phi
            dphi += ds.mT @ theta[:, rows]
        return dtheta, dphi, dg, None

"""softmax(theta phi^T) g without the matrix of pairs: a few rows at a time, and fused.

`softmax_rows` is plain torch, for every device and every width. Its long-lived tensors are made
before the first rows are: between them, a chunk is freed and reused instead of spreading the heap.
`softmax_fused` is torch's flash attention for CPUs, which has no second derivative of its own.
Both are registered operators, recompute the weights in the backward pass (as FlashAttention does,
Dao et al. 2022) and have every order of gradient. The weights are formed in float32 whatever the
inputs are (float64 stays).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .relu_sum_torch import PAIRS_AT_ONCE


@torch.library.custom_op("nonlocalnet::softmax_rows", mutates_args=())
def softmax_rows(theta: Tensor, phi: Tensor, g: Tensor, at_once: int) -> Tensor:
    """For theta (N, P, C), phi (N, Q, C), g (N, Q, D): (N, P, D), from `at_once` rows at a time."""
    y = g.new_empty(theta.shape[0], theta.shape[1], g.shape[2])
    for rows in _chunks(theta, at_once):
        y[:, rows] = _weights(theta[:, rows], phi).to(g.dtype) @ g
    return y


@torch.library.custom_op("nonlocalnet::softmax_rows_backward", mutates_args=())
def softmax_rows_backward(
    theta: Tensor, phi: Tensor, g: Tensor, dy: Tensor, at_once: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of `softmax_rows` in theta, phi and g."""
    dtheta = torch.empty_like(theta, memory_format=torch.contiguous_format)
    dphi, dg = (torch.zeros_like(_precise(t)) for t in (phi, g))
    for rows in _chunks(theta, at_once):
        p = _weights(theta[:, rows], phi)
        dg += p.mT.to(g.dtype) @ dy[:, rows]
        dp = _precise(dy[:, rows] @ g.mT)
        ds = torch.ops.aten._softmax_backward_data(dp, p, -1, dp.dtype).to(theta.dtype)
        dtheta[:, rows] = ds @ phi
        dphi += ds.mT @ theta[:, rows]
    return dtheta, dphi.to(phi.dtype), dg.to(g.dtype)


@torch.library.custom_op("nonlocalnet::softmax_fused", mutates_args=())
def softmax_fused(theta: Tensor, phi: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The same on a CPU, for g as wide as theta; and the logarithms of the rows' sums.

    Where a number is not finite, torch's kernel may hide it, so the rows are formed.
    """
    if not all(math.isfinite(t.sum(dtype=_precise(t[:0]).dtype)) for t in (theta, phi, g)):
        n, p, _ = theta.shape
        nowhere = _precise(theta.new_empty(0)).new_full((n, 1, p), math.nan)
        return softmax_rows(theta, phi, g, max(1, PAIRS_AT_ONCE // phi.shape[:2].numel())), nowhere
    y, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *_one_head(theta, phi, g), scale=1.0
    )
    return y.squeeze(1), log_sum


@torch.library.custom_op("nonlocalnet::softmax_fused_backward", mutates_args=())
def softmax_fused_backward(
    theta: Tensor, phi: Tensor, g: Tensor, y: Tensor, log_sum: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of `softmax_fused` in theta, phi and g."""
    q, k, v, out, dout = _one_head(theta, phi, g, y, dy)
    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        dout, q, k, v, out, log_sum, 0.0, False, scale=1.0
    )
    return dq.squeeze(1), dk.squeeze(1), dv.squeeze(1)


@softmax_rows.register_fake
def _(theta: Tensor, phi: Tensor, g: Tensor, at_once: int) -> Tensor:
    return g.new_empty(theta.shape[0], theta.shape[1], g.shape[2])


@softmax_rows_backward.register_fake
def _(theta: Tensor, phi: Tensor, g: Tensor, dy: Tensor, at_once: int) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (theta, phi, g))


@softmax_fused.register_fake
def _(theta: Tensor, phi: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    n, p, _ = theta.shape
    return theta.new_empty(theta.shape), _precise(theta.new_empty(0)).new_empty(n, 1, p)


@softmax_fused_backward.register_fake
def _(
    theta: Tensor, phi: Tensor, g: Tensor, y: Tensor, log_sum: Tensor, dy: Tensor
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (theta, phi, g))


def _rows_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.at_once = inputs[3]


def _rows_gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():  # a further derivative is wanted
        return (*_differentiable(ctx, dy, ctx.at_once), None)
    return (*softmax_rows_backward(*ctx.saved_tensors, dy, ctx.at_once), None)


def _fused_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _fused_gradient(ctx: Any, dy: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        return _differentiable(ctx, dy, ctx.saved_tensors[0].shape[1])
    return softmax_fused_backward(*ctx.saved_tensors, dy)


softmax_rows.register_autograd(_rows_gradient, setup_context=_rows_context)
softmax_fused.register_autograd(_fused_gradient, setup_context=_fused_context)


def _differentiable(ctx: Any, dy: Tensor, at_once: int) -> tuple[Tensor | None, ...]:
    """The gradient by autograd, of which autograd takes the next one."""
    with torch.enable_grad():
        # views, so that a gradient stops here and does not go on to what they were made from
        theta, phi, g = inputs = [t.view_as(t) for t in ctx.saved_tensors[:3]]
        rows = [_weights(theta[:, r], phi).to(g.dtype) @ g for r in _chunks(theta, at_once)]
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[:3]) if needed]
        found = torch.autograd.grad(
            torch.cat(rows, dim=1), [inputs[i] for i in wanted], dy, create_graph=True
        )
    by_place = dict(zip(wanted, found, strict=True))
    return tuple(by_place.get(i) for i in range(3))


def _weights(theta: Tensor, phi: Tensor) -> Tensor:
    return _precise(theta @ phi.mT).softmax(-1)


def _chunks(theta: Tensor, at_once: int) -> Iterator[slice]:
    return (slice(i, i + at_once) for i in range(0, theta.shape[1], at_once))


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _one_head(*tensors: Tensor) -> list[Tensor]:
    # the kernels need the channels side by side: (N, P, C) -> (N, 1, P, C)
    return [t.contiguous().unsqueeze(1) for t in tensors]

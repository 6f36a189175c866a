"""softmax(theta phi^T) g without the matrix of pairs: a few rows at a time, and fused.

`softmax_rows` is plain torch, for every device and every width. Its long-lived tensors are made
before the first rows are: between them, a chunk is freed and reused instead of spreading the heap.
`softmax_fused` is torch's flash attention for CPUs. Both are operators of torch, form the weights
again in the backward pass and have every order of gradient (a second one keeps all weights). The
softmax is taken in float32 whatever the inputs are (float64 stays).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .operator import operator
from .precision import all_finite, sums_in


def _fake(theta: Tensor, phi: Tensor, g: Tensor, at_once: int) -> Tensor:
    return g.new_empty(theta.shape[0], theta.shape[1], g.shape[2])


def _gradient_fake(
    theta: Tensor, phi: Tensor, g: Tensor, dy: Tensor, at_once: int
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (theta, phi, g))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.at_once = inputs[3]


def _gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():  # a further derivative is wanted
        return (*_differentiable(ctx, dy), None)
    return (*softmax_rows_backward(*ctx.saved_tensors, dy, ctx.at_once), None)


def _differentiable(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient by autograd, of which autograd takes the next one."""
    with torch.enable_grad():
        # views, so that a gradient stops here and does not go on to what they were made from
        theta, phi, g = inputs = [t.view_as(t) for t in ctx.saved_tensors[:3]]
        precise = theta.to(sums_in(theta)) @ phi.to(sums_in(phi)).mT
        y = precise.softmax(-1).to(g.dtype) @ g
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[:3]) if needed]
        found = torch.autograd.grad(y, [inputs[i] for i in wanted], dy, create_graph=True)
    by_place = dict(zip(wanted, found, strict=True))
    return tuple(by_place.get(i) for i in range(3))


SCHEMA = "(Tensor theta, Tensor phi, Tensor g, SymInt at_once) -> Tensor"


@operator(SCHEMA, _fake, _gradient, _keep)
def softmax_rows(theta: Tensor, phi: Tensor, g: Tensor, at_once: int) -> Tensor:
    """For theta (N, P, C), phi (N, Q, C), g (N, Q, D): (N, P, D), from `at_once` rows at a time."""
    y = g.new_empty(theta.shape[0], theta.shape[1], g.shape[2])
    scores = _chunk(theta, phi, at_once)
    for some, rows in _chunks(theta, at_once):
        y[some, rows] = _weights(theta[some, rows], phi[some], scores).to(g.dtype) @ g[some]
    return y


@operator(SCHEMA, _fake, _gradient, _keep)
def softmax_fused(theta: Tensor, phi: Tensor, g: Tensor, at_once: int) -> Tensor:
    """The same by torch's fused attention on a CPU, for g as wide as theta.

    Its gradient is that of `softmax_rows`: torch's own takes the weights from the rounded logarithm
    of each row's sum, which makes its error a tenth to a third larger than the matrix form's.
    Where a number is not finite, torch's kernel may hide it, so the rows are formed.
    """
    if not all_finite(theta, phi, g):
        return softmax_rows(theta, phi, g, at_once)
    # the kernel needs the channels side by side: (N, P, C) -> (N, 1, P, C)
    q, k, v = (t.contiguous().unsqueeze(1) for t in (theta, phi, g))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)


@operator(
    "(Tensor theta, Tensor phi, Tensor g, Tensor dy, SymInt at_once) -> (Tensor, Tensor, Tensor)",
    _gradient_fake,
)
def softmax_rows_backward(
    theta: Tensor, phi: Tensor, g: Tensor, dy: Tensor, at_once: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of `softmax_rows` in theta, phi and g."""
    dtheta = theta.new_empty(theta.shape)
    dphi, dg = (t.new_zeros(t.shape, dtype=sums_in(t)) for t in (phi, g))
    scores, gradients = (_chunk(theta, phi, at_once) for _ in range(2))
    for some, rows in _chunks(theta, at_once):
        p = _weights(theta[some, rows], phi[some], scores)
        _add_product(dg[some], p.mT, dy[some, rows])
        dp = _product(dy[some, rows], g[some].mT, gradients)
        ds = torch.ops.aten._softmax_backward_data.out(dp, p, -1, dp.dtype, grad_input=dp)
        dtheta[some, rows] = ds.to(theta.dtype) @ phi[some]
        _add_product(dphi[some], ds.mT, theta[some, rows])
    return dtheta, dphi.to(phi.dtype), dg.to(g.dtype)


def _chunk(theta: Tensor, phi: Tensor, at_once: int) -> Tensor:
    """Room for the pairs of one chunk: made anew for each, its pages would cost as much as it."""
    n, p, _ = theta.shape
    shape = min(n, max(1, at_once // p)), min(p, at_once), phi.shape[1]
    return theta.new_empty(shape, dtype=sums_in(theta))


def _weights(theta: Tensor, phi: Tensor, room: Tensor) -> Tensor:
    if theta.device.type == "cpu":  # elsewhere products in float32 would be slow
        theta, phi = theta.to(room.dtype), phi.to(room.dtype)
    scores = _product(theta, phi.mT, room)
    return torch.softmax(scores, -1, out=scores)


def _product(left: Tensor, right: Tensor, room: Tensor) -> Tensor:
    """left right in `room`, if it is of the same type."""
    if left.dtype != room.dtype:
        return (left @ right).to(room.dtype)
    return torch.bmm(left, right, out=room[: left.shape[0], : left.shape[1]])


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left right, in the type of `right`."""
    if total.dtype == right.dtype:
        total.baddbmm_(left, right)
    else:
        total += left.to(right.dtype) @ right


def _chunks(theta: Tensor, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Samples and rows: some rows of one sample, or as many whole samples as have so many rows."""
    n, p, _ = theta.shape
    samples = max(1, at_once // p)
    for i in range(0, n, samples):
        for j in range(0, p, at_once):
            yield slice(i, i + samples), slice(j, j + at_once)

"""R and H of `relu_sum` in plain torch, for every device: as prefix sums, and pair by pair."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from . import PAIRS_AT_ONCE
from .precision import sums_in

# Channels of g per prefix sum: keeps the float64 accumulators small and in cache.
CHANNELS_AT_ONCE = 16


def sorted_sum(a: Tensor, b: Tensor, g: Tensor, relu: bool, factor: float) -> Tensor:
    """factor R (or H) of a (N, P), b (N, Q), g (N, Q, D) -> (N, P, D), by prefix sums.

    A value that is not finite makes whatever it could reach not finite, as 0 * inf does in the
    matrix product, but where that gives inf this may give nan.
    """
    exact = torch.float32 if a.device.type == "mps" else torch.float64
    n, p = a.shape
    q, channels = g.shape[1:]
    # allocated before what is dropped again, which would otherwise spread the heap
    out = g.new_empty(n, p, channels)
    # Sort in one dtype, where a_i + b_j > 0 and -b_j < a_i are the same comparison.
    a, b = a.to(torch.promote_types(a.dtype, b.dtype)), b.to(torch.promote_types(a.dtype, b.dtype))
    t, order = (-b).sort(dim=1)
    k = torch.searchsorted(t.contiguous(), a.contiguous()).unsqueeze(-1)  # keys strictly below a_i
    t = t.to(exact)
    last = (k - 1).clamp_(min=0)
    rise = a.to(exact).unsqueeze(-1) - t.gather(1, last.squeeze(-1)).unsqueeze(-1)  # a_i - t_(k_i)
    steps = t.diff(dim=1).unsqueeze(-1)
    bad_key = torch.where(t[:, -1:].isnan(), t[:, -1:], 0).unsqueeze(-1)  # nan is sorted last
    for start in range(0, channels, CHANNELS_AT_ONCE):
        some = g[..., start : start + CHANNELS_AT_ONCE]
        width = some.shape[-1]
        # G[k - 1] holds G_k, the sum of the first k values
        G = some.gather(1, order.unsqueeze(-1).expand(n, q, width)).to(exact).cumsum_(1)
        poison = G[:, -1:] * 0 + bad_key  # nan if one of the values is not finite
        y = G.gather(1, last.expand(n, p, width))
        if relu:
            y *= rise
            if q > 1:  # S[k - 2] holds S_k, and S_1 = 0
                S = G[:, :-1].mul_(steps).cumsum_(1)
                y += S.gather(1, (k - 2).clamp_(min=0).expand(n, p, width)).mul_(k > 1)
        out[..., start : start + width] = y.mul_(k > 0).mul_(factor).add_(poison)
    return out


def sorted_backward(
    a: Tensor, b: Tensor, g: Tensor, dy: Tensor, factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of factor R: da (N, P), db (N, Q), dg (N, Q, D)."""
    da = (dy * sorted_sum(a, b, g, False, factor)).sum(-1)
    db = (g * sorted_sum(b, a, dy, False, factor)).sum(-1)
    return da, db, sorted_sum(b, a, dy, True, factor).to(g.dtype)


def paired_sum(a: Tensor, b: Tensor, g: Tensor, relu: bool, factor: float) -> Tensor:
    """factor R (or H) as the matrix product, some rows at a time: for what is not finite."""
    out = g.new_empty(*a.shape, g.shape[2])
    for rows in _chunks(a, b):
        s = _sums(a[:, rows], b)
        # not s > 0: torch's derivative of ReLU lets nan pass
        weights = s.relu() if relu else (~s.le(0)).to(s.dtype)
        out[:, rows] = weights.mul_(factor) @ g.to(s.dtype)
    return out


def paired_backward(
    a: Tensor, b: Tensor, g: Tensor, dy: Tensor, factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of `paired_sum(a, b, g, True, factor)`, term by term as autograd takes it."""
    da = torch.empty_like(_sums(a, b[:, :1]).squeeze(-1))
    g, dy = g.to(da.dtype), factor * dy.to(da.dtype)
    db, dg = torch.zeros_like(b, dtype=da.dtype), torch.zeros_like(g)
    for rows in _chunks(a, b):
        s = _sums(a[:, rows], b)
        ds = torch.ops.aten.threshold_backward(dy[:, rows] @ g.mT, s, 0)
        da[:, rows] = ds.sum(-1)
        db += ds.sum(1)
        dg += s.relu().mT @ dy[:, rows]
    return da, db, dg


def _chunks(a: Tensor, b: Tensor) -> Iterator[slice]:
    at_once = max(1, PAIRS_AT_ONCE // b.numel())
    return (slice(i, i + at_once) for i in range(0, a.shape[1], at_once))


def _sums(a: Tensor, b: Tensor) -> Tensor:
    s = a.unsqueeze(2) + b.unsqueeze(1)  # (N, P, Q), in float32 or better
    return s.to(sums_in(s))

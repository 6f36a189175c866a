"""R and H of `relu_sum` on a CPU: one walk over the two sorted lists, compiled by Numba.

A walk holds S and G of some channels in float64, adds a row of g to them where it passes a key and
writes a row where it passes a query: every number is read once and written once.
"""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from torch import Tensor

from .numba_form import compiled, pool
from .precision import sums_in

CHANNELS_PER_WALK = 256  # at most: S and G take 4 kB and stay in the first cache
LEAST_CHANNELS = 64  # that are worth a walk of their own
WORTH_THREADS = 2**19  # numbers read and written, some 100 microseconds


def sorted_sum(a: Tensor, b: Tensor, g: Tensor, relu: bool, factor: float) -> Tensor:
    """factor R (or H) of a (N, P), b (N, Q), g (N, Q, D) -> (N, P, D) in g's dtype; all
    finite.
    """
    a, b, values = _prepared(a, b, g)
    out = values.new_empty(*a.shape, g.shape[2])
    _run(_sorted(a), _sorted(-b), values, relu, factor, out, None)
    return out.to(g.dtype)


def sorted_backward(
    a: Tensor, b: Tensor, g: Tensor, dy: Tensor, factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of factor R: da (N, P), db (N, Q), dg (N, Q, D)."""
    a, b, values, dy = _prepared(a, b, g, dy)
    dg = torch.empty_like(values)
    da = _run(_sorted(a), _sorted(-b), values, False, factor, None, dy)
    db = _run(_sorted(b), _sorted(-a), dy, True, factor, dg, values)
    return da, db, dg.to(g.dtype)


Sorted = tuple[Tensor, Tensor]  # values and where they stood, (N, positions)


def _sorted(x: Tensor) -> Sorted:
    values, order = x.sort(dim=1)
    return values, order


def _prepared(*tensors: Tensor) -> list[Tensor]:
    dtype = sums_in(*tensors)
    return [t.detach().to(dtype).contiguous() for t in tensors]


def _run(
    queries: Sorted,
    keys: Sorted,
    g: Tensor,
    relu: bool,
    factor: float,
    out: Tensor | None,
    other: Tensor | None,
) -> Tensor:
    """Walk every sample and block of channels: factor R or H into `out`.

    Returns factor <other_i, H_i> (N, P).
    """
    samples, count = queries[0].shape
    channels = g.shape[2]
    threads = torch.get_num_threads()
    if (count + keys[0].shape[1]) * channels * samples < WORTH_THREADS:
        threads = 1
    walks = math.ceil(threads / samples)  # of one sample, so that every thread has one
    per_walk = min(CHANNELS_PER_WALK, max(LEAST_CHANNELS, math.ceil(channels / walks)))
    firsts = range(0, channels, per_walk)
    nothing = g.new_empty(samples, 0, 0)
    arrays = [t.numpy() for t in (*queries, *keys, g)]
    written, weights = (nothing if t is None else t for t in (out, other))
    dots = torch.zeros(len(firsts), samples, count if other is not None else 0, dtype=g.dtype)
    jobs = [
        (
            *(array[n] for array in arrays),
            *(first, min(first + per_walk, channels), relu, factor),
            *(written[n].numpy(), weights[n].numpy(), dots[i, n].numpy()),
        )
        for n in range(samples)
        for i, first in enumerate(firsts)
    ]
    if threads > 1 and len(jobs) > 1:
        list(pool(os.getpid(), threads).map(lambda job: _walk(*job), jobs))
    else:
        for job in jobs:
            _walk(*job)
    return dots.sum(0)


@compiled("reassoc")  # a sum in float64, in as many parts as the processor has lanes
def _dot(x, y):  # type: ignore[no-untyped-def]
    total = 0.0
    for c in range(x.shape[0]):
        total += x[c] * np.float64(y[c])
    return total


@compiled()
def _walk(  # type: ignore[no-untyped-def]
    a, a_rows, t, t_rows, g, first, last, relu, factor, out, other, dots
):
    """Sorted queries a and keys t with their rows; channels first .. last of g, out and other."""
    S, G = np.zeros(last - first), np.zeros(last - first)
    at, here = 0, np.float64(t[0])
    for i in range(a.shape[0]):
        query, row = np.float64(a[i]), a_rows[i]
        till = at
        while till < t.shape[0] and t[till] < query:
            till += 1
        while at + 1 < till:  # two keys in one step
            key, after = np.float64(t[at]), np.float64(t[at + 1])
            one, two = g[t_rows[at], first:last], g[t_rows[at + 1], first:last]
            if relu:
                rise, step = after - here, after - key
                for c in range(G.shape[0]):
                    S[c] += rise * G[c] + step * np.float64(one[c])
            for c in range(G.shape[0]):
                G[c] += np.float64(one[c]) + np.float64(two[c])
            at, here = at + 2, after
        if at < till:
            key, one = np.float64(t[at]), g[t_rows[at], first:last]
            if relu:
                for c in range(G.shape[0]):
                    S[c] += (key - here) * G[c]
            for c in range(G.shape[0]):
                G[c] += np.float64(one[c])
            at, here = at + 1, key
        if out.shape[0] > 0:
            to = out[row, first:last]
            if relu:
                rise = query - here
                for c in range(G.shape[0]):
                    to[c] = factor * (S[c] + rise * G[c])
            else:
                for c in range(G.shape[0]):
                    to[c] = factor * G[c]
        if other.shape[0] > 0:
            dots[row] = factor * _dot(G, other[row, first:last])

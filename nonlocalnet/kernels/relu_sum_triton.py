"""The sum of ReLU(a_i + b_j) g_j over j on CUDA: one sorted list, summed segment by segment.

The queries a and the keys t = -b are sorted into one list x, a query before the keys it equals.
From place to place of it, with G and S starting at zero,

    S += (x_e - x_(e-1)) G;  G += g_j if e is key j;  and R_i = S, H_i = G where e is query i.

No factor is negative: nothing cancels that does not in the matrix form. Three kernels share the
work: what each segment of the list adds, G and S before each segment (summed in float64), and
the places of each segment. That is O((P + Q) D), evenly spread however a and b lie, and without
atomics: the same input gives the same bits.

A matrix product spreads what is not finite, 0 times infinity included, and so does R: over a row
where a_i is NaN or +inf, over all rows of an element of the batch where a b_j is, over all rows
of a channel where a g_j is not finite. Where ReLU(a + b) @ g is not finite R is not either, and
elsewhere they are equal, unless sums of g alone leave float32's range. H is a sum of some g_j and
no product: what is not finite reaches only the rows that take it. There a NaN in a or b counts
as +inf, as it does in torch's derivative of ReLU. The host never waits to look at values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .precision import sums_in

# Sizes of what one program takes at once: they decide the speed, and the order of additions.
# With one warp a running sum down a column stays in its registers and shuffles.
PLACES = 32  # of the list in a segment
CHANNELS = 64  # of g, if its sums are float32; fewer where g has fewer
SEGMENTS = 128  # of the sums before each segment,
COLUMNS = 8  # by channels


class Merged(NamedTuple):
    """P queries and Q keys in one ascending list, per element of the batch."""

    x: Tensor  # (N, P + Q), float32 or float64
    place: Tensor  # (N, P + Q), int64: query i as i, key j as P + j
    lowest: Tensor  # (N,), the first key
    p: int


def sorted_sum(a: Tensor, b: Tensor, g: Tensor, relu: bool, factor: float) -> Tensor:
    """factor R or, without `relu`, H of a (N, P), b (N, Q), g (N, Q, D): (N, P, D), of g's dtype.

    R_i = sum_j ReLU(a_i + b_j) g_j and H_i = sum of g_j over the j with a_i + b_j > 0. Sums are
    float64 where an input is, float32 otherwise. No size may be zero.
    """
    with torch.cuda.device_of(g):
        out = g.new_empty(*a.shape, g.shape[2], dtype=_written_in(g))
        _answer(_merge(a, b, sums_in(a, b, g)), g.contiguous(), relu, out)
    return out.mul_(factor).to(g.dtype)


def sorted_backward(
    a: Tensor, b: Tensor, g: Tensor, dy: Tensor, factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, b and g for dy (N, P, D), the gradient of factor R.

    da_i = <dy_i, H(a, b, g)_i>, db_j = <g_j, H(b, a, dy)_j> and dg_j = R(b, a, dy)_j; the last
    two in one pass, and no H is stored.
    """
    with torch.cuda.device_of(g):
        merged = _merge(a, b, sums_in(a, b, g, dy))
        g, dy = g.contiguous(), dy.contiguous()
        dg = torch.empty_like(g, dtype=_written_in(g))
        da = _answer(merged, g, relu=False, other=dy)
        db = _answer(_exchanged(merged), dy, relu=True, out=dg, other=g)
    # the factor after the sums' last rounding, but before a type in which they might be too large
    return da.mul_(factor).to(a.dtype), db.mul_(factor).to(b.dtype), dg.mul_(factor).to(g.dtype)


def _written_in(g: Tensor) -> torch.dtype:
    return torch.float32 if g.dtype == torch.float16 else g.dtype


def _merge(a: Tensor, b: Tensor, dtype: torch.dtype) -> Merged:
    # NaN becomes the +inf of the docstring. Added to 0, -0 becomes 0: they must sort as equal.
    a = 0 + a.to(dtype).nan_to_num(torch.inf, torch.inf, -torch.inf)
    t = 0 - b.to(dtype).nan_to_num(torch.inf, torch.inf, -torch.inf)
    x, place = torch.cat([a, t], 1).sort(dim=1, stable=True)  # so a query comes before its equals
    return Merged(x, place, t.amin(1), a.shape[1])


def _exchanged(merged: Merged) -> Merged:
    """The list of R(b, a, .): negated and backwards, with queries as keys and keys as queries."""
    x, place, _, p = merged
    both = x.shape[1]
    lowest = -x.where(place < p, -torch.inf).amax(1)
    return Merged(-x.flip(1), (place.flip(1) - p) % both, lowest, both - p)


def _answer(
    merged: Merged, g: Tensor, relu: bool, out: Tensor | None = None, other: Tensor | None = None
) -> Tensor:
    """Writes R (`relu`) or H of g (N, Q, D) to `out` (N, P, D), if given.

    Returns <other_i, H_i>, (N, P), if `other` (N, P, D) is given, and else nothing of use.
    """
    x, place, lowest, p = merged
    n, q, d = g.shape
    channels = min(CHANNELS * 4 // x.itemsize, max(16, triton.next_power_of_2(d)))
    segments, blocks = triton.cdiv(p + q, PLACES), triton.cdiv(d, channels)
    # fused: rounded once per multiplication and addition, as Triton's default may not be
    common: dict[str, Any] = {"RELU": relu, "PLACES": PLACES, "enable_fp_fusion": True}
    tile: dict[str, Any] = {"CHANNELS": channels, "num_warps": 1, **common}
    sums, G = x.new_empty(2, n, segments, d)
    rises, S = x.new_empty(2, n, segments, d) if relu else (sums, G)  # not looked at without
    lost = x.new_empty(n, d)
    _sum_segment[(n * segments, blocks)](x, place, g, sums, rises, p, q, d, segments, **tile)
    _sum_before[(n, triton.cdiv(d, COLUMNS))](
        *(x, sums, rises, G, S, lost, p + q, d, segments),
        SEGMENTS=SEGMENTS,
        COLUMNS=COLUMNS,
        **common,
    )
    dots = x.new_empty(n, p, blocks) if other is not None else lost
    _answer_segment[(n * segments, blocks)](
        *(x, place, lowest, g, G, S, lost, dots if out is None else out, dots),
        *(dots if other is None else other, p, q, d, segments),
        WRITE=out is not None,
        DOT=other is not None,
        **tile,
    )
    return dots if other is None else dots.sum(-1)


# A size that changes from call to call is no reason to compile again.
_kernel = triton.jit(do_not_specialize=["P", "Q", "places", "segments"])


@_kernel
def _sum_segment(
    x_ptr: tl.tensor,
    place_ptr: tl.tensor,
    g_ptr: tl.tensor,
    sum_ptr: tl.tensor,
    rise_ptr: tl.tensor,
    P: tl.tensor,
    Q: tl.tensor,
    D: tl.tensor,
    segments: tl.tensor,
    RELU: tl.constexpr,
    PLACES: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """Of the keys of one segment: sum g_j and, with x_last its end, sum (x_last - t_j) g_j."""
    batch = (tl.program_id(0) // segments).to(tl.int64)
    segment = tl.program_id(0) % segments
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    e = segment * PLACES + tl.arange(0, PLACES)
    x_ptr += batch * (P + Q)
    key = tl.load(place_ptr + batch * (P + Q) + e, mask=e < P + Q, other=0) - P
    at = (batch * Q + key)[:, None] * D + d[None, :]
    g = tl.load(g_ptr + at, mask=(key >= 0)[:, None] & (d < D)[None, :], other=0.0)
    g = g.to(sum_ptr.dtype.element_ty)
    at = (batch * segments + segment) * D + d
    tl.store(sum_ptr + at, tl.sum(g, 0), mask=d < D)
    if RELU:
        last = tl.load(x_ptr + tl.minimum(segment * PLACES + PLACES, P + Q) - 1)
        rise = tl.where(key >= 0, last - tl.load(x_ptr + e, mask=key >= 0, other=0.0), 0.0)
        tl.store(rise_ptr + at, tl.sum(rise[:, None] * g, 0), mask=d < D)


@_kernel
def _sum_before(
    x_ptr: tl.tensor,
    sum_ptr: tl.tensor,
    rise_ptr: tl.tensor,
    G_ptr: tl.tensor,
    S_ptr: tl.tensor,
    lost_ptr: tl.tensor,
    places: tl.tensor,
    D: tl.tensor,
    segments: tl.tensor,
    RELU: tl.constexpr,
    PLACES: tl.constexpr,
    SEGMENTS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """G and S before every segment c, at the last place x_c ahead of it.

    G_(c+1) = G_c + sum_c and S_(c+1) = S_c + (x_(c+1) - x_c) G_c + rise_c, from zero on. And one
    number per channel, `lost`: NaN where a g_j of it is not finite, 0 else.
    """
    batch = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    x_ptr += batch * places
    G = tl.zeros([COLUMNS], tl.float64)  # before the first segment of a round of the loop
    older = tl.zeros([COLUMNS], tl.float64)  # before the one ahead of that
    S = tl.zeros([COLUMNS], tl.float64)
    for first in range(0, segments, SEGMENTS):
        c = first + tl.arange(0, SEGMENTS)
        at = (batch * segments + c)[:, None] * D + d[None, :]
        inside = (c < segments)[:, None] & (d < D)[None, :]
        # every load is a segment behind, which makes the sums those *before* each
        behind = inside & (c > 0)[:, None]
        total = tl.load(sum_ptr + at - D, mask=behind, other=0.0).to(tl.float64)
        here = G[None, :] + tl.cumsum(total, 0)
        tl.store(G_ptr + at, here.to(G_ptr.dtype.element_ty), mask=inside)
        G += tl.sum(total, 0)
        if RELU:
            twice = (c > 1) & (c < segments)
            earlier = tl.load(sum_ptr + at - 2 * D, mask=inside & twice[:, None], other=0.0)
            earlier = earlier.to(tl.float64)
            end = tl.load(x_ptr + c * PLACES - 1, mask=twice, other=0.0).to(tl.float64)
            start = tl.load(x_ptr + (c - 1) * PLACES - 1, mask=twice, other=0.0).to(tl.float64)
            step = tl.where(start > float("-inf"), end - start, 0.0)  # G is 0 there
            rise = tl.load(rise_ptr + at - D, mask=behind, other=0.0).to(tl.float64)
            rise += step[:, None] * (older[None, :] + tl.cumsum(earlier, 0))
            up = S[None, :] + tl.cumsum(rise, 0)
            tl.store(S_ptr + at, up.to(S_ptr.dtype.element_ty), mask=inside)
            older += tl.sum(earlier, 0)
            S += tl.sum(rise, 0)
    G += tl.load(sum_ptr + (batch * segments + segments - 1) * D + d, mask=d < D, other=0.0)
    tl.store(lost_ptr + batch * D + d, (G * 0.0).to(lost_ptr.dtype.element_ty), mask=d < D)


@_kernel
def _answer_segment(
    x_ptr: tl.tensor,
    place_ptr: tl.tensor,
    lowest_ptr: tl.tensor,
    g_ptr: tl.tensor,
    G_ptr: tl.tensor,
    S_ptr: tl.tensor,
    lost_ptr: tl.tensor,
    out_ptr: tl.tensor,
    dots_ptr: tl.tensor,
    other_ptr: tl.tensor,
    P: tl.tensor,
    Q: tl.tensor,
    D: tl.tensor,
    segments: tl.tensor,
    RELU: tl.constexpr,
    WRITE: tl.constexpr,
    DOT: tl.constexpr,
    PLACES: tl.constexpr,
    CHANNELS: tl.constexpr,
) -> None:
    """R or H of the queries of one segment, and the products of their H with `other`."""
    batch = (tl.program_id(0) // segments).to(tl.int64)
    segment = tl.program_id(0) % segments
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    e = segment * PLACES + tl.arange(0, PLACES)
    x_ptr += batch * (P + Q)
    place_ptr += batch * (P + Q)
    later = (e > segment * PLACES) & (e < P + Q)
    # a place takes the key of the one behind: the sums are those before it, with no difference
    key = tl.load(place_ptr + e - 1, mask=later, other=0) - P
    at = (batch * Q + key)[:, None] * D + d[None, :]
    g = tl.load(g_ptr + at, mask=(key >= 0)[:, None] & (d < D)[None, :], other=0.0)
    within = tl.cumsum(g.to(G_ptr.dtype.element_ty), 0)
    before = (batch * segments + segment) * D + d
    G = tl.load(G_ptr + before, mask=d < D, other=0.0)[None, :]
    x = tl.load(x_ptr + e, mask=e < P + Q, other=0.0)
    lowest = tl.load(lowest_ptr + batch)
    query = tl.load(place_ptr + e, mask=e < P + Q, other=P)
    row = batch * P + query
    at = row[:, None] * D + d[None, :]
    inside = (query < P)[:, None] & (d < D)[None, :]
    if RELU:
        # below -inf there are no keys: sums of zero, which are not to be multiplied by infinity
        behind = tl.load(x_ptr + e - 1, mask=later, other=float("-inf"))
        step = tl.where(behind > float("-inf"), x - behind, 0.0)
        R = tl.cumsum(step[:, None] * within, 0)
        start = tl.load(x_ptr + segment * PLACES - 1, mask=segment > 0, other=float("-inf"))
        step = tl.where(start > float("-inf"), x - start, 0.0)
        R += tl.load(S_ptr + before, mask=d < D, other=0.0)[None, :] + step[:, None] * G
        R += tl.load(lost_ptr + batch * D + d, mask=d < D, other=0.0)[None, :]
        infinite = tl.maximum(x, -lowest) == float("inf")  # this a, or the largest b
        R = tl.where(infinite[:, None], float("nan"), R)
        tl.store(out_ptr + at, R.to(out_ptr.dtype.element_ty), mask=inside)
    H = G + within
    if WRITE and not RELU:
        tl.store(out_ptr + at, H.to(out_ptr.dtype.element_ty), mask=inside)
    if DOT:
        other = tl.load(other_ptr + at, mask=inside, other=0.0).to(x.dtype)
        dot = tl.where(x > lowest, tl.sum(H * other, 1), 0.0)  # no keys: 0, whatever other is
        tl.store(dots_ptr + row * tl.num_programs(1) + tl.program_id(1), dot, mask=query < P)

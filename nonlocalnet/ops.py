"""Equation 1 of "Non-local Neural Networks" (Wang, Girshick, Gupta, He; CVPR 2018) as a function.

    y_i = 1 / C(x)  *  sum_j  f(x_i, x_j) g(x_j)

The four pairwise functions f of section 3.2, and the user's own, are the rows of `PAIRWISE`.
Each is exact and none stores a matrix of pairs that is larger than the embeddings:

    gaussian, embedded_gaussian   fused attention, or the softmax of a few rows at a time
    dot_product                   theta (phi^T g), or (theta phi^T) g where that is cheaper
    concatenation                 two sorted lists, O((P + Q) log(P + Q) + (P + Q) D)
    a function of the user's      a few rows at a time, recomputed in the backward pass

Letters: N batch, P query positions, Q key positions, C channels of the embeddings, D of g.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .kernels import PAIRS_AT_ONCE
from .kernels.precision import autocasts
from .kernels.relu_sum import relu_sum
from .kernels.softmax_sum import softmax_fused, softmax_rows

Scores = Callable[[Tensor, Tensor], Tensor]  # theta (N, P, C), phi (N, Q, C) -> f (N, P, Q)
Sum = Callable[[Tensor, Tensor, Tensor], Tensor]  # theta, phi, g (N, Q, D) -> y (N, P, D)


@dataclass(frozen=True)
class Pairwise:
    """A pairwise function f and its normaliser C(x).

    `scores` gives f for every pair, before normalisation; it is called with a few rows of theta
    at a time, so f(x_i, x_j) must not depend on other queries. `normalize` is "softmax" (f is the
    exponential of the scores and C the sum over the keys) or "count" (C is the number of keys).
    `total` computes the whole operation without the matrix of pairs; without one, `scores` is
    evaluated row by row. `embedded` says that theta and phi are learned embeddings rather than x
    itself; `weighted` that f has the vector w_f of Eq. 6.
    """

    scores: Scores
    normalize: Literal["softmax", "count"] = "count"
    total: Sum | None = None
    embedded: bool = True
    weighted: bool = False

    def __post_init__(self) -> None:
        if self.normalize not in ("softmax", "count"):
            raise ValueError(f"normalize is 'softmax' or 'count', not {self.normalize!r}")


def non_local(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    pairwise: str | Pairwise | Scores = "embedded_gaussian",
    scale: float | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """The non-local operation, Eq. 1: y_i = 1/C sum_j f(theta_i, phi_j) g_j.

    gaussian, embedded_gaussian   f = exp(theta_i . phi_j),               C = sum_j f   (Eq. 2, 3)
    dot_product                   f = theta_i . phi_j,                    C = Q         (Eq. 4)
    concatenation                 f = ReLU(weight . [theta_i, phi_j]),    C = Q         (Eq. 6)

    Args:
        theta: queries (N, P, C); for "gaussian" this is x itself.
        phi: keys (N, Q, C).
        g: values (N, Q, D).
        pairwise: a name of `PAIRWISE`, a `Pairwise`, or a function f(theta, phi) -> (N, P, Q)
            which is then divided by Q.
        scale: factor on theta . phi. None is the paper's 1; the authors' code, PySlowFast and
            PyTorchVideo use 1 / sqrt(C) for the embedded Gaussian.
        weight: w_f (2C,), theta's part first; for "concatenation" only.

    Returns:
        y (N, P, D), in g's dtype.

    Raises:
        ValueError: shapes or types that do not fit, an unknown name, a scale or weight that f does
            not have.
    """
    function = find_pairwise(pairwise)
    _check(theta, phi, g)
    theta, phi = _prepare(theta, phi, function, scale, weight)
    if 0 in (*theta.shape, *g.shape):  # no positions, or an empty batch: an empty sum
        return g.new_zeros(theta.shape[0], theta.shape[1], g.shape[2])
    if function.total is not None:
        return function.total(theta, phi, g)
    exporting = torch.compiler.is_exporting()  # then a number that serves every batch
    at_once = 320 if exporting else max(1, PAIRS_AT_ONCE // (theta.shape[0] * phi.shape[1]))
    return _by_rows(theta, phi, g, function, at_once)


def factors(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    out: Tensor,
    pairwise: str | Pairwise | Scores = "embedded_gaussian",
    scale: float | None = None,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Two matrices whose product is y @ out, y being the result of `non_local` on the rest.

    out: the matrix (D, E) that follows the operation, W_z^T in a block.

    They are y (N, P, D) and out itself, or for the dot product theta (N, P, C) and
    (phi^T g / Q) out (N, C, E) where that is cheaper: y is not formed at all.
    """
    function = find_pairwise(pairwise)
    (p, c), (q, d), e = theta.shape[1:], g.shape[1:], out.shape[1]
    folded = q * c * d + c * d * e + p * c * e
    fold = function.total is _dot_total and not torch.compiler.is_exporting()
    if not fold or folded >= min(p * q * (c + d), c * d * (p + q)) + p * d * e:
        return non_local(theta, phi, g, pairwise, scale, weight), out
    _check(theta, phi, g)
    theta, phi = _prepare(theta, phi, function, scale, weight)
    return theta, _mean_product(phi, g) @ out


def attention_rows(
    theta: Tensor,
    phi: Tensor,
    pairwise: str | Pairwise | Scores = "embedded_gaussian",
    scale: float | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """The normalised weights f(theta_i, phi_j) / C of chosen queries: (N, P, Q).

    Meant for a few queries: the result is a matrix of pairs. Softmax rows sum to 1; those of the
    dot product may be negative. Arguments and errors are those of `non_local`.
    """
    function = find_pairwise(pairwise)
    _check(theta, phi, phi)
    theta, phi = _prepare(theta, phi, function, scale, weight)
    return _normalize(function.scores(theta, phi), function)


def find_pairwise(pairwise: str | Pairwise | Scores) -> Pairwise:
    """The `Pairwise` that a name, a `Pairwise` or a bare function f(theta, phi) stands for."""
    if isinstance(pairwise, Pairwise):
        return pairwise
    if callable(pairwise):
        return Pairwise(pairwise)
    if pairwise not in PAIRWISE:
        raise ValueError(
            f"no pairwise function {pairwise!r}; it is one of {', '.join(PAIRWISE)},"
            " or a function f(theta, phi) -> (N, P, Q)"
        )
    return PAIRWISE[pairwise]


def _check(theta: Tensor, phi: Tensor, g: Tensor) -> None:
    shapes = [tuple(t.shape) for t in (theta, phi, g)]
    if any(len(s) != 3 for s in shapes):
        raise ValueError(f"theta, phi and g are (N, positions, channels); they came as {shapes}")
    (n1, _, c1), (n2, q2, c2), (n3, q3, _) = shapes
    if not (n1 == n2 == n3 and c1 == c2 and q2 == q3):
        raise ValueError(
            "theta (N, P, C), phi (N, Q, C) and g (N, Q, D) must share N, C and Q;"
            f" they came as {shapes}"
        )
    if not theta.dtype == phi.dtype == g.dtype and not autocasts(theta):
        raise ValueError(
            f"theta, phi and g share one type; they came as {theta.dtype}, {phi.dtype}, {g.dtype}"
        )


def _prepare(
    theta: Tensor, phi: Tensor, function: Pairwise, scale: float | None, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Fold the scale or w_f into the embeddings, so that every f is a function of two tensors."""
    if (weight is not None) != function.weighted:
        raise ValueError(
            "concatenation needs weight, the vector w_f of 2C numbers"
            if function.weighted
            else "only concatenation has a weight; leave it out"
        )
    if scale is not None:
        if function.scores is not _dot:
            raise ValueError("scale is a factor on theta . phi, which this pairwise function lacks")
        if theta.shape[1] < phi.shape[1]:  # the smaller of the two
            theta = theta * scale
        else:
            phi = phi * scale
    if weight is None:
        return theta, phi
    channels = theta.shape[-1]
    if weight.shape != (2 * channels,):
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}; embeddings of {channels} channels"
            f" need ({2 * channels},)"
        )
    # w_f . [theta_i, phi_j] = a_i + b_j
    a = theta @ weight[:channels].unsqueeze(-1)  # (N, P, C) -> (N, P, 1)
    b = phi @ weight[channels:].unsqueeze(-1)  # (N, Q, C) -> (N, Q, 1)
    return a, b


def _dot(theta: Tensor, phi: Tensor) -> Tensor:
    return theta @ phi.transpose(1, 2)


def _relu_of_sum(a: Tensor, b: Tensor) -> Tensor:
    return F.relu(a + b.transpose(1, 2))


def _normalize(scores: Tensor, function: Pairwise) -> Tensor:
    if function.normalize == "softmax":
        return scores.softmax(-1)
    return scores / scores.shape[-1]


def _by_rows(theta: Tensor, phi: Tensor, g: Tensor, function: Pairwise, at_once: int) -> Tensor:
    """Any f: the rows of a chunk are formed, used and dropped; the backward forms them again."""

    def rows(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        scores = function.scores(theta, phi)
        want = (theta.shape[0], theta.shape[1], phi.shape[1])
        if tuple(scores.shape) != want:
            raise ValueError(f"the pairwise function gave {tuple(scores.shape)}, not {want}")
        return _normalize(scores, function).to(g.dtype) @ g

    if theta.shape[1] <= at_once:
        return rows(theta, phi, g)
    # Recomputing is what keeps training linear in memory; inference has nothing to keep.
    recompute = torch.is_grad_enabled() and not torch.compiler.is_exporting()
    chunks = []
    for some in theta.split(at_once, dim=1):
        form = functools.partial(checkpoint, rows, use_reentrant=False) if recompute else rows
        chunks.append(form(some, phi, g))
    return torch.cat(chunks, dim=1)


def _rows_at_once(phi: Tensor) -> int:
    """How many rows of a sample over all keys: 320 on a CPU, if not of more than 2 PAIRS_AT_ONCE.

    Products of fewer rows are slower: 0.34 s against 0.30 s for the gradient at 3136 x 3136 pairs
    of width 256, 160 rows against 320.
    """
    if torch.compiler.is_exporting():  # a number that serves every size
        return 320
    pairs, keys = PAIRS_AT_ONCE, phi.shape[1]
    if phi.device.type == "cuda":  # half of the L2 cache, in float32
        pairs = max(pairs, torch.cuda.get_device_properties(phi.device).L2_cache_size // 8)
    return max(1, pairs // keys, 320 if 320 * keys <= 2 * pairs else 1)


def _softmax_total(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    form = softmax_form(theta, phi, g)
    if form == "kept":
        return _by_rows(theta, phi, g, Pairwise(_dot, "softmax"), theta.shape[1])
    if form == "fused" and (theta.device.type != "cpu" or torch.compiler.is_exporting()):
        # the fused kernels need the channels side by side: (N, P, C) -> (N, 1, P, C)
        q, k, v = (t.contiguous().unsqueeze(1) for t in (theta, phi, g))
        return F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)
    if autocasts(theta):
        dtype = torch.get_autocast_dtype(theta.device.type)
        theta, phi, g = (t.to(dtype) for t in (theta, phi, g))
    total = softmax_fused if form == "fused" else softmax_rows
    y: Tensor = total(theta, phi, g, _rows_at_once(phi))
    return y


def softmax_form(theta: Tensor, phi: Tensor, g: Tensor) -> Literal["kept", "fused", "rows"]:
    """How the softmax of these tensors is computed: all weights kept, fused, or rows at a time.

    A graph for export takes the form that serves every size.
    """
    fused = fused_attention_serves(theta, phi, g)
    may_keep = not (fused and theta.device.type == "cuda") and not torch.compiler.is_exporting()
    if may_keep and _weights_are_small(theta, g):
        return "kept"
    return "fused" if fused else "rows"


def _weights_are_small(theta: Tensor, g: Tensor) -> bool:
    """Whether all pairs take no more memory than the embeddings, so that keeping them is linear.

    Kept weights save their recomputation. On a CPU (one thread, widths of 256 and 512) forward
    and backward took 0.85 times fused attention's time at 784 x 196 and 784 x 784 pairs, as long
    at 3136 x 784, and longer above; the forward pass alone was within a tenth up to 784 x 784.
    """
    n, p, c = theta.shape
    q, d = g.shape[1:]
    return n * p * q <= max(PAIRS_AT_ONCE, n * (p + q) * (c + d))


def fused_attention_serves(theta: Tensor, phi: Tensor, g: Tensor) -> bool:
    """Whether torch's fused attention takes these shapes without storing the matrix of pairs.

    Its fallback does store it, silently. The CPU kernel needs g as wide as theta; of the CUDA
    kernels one takes any widths that are multiples of 8, in every type but float64, but above 256
    channels it has little fast memory left for the keys, and rows are the better choice.
    """
    if 0 in (*theta.shape, *phi.shape, *g.shape):
        return False
    if theta.device.type == "cpu":
        return theta.shape[-1] == g.shape[-1]
    if theta.device.type == "cuda":
        widths = theta.shape[-1], g.shape[-1]
        return theta.dtype != torch.float64 and all(w % 8 == 0 and w <= 256 for w in widths)
    return False


def _dot_total(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """(theta phi^T) g / Q, in the order of fewer multiplications.

    The first order is only taken where P Q < C D (P + Q) / (C + D), so neither is quadratic.
    """
    (p, c), (q, d) = theta.shape[1:], g.shape[1:]
    exporting = torch.compiler.is_exporting()  # then one order serves every size
    if not exporting and p * q * (c + d) < c * d * (p + q):
        return (theta @ (phi.mT / q)) @ g
    return theta @ _mean_product(phi, g)


def _mean_product(phi: Tensor, g: Tensor) -> Tensor:
    # phi^T g / Q, divided before it is rounded: in 16 bits the sum might be too large
    return torch.baddbmm(g.new_zeros(()), phi.mT, g, beta=0, alpha=1 / g.shape[1])


def _concatenation_total(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    # a (N, P, 1), b (N, Q, 1)
    y: Tensor = relu_sum(a.squeeze(-1), b.squeeze(-1), g, 1 / b.shape[1])
    return y


# Concatenation whose embeddings have come down to a and b, one channel each.
NARROW_CONCATENATION = Pairwise(_relu_of_sum, "count", _concatenation_total)

PAIRWISE: dict[str, Pairwise] = {
    "gaussian": Pairwise(_dot, "softmax", _softmax_total, embedded=False),
    "embedded_gaussian": Pairwise(_dot, "softmax", _softmax_total),
    "dot_product": Pairwise(_dot, "count", _dot_total),
    "concatenation": Pairwise(_relu_of_sum, "count", _concatenation_total, weighted=True),
}

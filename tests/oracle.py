"""Equation 1 as the paper writes it, pair by pair, in float64: what every fast form is held to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pair_scores(theta: Tensor, phi: Tensor, pairwise: str, w_f: Tensor | None = None) -> Tensor:
    """log f (softmax functions) or f of every pair: (N, P, C), (N, Q, C) -> (N, P, Q)."""
    n, p, c = theta.shape
    q = phi.shape[1]
    left = theta.unsqueeze(2).expand(n, p, q, c)
    right = phi.unsqueeze(1).expand(n, p, q, c)
    if pairwise == "concatenation":
        assert w_f is not None
        return F.relu((torch.cat([left, right], dim=-1) * w_f).sum(-1))  # Eq. 6
    return (left * right).sum(-1)  # Eq. 2, 3, 4


def non_local(
    theta: Tensor, phi: Tensor, g: Tensor, pairwise: str, w_f: Tensor | None = None
) -> Tensor:
    """y_i = 1/C sum_j f(x_i, x_j) g_j with the N x P x Q matrix of pairs."""
    f = pair_scores(theta, phi, pairwise, w_f)
    if pairwise in ("gaussian", "embedded_gaussian"):
        f = f.exp()
        weights = f / f.sum(-1, keepdim=True)
    else:
        weights = f / phi.shape[1]
    return (weights.unsqueeze(-1) * g.unsqueeze(1)).sum(2)


def pool(x: Tensor, cells: tuple[int, ...] | None = None) -> Tensor:
    """The paper's 1x2x2 max pooling (2x2, 2 for fewer axes), by hand; a rest is dropped."""
    if cells is None:
        cells = (1, 2, 2) if x.dim() == 5 else (2,) * (x.dim() - 2)
    for axis, cell in enumerate(cells, start=2):
        cell = min(cell, x.shape[axis])
        rest = x.shape[axis] % cell
        parts = [
            x.index_select(axis, torch.arange(first, x.shape[axis] - rest, cell))
            for first in range(cell)
        ]
        x = torch.stack(parts).amax(0)
    return x


def block(
    x: Tensor,
    weights: dict[str, Tensor],
    pairwise: str,
    mode: str = "spacetime",
    subsample: str = "before",
    scale: float = 1.0,
    group: int | None = None,
    cells: tuple[int, ...] | None = None,
    causal: int | None = None,
) -> Tensor:
    """y of a non-local block before its output convolution, (N, C, *positions) -> same, C' wide.

    One query position at a time: the loops are the definition of the modes.
    """

    def conv(name: str, t: Tensor) -> Tensor:
        if f"{name}.weight" not in weights:
            return t  # gaussian has no theta and phi
        w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return torch.einsum("oc,nc...->no...", w, t) + b.view(1, -1, *[1] * (t.dim() - 2))

    theta = conv("theta", x) * scale
    pooled = (lambda t: pool(t, cells)) if mode != "time" else (lambda t: t)
    if subsample == "before":
        phi, g = conv("phi", pooled(x)), conv("g", pooled(x))
    elif subsample == "after":
        phi, g = pooled(conv("phi", x)), pooled(conv("g", x))
    else:
        phi, g = conv("phi", x), conv("g", x)
    out = torch.zeros(x.shape[0], g.shape[1], *x.shape[2:], dtype=x.dtype)
    columns = []
    for position in torch.cartesian_prod(*[torch.arange(s) for s in x.shape[2:]]).view(
        -1, x.dim() - 2
    ):
        at = (slice(None), slice(None), *position.tolist())
        seen_phi, seen_g = phi, g
        if mode == "space":
            frame = slice(position[0], position[0] + 1)
            seen_phi, seen_g = phi[:, :, frame], g[:, :, frame]
        elif mode == "time":
            _, h, w = position.tolist()
            seen_phi = phi[:, :, :, h : h + 1, w : w + 1]
            seen_g = g[:, :, :, h : h + 1, w : w + 1]
        elif group is not None:
            first = int(position[0]) // group * group
            seen_phi, seen_g = (t[:, :, first : first + group] for t in (phi, g))
        if causal is not None:  # its own frame and those before it, of what the mode lets it see
            last = int(position[0])
            frames = slice(max(0, last + 1 - causal), last + 1)
            seen_phi, seen_g = seen_phi[:, :, frames], seen_g[:, :, frames]
        y = non_local(
            theta[at].unsqueeze(1),
            seen_phi.flatten(2).transpose(1, 2),
            seen_g.flatten(2).transpose(1, 2),
            pairwise,
            weights.get("w_f"),
        )
        columns.append(y.squeeze(1))
    return torch.stack(columns, dim=-1).view_as(out)

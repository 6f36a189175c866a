"""The operation where time has a direction: a query sees its own frame and some before it.

Positions are ordered by frame. Whole clips go through `over_clip`, the newest frame of a stream
through `of_newest`, and both give the same numbers.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .ops import Pairwise, Scores, find_pairwise, non_local


def over_clip(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    frames: int,
    window: int,
    pairwise: str | Pairwise | Scores = "embedded_gaussian",
    scale: float | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Eq. 1 with the sum over j in frames t - W + 1 ... t, where frame t is that of query i.

    C(x) counts, or sums over, these keys alone: those of the first frames are fewer.

    theta (N, T P, C), frame after frame; phi (N, T Q, C), g (N, T Q, D) -> y (N, T P, D).
    frames: T. window: W. The rest as in `non_local`, which is called once for every frame.
    """
    p, q = (t.shape[1] // max(frames, 1) for t in (theta, phi))
    parts = []
    for t in range(frames):
        seen = slice(max(0, t - window + 1) * q, (t + 1) * q)
        queries = theta[:, t * p : (t + 1) * p]
        parts.append(non_local(queries, phi[:, seen], g[:, seen], pairwise, scale, weight))
    return torch.cat(parts, 1) if parts else g.new_zeros(*theta.shape[:2], g.shape[2])


def of_newest(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    there: Tensor,
    pairwise: str | Pairwise | Scores = "embedded_gaussian",
    scale: float | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Eq. 1 for the newest frame alone, where a stream may have seen fewer frames than W.

    theta (N, P, C) of one frame; phi (N, W Q, C), g (N, W Q, D) of W frames -> y (N, P, D).
    there: (N, W Q) bool, which keys there are; where there is none, phi and g are zero.
    """
    function = find_pairwise(pairwise)
    if function.normalize == "count":  # a zero g adds nothing, so only C(x) is another
        y = non_local(theta, phi, g, pairwise, scale, weight)
        return y * (there.shape[1] / there.sum(1)).to(y.dtype)[:, None, None]
    hidden = g.new_zeros(there.shape).masked_fill(~there, -torch.inf).unsqueeze(1)  # (N, 1, W Q)
    scores = function.scores
    masked = dataclasses.replace(function, scores=lambda a, b: scores(a, b) + hidden, total=None)
    return non_local(theta if scale is None else theta * scale, phi, g, masked, None, weight)

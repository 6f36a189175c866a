"""A block's map as a few small arrays from which any row or column is computed in milliseconds.

The scores of query i and key j are q_i . k_j (softmax and dot product) or a_i + b_j
(concatenation), so the embeddings of all queries and keys are enough: O(P + Q), not P x Q.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..attention import Map
from ..errors import UserError
from ..look import Cell
from ..positions import unfold
from ..scene import Scene

Array = NDArray[Any]

PAIRS = 4_000_000  # of a function of the user's, which must be written out: 8 MB
LARGEST = 2.0**15  # of a number in half precision, with room


def pack(scene: Scene) -> dict[str, Any]:
    """A block for the page, as JSON takes it.

    form: how weights come from q and k: "softmax", "dot", "relu" of the sum, or "pairs", where q
        holds the rows themselves. q (P, D) and k (Q, D): little-endian, half precision, of
        concatenation single. totals (P,): the logarithm of each row's sum of exponentials, or else
        its sum of |w|, of the numbers as they are packed. average (Q,): see `Map`. error: the
        largest total variation distance between rows from these arrays and exact ones, of queries
        spread over the clip.

    Raises `UserError` for a function of the user's with too many pairs.
    """
    block, form = scene.block, _form(scene)
    q, k = _written_out(scene) if form == "pairs" else _embeddings(scene, form)
    rows = Map(scene)
    totals, error = _totals(scene, form, q, k, rows)
    return {
        "name": scene.name,
        "pairwise": scene.pairwise,
        "mode": block.mode,
        "group": block.temporal_group,
        "causal": block.causal,
        "awake": block.is_awake(),
        "exact": scene.exact,
        "cells": scene.cells,
        "keys": scene.keys,
        "grid": scene.grid,
        "keyGrid": scene.key_grid,
        "form": form,
        "half": q.dtype == np.float16,
        "q": _base64(q),
        "k": _base64(k),
        "totals": _base64(totals),
        "average": _base64(rows.average.numpy().astype("<f4")),
        "dependence": rows.dependence,
        "error": error,
    }


def _form(scene: Scene) -> str:
    forms = {"dot_product": "dot", "concatenation": "relu", "custom": "pairs"}
    return forms.get(scene.pairwise, "softmax")


def _embeddings(scene: Scene, form: str) -> tuple[Array, Array]:
    """q (P, D) and k (Q, D) such that scores are products, or sums for concatenation."""
    block, x = scene.block, scene.x
    with torch.inference_mode():
        theta, phi, _ = block.embed(x)
        theta = unfold(theta, x.shape, block.mode, block.temporal_group)[0].double().cpu()
        grid = (*x.shape[:2], *block.key_grid(x.shape[2:]))
        phi = unfold(phi, grid, block.mode, block.temporal_group)[0].double().cpu()
    if block.w_f is not None and form == "relu":
        left, right = block.w_f.detach().double().cpu().chunk(2)
        return _single(theta @ left[:, None]), _single(phi @ right[:, None])
    if block.scale is not None:
        theta = theta * block.scale
    if form == "softmax":  # the same for all keys of a row, so the row stays as it is
        phi = phi - phi.mean(0)
    balance = (phi.abs().max() / theta.abs().max().clamp_min(1e-30)).sqrt().clamp(1e-6, 1e6)
    return _half(theta * balance), _half(phi / balance)


def _written_out(scene: Scene) -> tuple[Array, Array]:
    """The signed shares of all pairs (P, Q)."""
    (t, h, w), (u, y, x) = scene.cells, scene.keys
    pairs = t * h * w * u * y * x
    if pairs > PAIRS:
        raise UserError(
            f"the block after {scene.name!r} has a pairwise function of your own, which a page"
            f" cannot compute, and {pairs:,} pairs are too many to write out (at most {PAIRS:,});"
            " name other blocks"
        )
    parts = [rows.flatten(1) for _, rows in scene.every_row()]
    rows = torch.cat(parts)
    return _half(rows / rows.abs().sum(1, keepdim=True).clamp_min(1e-30)), np.zeros(0, "<f2")


def _totals(scene: Scene, form: str, q: Array, k: Array, rows: Map) -> tuple[Array, float]:
    """Of each row, and how far rows from the packed numbers are from those of the block."""
    wanted = dict(zip(rows.cells, rows.shares, strict=True))
    totals, error = [], 0.0
    for cells, scores in _scores(scene, form, q, k):
        for cell, row in zip(cells, scores, strict=True):
            seen = row.view(scene.keys)[scene.seen(cell)].flatten()
            if form == "softmax":
                totals.append(float(seen.logsumexp(0)))
                weights = (seen - totals[-1]).exp()
            else:
                weights = seen.clamp(min=0) if form == "relu" else seen
                totals.append(float(weights.abs().sum()))
                weights = weights / (totals[-1] or 1)
            if cell in wanted:
                error = max(error, float((weights - wanted[cell]).abs().sum() / 2))
    return np.array(totals, "<f4"), error


def _scores(scene: Scene, form: str, q: Array, k: Array) -> Iterator[tuple[list[Cell], Tensor]]:
    """The scores of some queries with all keys (n, Q), some at a time."""
    queries, keys = (torch.from_numpy(a.astype(np.float32)) for a in (q, k))
    begun = 0
    for cells in scene.portions():
        some = queries[begun : begun + len(cells)]
        begun += len(cells)
        if form == "pairs":
            scores = some
        elif form == "relu":
            scores = some + keys.mT
        else:
            scores = some @ keys.mT
        yield cells, scores


def _half(values: Tensor) -> Array:
    if not bool(torch.isfinite(values).all()):
        raise UserError(
            "the block's embeddings are not numbers (NaN or infinity): the network is damaged or"
            " its training diverged, so there is nothing to look at; use another checkpoint"
        )
    return np.asarray(values.clamp(-LARGEST, LARGEST).numpy().astype("<f2"))


def _single(values: Tensor) -> Array:
    return np.asarray(values.numpy().astype("<f4"))


def _base64(values: Array) -> str:
    return b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")

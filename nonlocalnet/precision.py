"""Average precision: how well each class is ranked, where a video may have several."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def average_precisions(
    scores: ArrayLike, targets: ArrayLike, *, unlabelled: bool = False
) -> NDArray[np.float64]:
    """(K,) average precision of each class; NaN for a class that no video has.

    AP = 1/P Σ_i [video i has the class] (videos down to i that have it) / i, the videos in falling
    order of score; equal scores keep the order given.

    scores: (n, K) numbers. targets: (n, K), 1 where a video has the class.
    unlabelled: whether videos without any class are ranked too (PySlowFast) or left out, as the
        official evaluation of Charades puts them behind all others.

    Raises `ValueError` for other shapes, other targets than 0 and 1, or scores that are NaN.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if values.ndim != 2 or values.shape != truth.shape:
        raise ValueError(f"expected scores and targets (n, K), got {values.shape}, {truth.shape}")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("expected targets of 0 and 1")
    if np.isnan(values).any():
        raise ValueError("expected numbers as scores, got NaN")
    if not unlabelled:
        some = truth.any(1)
        values, truth = values[some], truth[some]
    order = np.argsort(-values, axis=0, kind="stable")
    hits = np.take_along_axis(truth, order, axis=0)
    found = hits.cumsum(0)  # down to here
    precision = found / np.arange(1, len(hits) + 1)[:, None]
    positives = hits.sum(0)
    return np.divide(
        (precision * hits).sum(0),
        positives,
        out=np.full(values.shape[1], math.nan),
        where=positives > 0,
    )


def mean_average_precision(
    scores: ArrayLike, targets: ArrayLike, *, unlabelled: bool = False
) -> float:
    """The mean of `average_precisions` over the classes that some video has; NaN without any.

    Charades' official figure is over all 157 classes, each of which its validation set has.
    """
    found = average_precisions(scores, targets, unlabelled=unlabelled)
    return float(np.nanmean(found)) if not np.isnan(found).all() else math.nan

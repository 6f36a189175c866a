"""Sums over neighbours weighed by the likeness of their patches: what NL-means comes down to.

    D_i = sum_j f_ij (x_j - x_i)    C_i = sum_j f_ij    M_i = max_j f_ij    over all j but i

    f_ij = exp(-max(scale d^2_ij - shift, 0)),    d^2_ij = sum_k g_k (x_(i+k) - x_(j+k))^2

with j in a window around i, k over a patch and all channels, and g of sum one in each of them.
D instead of sum_j f_ij x_j: what is rounded is then as small as the differences between
neighbours. No form keeps a table of weights. The sums of a patch are those of its squares, never
the difference of longer sums, so that the error of d^2 is relative to itself, whatever lies beside
it.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from . import patch_sum_torch

COMPILED = {"cpu": "patch_sum_numba", "cuda": "patch_sum_triton"}


class Search(NamedTuple):
    """Where neighbours are sought and how patches are compared.

    frames, pixels: to how far before, after and to each side. times (pt,), space (p,): a patch's
    weights g in time, and both down and across; odd numbers of them, their products of sum one.
    scale, shift: numbers, or tensors of one number if gradients are wanted.
    """

    frames: int
    pixels: int
    times: tuple[float, ...]
    space: tuple[float, ...]
    scale: float | Tensor
    shift: float | Tensor


class Sums(NamedTuple):
    """D (N, C, T, H, W), C and M (N, 1, T, H, W); M only where it was asked for."""

    D: Tensor
    C: Tensor
    M: Tensor | None


@functools.cache
def patch_sum_form(device: str) -> ModuleType:
    """The module that computes on a kind of device: compiled where its compiler is installed."""
    try:
        return importlib.import_module(f".{COMPILED.get(device, 'patch_sum_torch')}", __package__)
    except (ImportError, OSError, RuntimeError):  # not there, or broken
        return patch_sum_torch


def patch_sums(x: Tensor, search: Search, first: int, last: int, largest: bool = False) -> Sums:
    """D and C (and M, if `largest`) of frames `first` to `last` of x, whose other frames are seen.

    x: (N, C, T + pt - 1, H + p - 1, W + p - 1), float32 or float64, finite; with what patches at
    the borders see. Where a gradient is wanted, it is computed by plain torch.
    """
    given = (t for t in (x, search.scale, search.shift) if isinstance(t, Tensor))
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        sums = patch_sum_torch.sums
    else:
        sums = patch_sum_form(x.device.type).sums
    return Sums(*sums(x, *search, first, last, largest))

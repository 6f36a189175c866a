"""The sum of ReLU(a_i + b_j) g_j over j by sorting: what Eq. 6 (concatenation) comes down to.

    R(a, b, g)_i = sum_j ReLU(a_i + b_j) g_j          H(a, b, g)_i = sum of g_j where a_i + b_j > 0

and either times a factor, 1/Q for the mean, which costs nothing where the sums are formed.
w_f . [theta_i, phi_j] = a_i + b_j, so all pairs share two sorted lists. With t = -b ascending,
k_i the number of t below a_i (strictly: ReLU'(0) = 0, as in torch) and G_k the sum of the first k
values, H_i = G_(k_i), and R is summed in Abel's form, S_(k+1) = S_k + (t_(k+1) - t_k) G_k and
R_i = S_(k_i) + (a_i - t_(k_i)) G_(k_i): its increments never cancel, as a_i G - sum t g does.
O((P + Q) log(P + Q) + (P + Q) D) in time.

Both, and the gradient of R, are operators of torch. The derivatives of R are R with a and b
exchanged and H, and that of H is H exchanged: every order of gradient is free of the matrix.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

from torch import Tensor

from . import relu_sum_torch
from .operator import operator
from .precision import all_finite
from .relu_sum_torch import paired_backward, paired_sum

COMPILED = {"cpu": "relu_sum_numba", "cuda": "relu_sum_triton"}


@functools.cache
def relu_sum_form(device: str) -> ModuleType:
    """The module that computes on a kind of device: compiled where its compiler is installed.

    It has `sorted_sum` (R or H) and `sorted_backward` (the gradient of R), each with the factor.
    """
    try:
        return importlib.import_module(f".{COMPILED.get(device, 'relu_sum_torch')}", __package__)
    except (ImportError, OSError, RuntimeError):  # not there, or broken
        return relu_sum_torch


def _sum_fake(a: Tensor, b: Tensor, g: Tensor, factor: float) -> Tensor:
    return g.new_empty(a.shape[0], a.shape[1], g.shape[2])


def _gradient_fake(
    a: Tensor, b: Tensor, g: Tensor, dy: Tensor, factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), b.new_empty(b.shape), g.new_empty(g.shape)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:-1])
    ctx.factor = inputs[-1]


def _gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    a, b, g = ctx.saved_tensors
    if not any(ctx.needs_input_grad[:2]):
        return None, None, relu_sum(b, a, dy, ctx.factor), None
    return (*relu_sum_backward(a, b, g, dy, ctx.factor), None)


def _step_gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    a, b, _ = ctx.saved_tensors
    return None, None, step_sum(b, a, dy, ctx.factor), None  # a and b only move steps


def _second_gradient(ctx: Any, va: Tensor, vb: Tensor, vg: Tensor) -> tuple[Tensor | None, ...]:
    """Of va . da + vb . db + vg . dg, which is, times the factor,

    sum_i va_i dy_i . H(a, b, g)_i  +  sum_j vb_j g_j . H(b, a, dy)_j  +  sum_j vg_j . R(b, a, dy)_j
    """
    (a, b, g, dy), c = ctx.saved_tensors, ctx.factor
    da = (dy * step_sum(a, b, vg, c)).sum(-1)
    db = (vg * step_sum(b, a, dy, c)).sum(-1)
    va, vb = va.unsqueeze(-1), vb.unsqueeze(-1)
    ddy = va * step_sum(a, b, g, c) + step_sum(a, b, vb * g, c) + relu_sum(a, b, vg, c)
    dg = step_sum(b, a, va * dy, c) + vb * step_sum(b, a, dy, c)
    return da.to(a.dtype), db.to(b.dtype), dg.to(g.dtype), ddy.to(dy.dtype), None


SUM = "(Tensor a, Tensor b, Tensor g, float factor) -> Tensor"


@operator(SUM, _sum_fake, _gradient, _keep_inputs)
def relu_sum(a: Tensor, b: Tensor, g: Tensor, factor: float) -> Tensor:
    """factor R for a (N, P), b (N, Q), g (N, Q, D): (N, P, D) in g's dtype. No size may be zero."""
    return _sum(a, b, g, True, factor)


@operator(SUM, _sum_fake, _step_gradient, _keep_inputs)
def step_sum(a: Tensor, b: Tensor, g: Tensor, factor: float) -> Tensor:
    """factor H for a (N, P), b (N, Q), g (N, Q, D): (N, P, D) in g's dtype."""
    return _sum(a, b, g, False, factor)


@operator(
    "(Tensor a, Tensor b, Tensor g, Tensor dy, float factor) -> (Tensor, Tensor, Tensor)",
    _gradient_fake,
    _second_gradient,
    _keep_inputs,
)
def relu_sum_backward(
    a: Tensor, b: Tensor, g: Tensor, dy: Tensor, factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """factor times da_i = dy_i . H(a, b, g)_i, db_j = g_j . H(b, a, dy)_j, dg_j = R(b, a, dy)_j."""
    by_sorting = relu_sum_form(g.device.type).sorted_backward
    da, db, dg = (by_sorting if _finite(a, b, g, dy) else paired_backward)(a, b, g, dy, factor)
    return da.to(a.dtype), db.to(b.dtype), dg.to(g.dtype)


def _sum(a: Tensor, b: Tensor, g: Tensor, relu: bool, factor: float) -> Tensor:
    total = relu_sum_form(g.device.type).sorted_sum if _finite(a, b, g) else paired_sum
    found: Tensor = total(a, b, g, relu, factor)
    return found


def _finite(*tensors: Tensor) -> bool:
    """Whether sorting serves: inf and nan go through the matrix product, which defines them.

    Asked on a CPU only; elsewhere the answer would hold up the device.
    """
    return tensors[0].device.type != "cpu" or all_finite(*tensors)

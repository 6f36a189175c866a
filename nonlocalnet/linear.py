"""The block's 1x1x1 convolutions as matrix products: joined with what stands before and after them.

Nothing here changes a result by more than rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kernels.precision import autocasts
from .positions import to_grid, to_tokens

Layer = Callable[[Tensor], Tensor]


class FrozenBatchNorm(nn.Module):
    """Batch norm over the last axis whose statistics, gain and bias are constants (buffers).

    y = weight (x - running_mean) / sqrt(running_var + eps) + bias. Caffe2's "affine" long-clip
    models are this with mean 0 and variance 1 - eps. It loads the state of an nn.BatchNorm.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight: Tensor
        self.bias: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        gain, shift = self.affine()
        return (x * gain + shift).to(x.dtype)

    def affine(self) -> tuple[Tensor, Tensor]:
        """The gain and the shift that it is: y = gain x + shift."""
        return _affine(self.weight, self.bias, self.running_mean, self.running_var, self.eps)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        state.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state, prefix, *args)


def with_norm(
    out: nn.Linear, norm: nn.Module | None
) -> tuple[Tensor, Tensor | None, nn.Module | None]:
    """The weight and bias of a layer and the norm after it; one of constants becomes part of them.

    That is a frozen norm, and a batch norm in eval mode.
    """
    weight, bias = out.weight, out.bias
    if type(norm) is FrozenBatchNorm and not _is_watched(norm):
        gain, shift = norm.affine()
    elif (
        _is_batch_norm(norm)
        and not norm.training
        and norm.affine
        and norm.running_mean is not None
        and norm.running_var is not None
    ):
        gain, shift = _affine(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
    else:
        return weight, bias, norm
    if gain.dtype != weight.dtype:
        gain, shift = gain.to(weight.dtype), shift.to(weight.dtype)
    shift = shift if bias is None else torch.addcmul(shift, bias, gain)
    return weight * gain.unsqueeze(1), shift, None


def _affine(
    weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    gain = weight * torch.rsqrt(var + eps)
    return gain, torch.addcmul(bias, mean, gain, value=-1)


def is_plain(layer: nn.Module | None) -> bool:
    """Whether nobody replaced, wrapped or watches a layer, so that its weights tell all it does."""
    return type(layer) is nn.Linear and not _is_watched(layer)


def _is_batch_norm(norm: nn.Module | None) -> TypeGuard[nn.BatchNorm1d | nn.SyncBatchNorm]:
    own = type(norm) in (nn.BatchNorm1d, nn.SyncBatchNorm)  # no subclass of the user's
    return own and norm is not None and not _is_watched(norm)


def _is_watched(module: nn.Module) -> bool:
    return bool(
        "forward" in vars(module)
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def followed(layer: nn.Module | None, w: Tensor) -> Layer:
    """A linear layer and then the product with w (1, inner), as one layer of one channel."""
    assert isinstance(layer, nn.Linear)
    bias = None if layer.bias is None else F.linear(layer.bias, w)
    return functools.partial(F.linear, weight=w @ layer.weight, bias=bias)


def is_channels_first(x: Tensor) -> bool:
    """Whether features (N, C, *positions) lie in torch's default order, channel by channel."""
    return x.is_contiguous() and not to_tokens(x).is_contiguous()


def product(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """left right + bias for left (N, P, D) and right (D, C) or (N, D, C): (N, P, C)."""
    if right.dim() == 2:
        return F.linear(left, right.mT, bias)
    return left @ right if bias is None else torch.baddbmm(bias, left, right)


def product_channels_first(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """The same as (N, C, P), which is how channels-first features go on without a slow copy."""
    columns = right.mT.expand(left.shape[0], -1, -1)
    if bias is None:
        return columns @ left.mT
    return torch.baddbmm(bias.unsqueeze(1).to(columns.dtype), columns, left.mT)


def add_product(x: Tensor, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """x + left right + bias, in x's memory layout: the product is added onto x + bias.

    left (N, P, D); right (D, C), or (N, D, C); x (N, C, *positions).
    """
    grid = x.shape[2:]
    if autocasts(x) or not x.dtype == left.dtype == right.dtype:
        return x + to_grid(product(left, right, bias), grid)
    if is_channels_first(x):
        columns = x.flatten(2)
        start = columns.clone() if bias is None else columns + bias.unsqueeze(1)
        return start.baddbmm_(right.mT.expand(x.shape[0], -1, -1), left.mT).unflatten(2, grid)
    tokens = to_tokens(x)
    if right.dim() == 2:
        tokens, left = tokens.flatten(0, 1), left.flatten(0, 1)
    start = tokens.clone() if bias is None else tokens + bias
    start = start.addmm_(left, right) if right.dim() == 2 else start.baddbmm_(left, right)
    return to_grid(start.view(x.shape[0], grid.numel(), x.shape[1]), grid)


def normed(z: Tensor, norm: nn.Module | None) -> Tensor:
    """norm(z) over the channels of (N, P, C)."""
    return z if norm is None else norm(z.flatten(0, 1)).unflatten(0, z.shape[:2])


def add_normed(
    x: Tensor, norm: nn.Module | None, left: Tensor, right: Tensor, bias: Tensor | None
) -> Tensor:
    """x + norm(left right + bias), with x's memory layout throughout: a norm is slow in another.

    The sum is formed in the norm's result, which its gradient does not need.
    """
    if norm is None:
        return add_product(x, left, right, bias)
    grid = x.shape[2:]
    if not _is_batch_norm(norm):
        return x + to_grid(normed(product(left, right, bias), norm), grid)
    if is_channels_first(x):
        z = norm(product_channels_first(left, right, bias))  # (N, C, P)
        return _add_into(z, x.flatten(2)).unflatten(2, grid)
    z = norm(product(left, right, bias).flatten(0, 1))  # (N P, C)
    z = _add_into(z, to_tokens(x).flatten(0, 1))
    return to_grid(z.unflatten(0, (x.shape[0], grid.numel())), grid)


def _add_into(z: Tensor, x: Tensor) -> Tensor:
    return z.add_(x) if z.dtype == torch.promote_types(z.dtype, x.dtype) else z + x

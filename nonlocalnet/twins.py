"""The twin with a time axis of each 2-D layer: what `inflate` puts in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from .layers import Conv3d, MaxPool3d


def is_flat(module: nn.Module) -> bool:
    """A layer for (N, C, H, W) alone, which `inflate` has to replace or refuse."""
    unknown = type(module).__name__.endswith("2d") and not any(module.children())
    return unknown or isinstance(module, tuple(_TWINS))


def refuse_shared_weights(layers: Mapping[str, nn.Module]) -> None:
    """Raises ValueError if two of the layers, by name, hold one parameter."""
    owners: dict[nn.Parameter, str] = {}
    for name, module in layers.items():
        for parameter in module.parameters(recurse=False):
            first = owners.setdefault(parameter, name)
            if layers[first] is not module:
                raise ValueError(f"{first!r} and {name!r} share a weight, which inflating unties")


def twin_of(name: str, module: nn.Module, t: int) -> nn.Module:
    """The layer with a time axis: a convolution of t frames, another layer of one.

    Raises ValueError for a layer without a twin; `name` is for the message.
    """
    kind = type(module)  # exactly: a subclass may compute something else
    try:
        if kind in (nn.Conv2d, nn.Conv3d, Conv3d):
            twin = _inflate_conv(module, t)  # type: ignore[arg-type]
        elif kind in _TWINS:
            twin = _TWINS[kind](module)
        else:
            raise ValueError(f"a {kind.__name__} has no 3-D twin here")
    except ValueError as error:
        raise ValueError(f"{name!r} cannot be inflated: {error}") from None
    # hooks (a shift) and children (a block) stay with the layer
    for hooks in _HOOKS:
        getattr(twin, hooks).update(getattr(module, hooks))
    for child, value in module.named_children():
        twin.add_module(child, value)
    for own, parameter in module.named_parameters(recurse=False):
        twin.get_parameter(own).requires_grad_(parameter.requires_grad)
    twin.training = module.training
    return twin


_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def _inflate_conv(conv: nn.Conv2d | nn.Conv3d, t: int) -> nn.Module:
    if isinstance(conv.padding, str):
        raise ValueError(f"a convolution padded {conv.padding!r} has no time padding: use numbers")
    st, (h, w), (sh, sw), (ph, pw), (dh, dw) = (
        (conv.stride[0] if isinstance(conv, nn.Conv3d) else 1),
        *((v[-2], v[-1]) for v in (conv.kernel_size, conv.stride, conv.padding, conv.dilation)),
    )
    weight = conv.weight if conv.weight.dim() == 5 else conv.weight.unsqueeze(2)
    twin = Conv3d(
        conv.in_channels,
        conv.out_channels,
        (t, h, w),
        (st, sh, sw),
        (t // 2, ph, pw),
        (1, dh, dw),
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
        device=weight.device,
        dtype=weight.dtype,
    )
    twin.to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        twin.weight.copy_(weight.expand_as(twin.weight) / t)
        if conv.bias is not None and twin.bias is not None:
            twin.bias.copy_(conv.bias)
    return twin


def _norm(module: Any) -> nn.Module:
    like = module.weight if module.weight is not None else module.running_mean
    twin = nn.BatchNorm3d(
        module.num_features,
        module.eps,
        module.momentum,
        module.affine,
        module.track_running_stats,
        device=None if like is None else like.device,
        dtype=None if like is None else like.dtype,
    )
    twin.load_state_dict(module.state_dict())
    return twin


def _space(value: int | tuple[int, int], time: int) -> tuple[int, int, int]:
    h, w = (value, value) if isinstance(value, int) else value
    return (time, h, w)


def _max_pool(module: Any) -> nn.Module:
    if module.dilation not in (1, (1, 1)) or module.return_indices or module.ceil_mode:
        raise ValueError("a max pooling with dilation, indices or ceil mode has no twin here")
    stride = _space(module.stride, 1)
    return MaxPool3d(_space(module.kernel_size, 1), stride, _space(module.padding, 0))


def _avg_pool(module: Any) -> nn.Module:
    return nn.AvgPool3d(
        _space(module.kernel_size, 1),
        _space(module.stride, 1),
        _space(module.padding, 0),
        module.ceil_mode,
        module.count_include_pad,
        module.divisor_override,
    )


def _adaptive_pool(module: Any) -> nn.Module:
    # a global pooling is one over time too: the mean over frames that ends every network here
    size = module.output_size
    h, w = (size, size) if isinstance(size, int) or size is None else size
    return nn.AdaptiveAvgPool3d((1 if (h, w) == (1, 1) else None, h, w))


_TWINS: dict[type, Callable[[Any], nn.Module]] = {
    nn.Conv2d: lambda conv: _inflate_conv(conv, 1),
    nn.BatchNorm2d: _norm,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.Dropout2d: lambda layer: nn.Dropout3d(layer.p, layer.inplace),
}

"""A video network is an image network plus three edits: `inflate`, `shift`, `insert`.

Each edit addresses submodules by dotted name ("layer3.4"), works on any nn.Module in place and
returns it, and renames no parameter: a plain checkpoint still loads, with only the keys of the
inserted blocks missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from .block import BlockOptions, NonLocalBlock
from .resnet import Conv3d, MaxPool3d
from .shift import TemporalShift


def insert(
    model: nn.Module,
    after: str | Iterable[str],
    *,
    channels: int | None = None,
    example: Tensor | None = None,
    **options: Unpack[BlockOptions],
) -> nn.Module:
    """Put a `NonLocalBlock` behind each named module, as its child `non_local`.

    The network computes exactly what it did before (the block starts as the identity) and its
    other keys keep their names, so load a plain checkpoint with `strict=False`, before or after.

    Args:
        model: any network whose named modules return features (N, C, *positions).
        after: dotted names, such as ("layer2.1", "layer3.4").
        channels: C of the features. None: what the last convolution, norm or linear layer
            inside the module gives out.
        example: an input of the network; C is then observed in one forward pass. For modules
            where the last layer does not tell.
        options: those of `NonLocalBlock`.

    Raises:
        ValueError: a name the network lacks (with the names it has), a module that has a block,
            a container that is never called, a width that cannot be told.
    """
    names = _names(after)
    modules = [(name, find(model, name)) for name in names]
    for name, module in modules:
        _check_insertable(name, module)
    widths = _observe_channels(model, dict(modules), example) if example is not None else {}
    for name, module in modules:
        width = channels or widths.get(name) or _channels_of(name, module)
        block = NonLocalBlock(width, **options)
        like = next(module.parameters(), None)
        if like is not None and like.is_floating_point():
            block.to(like.device, like.dtype)
        block.train(module.training)
        module.add_module("non_local", block)
        if type(module) is not nn.Sequential:  # which runs its new last child by itself
            module.register_forward_hook(_apply_non_local)
    return model


def shift(
    model: nn.Module, at: str | Iterable[str], *, fraction: int = 8, frames: int | None = None
) -> nn.Module:
    """Shift the input of each named module along time (TSM), by a child `temporal_shift`.

    Name the first convolution of residual branches ("layer1.0.conv1", ...) for TSM's residual
    placement: the identity stays unshifted. `fraction` and `frames` are those of `TemporalShift`.

    Raises:
        ValueError: a name the network lacks, a module that is shifted already.
    """
    modules = [(name, find(model, name)) for name in _names(at)]
    for name, module in modules:
        if hasattr(module, "temporal_shift"):
            raise ValueError(f"{name!r} is shifted already")
    for _, module in modules:
        module.add_module("temporal_shift", TemporalShift(fraction, frames))
        module.register_forward_pre_hook(_apply_shift)
    return model


def inflate(model: nn.Module, at: Mapping[str, int] | None = None) -> nn.Module:
    """Give a 2-D network a time axis: (N, C, H, W) -> (N, C, T, H, W) throughout.

    Every 2-D layer becomes its 3-D twin with a time kernel of 1, and the convolutions named in
    `at` one of t frames: W3d[:, :, i] = W2d / t for each i (paper section 4.1), padded by t // 2,
    so that on a still clip it gives what it gave on the image. Norms are copied. A network that
    is 3-D already only has the named kernels inflated.

    Args:
        model: the network, edited in place.
        at: {"conv1": 5, "layer1.0.conv1": 3, ...}; odd t.

    Raises:
        ValueError: a name the network lacks or that is no convolution, an even t, a kernel that
            has a time extent already, a 2-D layer without a 3-D twin here.
    """
    at = dict(at or {})
    for name, t in at.items():
        layer = find(model, name)
        if not isinstance(layer, nn.Conv2d | nn.Conv3d):
            raise ValueError(f"{name!r} is a {type(layer).__name__}, and only convolutions inflate")
        if t < 1 or t % 2 == 0:
            raise ValueError(f"a time kernel is odd and at least 1; {name!r} was given {t}")
        if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] != 1:
            raise ValueError(f"{name!r} has a time kernel of {layer.kernel_size[0]} already")
    twins = {
        name: _twin(name, module, at.get(name, 1))
        for name, module in model.named_modules()
        if name and (name in at or type(module) in _TWINS or _is_flat(module))
    }
    for name, twin in twins.items():
        _replace(model, name, twin)
    return model


def describe(model: nn.Module) -> str:
    """The network's edits in words: each block, shift and inflated kernel, and what they hold."""
    lines = []
    for name, module in model.named_modules():
        if isinstance(module, NonLocalBlock):
            state = "" if module.is_awake() else " (still the identity)"
            where = name.removesuffix(".non_local")
            size = sum(p.numel() for p in module.parameters())
            lines.append(
                f"non-local block after {where}: {module.extra_repr()}; {size:,} parameters{state}"
            )
        elif isinstance(module, TemporalShift):
            lines.append(
                f"shift before {name.removesuffix('.temporal_shift')}: {module.extra_repr()}"
            )
        elif isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
            kernel = "x".join(map(str, module.kernel_size))
            lines.append(f"inflated {name}: {kernel}")
    total = sum(p.numel() for p in model.parameters())
    return "\n".join([f"{type(model).__name__}: {total:,} parameters", *lines])


def blocks(model: nn.Module) -> dict[str, NonLocalBlock]:
    """The non-local blocks of a network by the name of the module they follow, in order."""
    return {
        name.removesuffix(".non_local"): module
        for name, module in model.named_modules()
        if isinstance(module, NonLocalBlock)
    }


def find(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name; a wrong one is told with the names that exist."""
    module, path = model, ""
    for part in name.split("."):
        children = dict(module.named_children())
        if part not in children:
            where = f"{type(model).__name__}{'.' + path if path else ''}"
            has = ", ".join(children) if children else "no submodules"
            raise ValueError(f"no module {name!r} in {type(model).__name__}; {where} has {has}")
        module, path = children[part], f"{path}.{part}".strip(".")
    return module


def _names(names: str | Iterable[str]) -> list[str]:
    found = [names] if isinstance(names, str) else list(names)
    twice = sorted({n for n in found if found.count(n) > 1})
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}")
    return found


# Hooks are module-level functions, so that an edited network can be copied and pickled.


def _apply_non_local(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return module.non_local(output)  # type: ignore[operator]


def _apply_shift(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (module.temporal_shift(args[0]), *args[1:])  # type: ignore[operator]


def _check_insertable(name: str, module: nn.Module) -> None:
    if hasattr(module, "non_local"):
        raise ValueError(f"{name!r} has a non-local block already")
    containers = (nn.Sequential, nn.ModuleDict, nn.ModuleList)
    if isinstance(module, containers) and type(module) is not nn.Sequential:
        inside = [f"{name}.{child}" for child, _ in module.named_children()]
        last = f"; name a module inside it, such as {inside[-1]!r}" if inside else ""
        raise ValueError(
            f"{name!r} is a {type(module).__name__} that goes through its own children{last}"
        )


def _channels_of(name: str, module: nn.Module) -> int:
    for layer in reversed(list(module.modules())):
        for attribute in ("out_channels", "num_features", "out_features"):
            width = getattr(layer, attribute, None)
            if isinstance(width, int):
                return width
        if isinstance(layer, nn.LayerNorm):
            return layer.normalized_shape[-1]
    raise ValueError(f"cannot tell how many channels {name!r} gives out: pass channels or example")


def _observe_channels(
    model: nn.Module, modules: Mapping[str, nn.Module], example: Tensor
) -> dict[str, int]:
    seen: dict[str, int] = {}

    def observer(name: str) -> Callable[..., None]:
        def observe(module: nn.Module, args: Any, output: Tensor) -> None:
            seen[name] = output.shape[1]

        return observe

    handles = [m.register_forward_hook(observer(name)) for name, m in modules.items()]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return seen


def _replace(model: nn.Module, name: str, twin: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, child, twin)


def _is_flat(module: nn.Module) -> bool:
    """A layer for (N, C, H, W) alone, which `inflate` has to replace or refuse."""
    return type(module).__name__.endswith("2d") and not any(module.children())


def _twin(name: str, module: nn.Module, t: int) -> nn.Module:
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        twin: nn.Module = _inflate_conv(module, t)
    elif type(module) in _TWINS:
        twin = _TWINS[type(module)](module)
    else:
        raise ValueError(f"{name!r} is a {type(module).__name__}, which has no 3-D twin here")
    # hooks (a shift) and children (a block) stay with the layer
    twin._forward_hooks.update(module._forward_hooks)
    twin._forward_pre_hooks.update(module._forward_pre_hooks)
    for child, value in module.named_children():
        twin.add_module(child, value)
    return twin.train(module.training)


def _inflate_conv(conv: nn.Conv2d | nn.Conv3d, t: int) -> Conv3d:
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
    twin.weight.requires_grad_(conv.weight.requires_grad)
    return twin


def _norm(module: Any) -> nn.Module:
    twin = nn.BatchNorm3d(
        module.num_features,
        module.eps,
        module.momentum,
        module.affine,
        module.track_running_stats,
        device=None if module.weight is None else module.weight.device,
        dtype=None if module.weight is None else module.weight.dtype,
    )
    twin.load_state_dict(module.state_dict())
    return twin


def _space(value: int | tuple[int, int], time: int) -> tuple[int, int, int]:
    h, w = (value, value) if isinstance(value, int) else value
    return (time, h, w)


def _max_pool(module: Any) -> nn.Module:
    if module.dilation not in (1, (1, 1)) or module.return_indices or module.ceil_mode:
        raise ValueError("only plain max pooling (no dilation, indices or ceil mode) inflates")
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

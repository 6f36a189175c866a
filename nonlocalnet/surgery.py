"""A video network is an image network plus three edits: `inflate`, `shift`, `insert`.

Each edit addresses submodules by dotted name ("layer3.4"), works on any nn.Module in place and
returns it, and renames no parameter: a plain checkpoint still loads, with only the keys of the
inserted blocks missing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from .block import NonLocalBlock
from .block_options import BlockOptions
from .modes import evaluating
from .placement import PLACEMENTS, Placement, places, told_shifts
from .shift import Direction, TemporalShift
from .twins import is_flat, refuse_shared_weights, twin_of


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
    modules = _places(model, after)
    for name, module in modules:
        _check_insertable(name, module)
    widths = _observe_channels(model, dict(modules), example) if example is not None else {}
    made = []  # all of them before the first is put in: an error leaves the network as it was
    for name, module in modules:
        width = channels or widths.get(name) or _channels_of(name, module)
        block = NonLocalBlock(width, **options)
        like = next(module.parameters(), next(model.parameters(), None))
        if like is not None and like.is_floating_point():
            block.to(like.device, like.dtype)
        made.append((module, block.train(module.training)))
    for module, block in made:
        module.add_module("non_local", block)
        if not _runs_its_children(module):
            module.register_forward_hook(_apply_non_local)
    return model


def shift(
    model: nn.Module,
    at: Placement | str | Iterable[str] = "residual",
    *,
    fraction: int = 8,
    frames: int | None = None,
    direction: Direction = "both",
) -> nn.Module:
    """Shift the input of modules along time (TSM), each by a child `temporal_shift`.

    Args:
        model: the network, edited in place.
        at: "residual", before the first convolution of residual branches, the identities
            unshifted; "block", before whole residual blocks (in-place TSM); both by TSM's rules,
            in networks of known kinds (`placement.places`). Or dotted names, in any network.
        fraction: as in `TemporalShift`.
        frames: T, for a 2-D network whose batch holds frames, (N T, C, H, W).
        direction: "both", or "past" for networks that run frame by frame.

    Raises:
        ValueError: no rule for this network, a name it lacks, a module that is shifted already.
    """
    modules = _places(model, places(model, at) if at in PLACEMENTS else at)
    for name, module in modules:
        if hasattr(module, "temporal_shift"):
            raise ValueError(f"{name!r} is shifted already")
    for _, module in modules:
        module.add_module("temporal_shift", TemporalShift(fraction, frames, direction))
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
            has a time extent already, a 2-D layer without a 3-D twin here, weights shared
            between layers.
    """
    times: dict[nn.Module, int] = {}
    for name, t in (at or {}).items():
        layer = find(model, name)
        if not isinstance(layer, nn.Conv2d | nn.Conv3d):
            raise ValueError(f"{name!r} is a {type(layer).__name__}, and only convolutions inflate")
        if t < 1 or t % 2 == 0:
            raise ValueError(f"a time kernel is odd and at least 1; {name!r} was given {t}")
        if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] != 1:
            raise ValueError(f"{name!r} has a time kernel of {layer.kernel_size[0]} already")
        times[layer] = t
    if is_flat(model):
        raise ValueError("inflate replaces layers inside a network: wrap this one in nn.Sequential")
    # a module in several places has as many names, and gets one twin
    places = [
        (name, module)
        for name, module in model.named_modules(remove_duplicate=False)
        if module in times or is_flat(module)
    ]
    refuse_shared_weights(dict(places))
    twins: dict[nn.Module, nn.Module] = {}
    for name, module in places:
        if module not in twins:
            twins[module] = twin_of(name, module, times.get(module, 1))
    for name, module in places:
        _replace(model, name, twins[module])
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
        elif isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
            kernel = "x".join(map(str, module.kernel_size))
            lines.append(f"inflated {name}: {kernel}")
    total = sum(p.numel() for p in model.parameters())
    first = f"{type(model).__name__}: {total:,} parameters"
    return "\n".join([first, *told_shifts(model), *lines])


def blocks(model: nn.Module) -> dict[str, NonLocalBlock]:
    """The non-local blocks of a network by the name of the module they follow, in order."""
    return {
        name.removesuffix(".non_local"): module
        for name, module in model.named_modules()
        if isinstance(module, NonLocalBlock)
    }


def without_blocks(model: nn.Module, names: Iterable[str] | None = None) -> nn.Module:
    """The network without its non-local blocks: a second one on the same weights.

    Parameters and buffers are shared, the modules are copies, so that the network given stays as it
    is and both may run at once.

    names: the modules whose blocks to leave out; None is all. Raises `ValueError` for one that has
    no block.
    """
    there = blocks(model)
    left = list(there) if names is None else list(names)
    for name in left:
        if name not in there:
            has = ", ".join(there) or "no module"
            raise ValueError(f"no block follows {name!r} in {type(model).__name__}; {has} has one")
    tensors = chain(model.parameters(), model.buffers())
    plain = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    for name in dict.fromkeys(left):
        host = plain.get_submodule(name)
        del host.non_local
        hooks = host._forward_hooks
        for key in [key for key, hook in hooks.items() if hook is _apply_non_local]:
            del hooks[key]
    return plain


def find(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name; a wrong one is told with the names that exist."""
    module, path = model, ""
    for part in name.split("."):
        # not named_children(), which leaves out a second name of the same module
        children = {k: child for k, child in module._modules.items() if child is not None}
        if part not in children:
            where = f"{type(model).__name__}{'.' + path if path else ''}"
            has = ", ".join(children) if children else "no submodules"
            raise ValueError(f"no module {name!r} in {type(model).__name__}; {where} has {has}")
        module, path = children[part], f"{path}.{part}".strip(".")
    return module


def _places(model: nn.Module, names: str | Iterable[str]) -> list[tuple[str, nn.Module]]:
    """The named modules, each once."""
    found: dict[nn.Module, str] = {}
    for name in [names] if isinstance(names, str) else names:
        module = find(model, name)
        if module in found:
            raise ValueError(f"{found[module]!r} and {name!r} are one module: name it once")
        found[module] = name
    return [(name, module) for module, name in found.items()]


# Hooks are module-level functions, so that an edited network can be copied and pickled.


def _apply_non_local(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return module.non_local(output)  # type: ignore[operator]


def _apply_shift(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (module.temporal_shift(args[0]), *args[1:])  # type: ignore[operator]


def _check_insertable(name: str, module: nn.Module) -> None:
    if hasattr(module, "non_local"):
        raise ValueError(f"{name!r} has a non-local block already")
    containers = (nn.Sequential, nn.ModuleDict, nn.ModuleList)
    if isinstance(module, containers) and not _runs_its_children(module):
        inside = [f"{name}.{child}" for child, _ in module.named_children()]
        last = f"; name a module inside it, such as {inside[-1]!r}" if inside else ""
        raise ValueError(
            f"{name!r} is a {type(module).__name__} that goes through its own children{last}"
        )


def _runs_its_children(module: nn.Module) -> bool:
    """Whether a new last child is run after the others without a hook."""
    return type(module).forward is nn.Sequential.forward


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
        def observe(module: nn.Module, args: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                kind = type(output).__name__
                raise ValueError(f"{name!r} gives out a {kind}; a block follows a tensor")
            seen[name] = output.shape[1]

        return observe

    handles = [m.register_forward_hook(observer(name)) for name, m in modules.items()]
    try:
        with evaluating(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    unseen = [name for name in modules if name not in seen]
    if unseen:
        raise ValueError(f"the example never came through {', '.join(map(repr, unseen))}")
    return seen


def _replace(model: nn.Module, name: str, twin: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, child, twin)

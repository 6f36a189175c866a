"""Where in a network numbers broke while it trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def first_broken_module(network: nn.Module, clips: Tensor) -> str:
    """In words: the first module, in the order of the network, with a number that is not finite.

    Weights and buffers are looked at first, then gradients, then outputs for these clips
    (normalised, on the network's device).
    """
    weight = first_broken_weight(network.state_dict())
    if weight is not None:
        return weight
    for name, p in network.named_parameters():
        if p.grad is not None and not bool(p.grad.isfinite().all()):
            module, _, own = name.rpartition(".")
            return f"the gradient of {own} in module {module!r}"
    if not bool(clips.isfinite().all()):
        return "the clips themselves"
    return _first_broken_output(network, clips)


def first_broken_weight(weights: Mapping[str, Tensor]) -> str | None:
    """In words: the first weight or buffer with a number that is not finite, if there is one."""
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            module, _, own = name.rpartition(".")
            return f"{own} of module {module!r}"
    return None


def _first_broken_output(network: nn.Module, clips: Tensor) -> str:
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not found and not bool(output.isfinite().all()):
                found.append(f"the output of module {name!r}")

        return hook

    hooks = [m.register_forward_hook(watch(name)) for name, m in network.named_modules() if name]
    try:
        network(clips)
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else "no single module: weights, gradients and outputs are finite"

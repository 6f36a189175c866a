"""What a network costs before anything is run: parameters, multiply-adds, activations."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .block import NonLocalBlock


@dataclass(frozen=True)
class Row:
    """A part of the network: its output for one clip, parameters, multiply-adds, activations."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    activations: int  # numbers that the layers inside put out, those in place not counted


def cost(model: nn.Module, input_shape: Sequence[int]) -> list[Row]:
    """Rows for each stage and non-local block of a network, and a last one for the whole.

    Multiply-adds are those of convolutions, linear layers and the products of the non-local
    operation, for one input of `input_shape` (C, T, H, W); norms, activations, pooling and biases
    are not counted, as in the paper's tables. Nothing is computed: tensors have shapes only.

    Raises:
        ValueError: an input the network cannot take.
    """
    meta = copy.deepcopy(model).to("meta").eval()
    parts = {
        name: module
        for name, module in meta.named_modules()
        if name and (name.count(".") == 0 or isinstance(module, NonLocalBlock))
    }
    leaves: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    handles = []
    for name, module in meta.named_modules():
        if not any(module.children()) or name in parts:
            handles.append(module.register_forward_hook(_recorder(name, leaves, shapes)))
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            out = meta(torch.empty(1, *input_shape, device="meta"))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot take a clip of {tuple(input_shape)}: {error}"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    flops = {k: sum(v.values()) for k, v in counter.get_flop_counts().items()}
    root = type(meta).__name__

    def row(name: str, module: nn.Module, shape: tuple[int, ...]) -> Row:
        inside = [n for n in leaves if n == name or n.startswith(f"{name}.") or not name]
        return Row(
            name or "total",
            type(module).__name__,
            shape,
            sum(p.numel() for p in module.parameters()),
            flops.get(f"{root}.{name}" if name else "Global", 0) // 2,
            sum(leaves[n] for n in inside),
        )

    rows = [row(name, module, shapes[name]) for name, module in parts.items() if name in shapes]
    return [*rows, row("", meta, tuple(out.shape[1:]))]


def _recorder(name: str, leaves: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> Any:
    def record(module: nn.Module, args: Any, output: Tensor) -> None:
        if isinstance(output, Tensor):
            shapes[name] = tuple(output.shape[1:])
            if not any(module.children()) and not getattr(module, "inplace", False):
                leaves[name] = output.numel()

    return record

"""Whether blocks wake up: what each adds to its input, and what keeps one from learning.

A new block is the identity, z = x, since its gain or W_z is 0. What it adds is told by its share,
|z - x| / |x|.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .block import NonLocalBlock
from .modes import evaluating

# Of a parameter that no step of the optimizer changes: why, for one and for several of them.
HINDRANCES = {
    "constant": ("is a constant", "are constants"),
    "frozen": ("does not require gradients", "do not require gradients"),
    "left out": ("is not in the optimizer", "are not in the optimizer"),
    "rate": ("has a learning rate of 0", "have a learning rate of 0"),
}
NEW = "it is the identity, as each new block is, which it leaves in the first steps of training"


def named_blocks(model: nn.Module) -> dict[str, NonLocalBlock]:
    """The non-local blocks of a network, each by its own dotted name, in order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, NonLocalBlock)}


def shares(model: nn.Module, *inputs: Any) -> dict[str, float]:
    """How much each block adds to its input: |z - x| / |x| by its dotted name; 0 is the identity.

    inputs: what the model is called with. It runs in eval mode and without gradients, and each part
    is back in its mode afterwards. A block that these inputs do not come through is left out.
    """
    sums: dict[str, Tensor] = {}
    with _uncompiled(), evaluating(model), torch.no_grad(), measured(model, sums):
        model(*inputs)
    return {name: share(*each.tolist()) for name, each in sums.items()}


def share(added: float, there: float) -> float:
    """|z - x| / |x| of their squares."""
    return (added / max(there, 1e-24)) ** 0.5


@contextmanager
def measured(model: nn.Module, sums: dict[str, Tensor]) -> Iterator[None]:
    """Within, each forward pass of a block adds its |z - x|^2 and |x|^2 to `sums` (2,).

    What is computed stays the same, and nothing waits for the device.
    """

    def watch(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            with torch.no_grad():
                both = torch.stack([_square(output - inputs[0]), _square(inputs[0])])
                sums[name] = sums[name] + both if name in sums else both

        return hook

    handles = [b.register_forward_hook(watch(name)) for name, b in named_blocks(model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _square(x: Tensor) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x, dtype=wide).square()


def _uncompiled() -> AbstractContextManager[Any]:
    """Within, compiled modules run as they were written: what is compiled calls no new hook."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled; to ask would import the compiler
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def why_asleep(model: nn.Module, optimizer: Optimizer | None = None) -> dict[str, str]:
    """In words, why a block is the identity or cannot learn; blocks that learn are left out.

    optimizer: of the training; without it nothing is said of what is in it.

    Call it between backward() and zero_grad(), while gradients are there, so that it can tell also
    whether one reaches the block. Under FSDP every process calls it.
    """
    found = why_stuck(model, optimizer)
    return {
        name: found.get(name, NEW)
        for name, block in named_blocks(model).items()
        if name in found or not block.is_awake()
    }


def why_stuck(model: nn.Module, optimizer: Optimizer | None = None) -> dict[str, str]:
    """The same of blocks alone that more steps like the last would not wake."""
    rates = None if optimizer is None else _rates(optimizer)
    blocks = named_blocks(model)
    inside = {id(p) for block in blocks.values() for p in block.parameters()}
    learns = any(_has_gradient(p) for p in model.parameters() if id(p) not in inside)
    found = {}
    for name, block in blocks.items():
        why = _unable(block, rates) or _at_zero(block, rates)
        if why is None and learns:
            why = _unreached(block, name.removesuffix(".non_local"))
        if why is not None:
            found[name] = why
    return found


def _rates(optimizer: Optimizer) -> dict[int, float]:
    """The learning rate of each parameter, by its id."""
    groups = optimizer.param_groups
    return {id(p): float(group.get("lr", 1.0)) for group in groups for p in group["params"]}


def _hindrance(weight: Tensor, rates: Mapping[int, float] | None) -> str | None:
    if not isinstance(weight, nn.Parameter):  # computed from others, or a buffer
        return None if weight.requires_grad else "constant"
    if not weight.requires_grad:
        return "frozen"
    if rates is not None and id(weight) not in rates:
        return "left out"
    return "rate" if rates is not None and rates[id(weight)] == 0 else None


def _unable(block: NonLocalBlock, rates: Mapping[int, float] | None) -> str | None:
    """Why not one parameter of a block learns."""
    found = [_hindrance(p, rates) for p in block.parameters()]
    if None in found:
        return None
    kinds = [kind for kind in HINDRANCES if kind in found]
    if len(kinds) == 1:
        return f"its parameters {HINDRANCES[kinds[0]][1]}"
    told = [f"{found.count(kind)} {HINDRANCES[kind][1]}" for kind in kinds]
    return f"of its {len(found)} parameters " + " and ".join(told)


def _at_zero(block: NonLocalBlock, rates: Mapping[int, float] | None) -> str | None:
    """Why W_z or the gain of the norm is 0 and stays so."""
    parts = {
        "the gain of its norm": (block.norm, "the gradient of W_z is 0 for ever"),
        "W_z": (block.out, "the block stays the identity"),
    }
    zeros = 0
    for what, (layer, so) in parts.items():
        weight = getattr(layer, "weight", None)
        if weight is None or bool(weight.any()):
            continue
        zeros += 1
        if (kind := _hindrance(weight, rates)) is not None:
            return f"{what} is 0 and {HINDRANCES[kind][0]}, so {so}"
    if zeros == 2:
        return (
            "W_z and the gain of its norm are both 0, and the gradient of each is a multiple of the"
            " other, so both stay: let one of them start elsewhere (zero_init)"
        )
    return None


def _unreached(block: NonLocalBlock, where: str) -> str | None:
    """Why no parameter of a block has a gradient, where other parts of the network have one."""
    learning = [p for p in block.parameters() if p.requires_grad]
    if any(_has_gradient(p) for p in learning):
        return None
    none = all(p.grad is None for p in learning)
    what = "no gradient comes to it" if none else "its gradient is exactly 0"
    return (
        f"{what}, though other parts of the network have one: what the block after {where!r} gives"
        " out does not reach the loss (unused, detached, under no_grad, or multiplied by 0)"
    )


def _has_gradient(p: nn.Parameter) -> bool:
    return p.grad is not None and bool(p.grad.any())

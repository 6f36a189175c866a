"""What a network costs before anything is run: parameters, multiply-adds, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .block import NonLocalBlock
from .card import card_of
from .meter import Meter, Tally, fake_copy, fake_mode, silently
from .models import create_model
from .ops import PAIRWISE


@dataclass(frozen=True)
class Row:
    """A part of the network: its output for one clip, parameters, multiply-adds, bytes.

    peak: alive at once, at most, while the part runs (in training also backward): everything,
        that is with the weights, the clip and what other parts have left.
    adds: at most, on top of what was alive when it began to run (forward or backward).
    kept: what it leaves for the backward pass: of what was made in it, what is still alive when
        the forward pass of the whole network has ended.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    peak: int
    adds: int
    kept: int


@dataclass(frozen=True)
class FunctionCost:
    """A whole network with one of the pairwise functions; multiply-adds forward, peaks in bytes."""

    pairwise: str
    parameters: int
    multiply_adds: int
    inference: int
    training: int


def cost(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    train: bool = False,
) -> list[Row]:
    """Rows for each stage and non-local block of a network, and a last one for the whole.

    Nothing is computed: the network's own code runs on tensors that have shapes only, so this
    takes seconds and no memory, whatever the size (see `meter`).

    Multiply-adds are those of convolutions, linear layers and the products of the non-local
    operation; norms, activations, pooling, sorting and biases are not counted, as in the paper's
    tables. Bytes are those of tensors and of operators' work space on a CPU: what torch itself
    and the decoder take comes on top, and the optimiser's state (`momentum_bytes`).

    Args:
        model: any network that takes one tensor; it may lie on the meta device, without weights.
        input_shape: of one clip (C, T, H, W).
        batch: clips at a time. Multiply-adds are those of all of them.
        dtype: of the weights and the clips. In training, a 16-bit type is mixed precision:
            the weights stay as they are and the products are of this type.
        train: a step of training, forward and backward, instead of inference.

    Raises:
        ValueError: an input the network cannot take.
    """
    mode, meter = fake_mode(), Meter()
    mixed = train and dtype.itemsize < 4
    fake = fake_copy(model, mode, None if mixed else dtype).train(train)
    with mode:
        kind = torch.float32 if mixed else dtype
        clips = torch.empty(batch, *input_shape, dtype=kind, device="cpu")
    meter.hold([*fake.parameters(), *fake.buffers(), clips])
    parts = _parts(fake)
    tallies = {name: Tally() for name in ("", *parts)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in parts.items():
        _watch(name, module, meter, tallies[name], shapes)
    meter.begin(tallies[""])
    try:
        with silently(), mode, meter, torch.set_grad_enabled(train):
            with torch.autocast("cpu", dtype, enabled=mixed):
                out = fake(clips)
            kept = {name: tally.made for name, tally in tallies.items()}
            if train:
                _backward(out)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot take a clip of {tuple(input_shape)}: {error}"
        ) from None
    shapes[""] = tuple(out.shape[1:])
    return [
        Row(
            name or "total",
            type(module).__name__,
            shapes[name],
            sum(p.numel() for p in module.parameters()),
            tallies[name].multiply_adds,
            tallies[name].peak,
            tallies[name].adds,
            kept[name],
        )
        for name, module in (*parts.items(), ("", fake))
        if name in shapes
    ]


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    """What has a row: the model's children and every non-local block; what a block is made of not.

    Watching a layer inside a block would keep it from being joined with its neighbours.
    """
    if isinstance(model, NonLocalBlock):
        return {}
    return {
        name: module
        for name, module in model.named_modules()
        if _is_part(name) or isinstance(module, NonLocalBlock)
    }


def _is_part(name: str) -> bool:
    """A child of the network, or of the image network in a `Framewise`."""
    return bool(name) and name != "host" and "." not in name.removeprefix("host.")


def compare_functions(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
) -> list[FunctionCost]:
    """What a network of `create_model` would cost with each of the paper's pairwise functions.

    Arguments are those of `cost`. Raises ValueError as `cost` does.
    """
    architecture = card_of(model).architecture
    found = []
    for pairwise in PAIRWISE:
        options = {**architecture, "pairwise": pairwise}
        if pairwise == "concatenation":
            options.pop("scale", None)  # a factor on theta . phi, which it does not have
        with torch.device("meta"):
            other = create_model(**options)
        total, training = (
            cost(other, input_shape, batch=batch, dtype=dtype, train=train)[-1]
            for train in (False, True)
        )
        found.append(
            FunctionCost(pairwise, total.parameters, total.multiply_adds, total.peak, training.peak)
        )
    return found


def momentum_bytes(model: nn.Module) -> int:
    """What SGD's momentum takes beside a network in training; AdamW's moments take it twice."""
    return sum(p.nbytes for p in model.parameters() if p.requires_grad)


def _watch(
    name: str, module: nn.Module, meter: Meter, tally: Tally, shapes: dict[str, tuple[int, ...]]
) -> None:
    """Have a part tell the meter when it runs, forward and, by way of its gradients, backward."""
    origins: list[Any] = []

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        meter.begin(tally)
        origins[:] = [tensor.grad_fn for tensor in _with_gradient(args)]
        for tensor in _with_gradient(args):
            tensor.register_hook(lambda gradient: meter.end(tally))

    def after(module: nn.Module, args: Any, output: Any) -> None:
        meter.end(tally)
        for tensor in _with_gradient(output):
            if not any(tensor.grad_fn is origin for origin in origins):  # a part that does nothing
                tensor.register_hook(lambda gradient: meter.begin(tally))
        origins.clear()
        if isinstance(output, Tensor):
            shapes[name] = tuple(output.shape[1:])

    module.register_forward_pre_hook(before, prepend=True)
    module.register_forward_hook(after)


def _with_gradient(values: Any) -> list[Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, Tensor) and t.requires_grad]


def _backward(out: Any) -> None:
    results = _with_gradient(out)
    torch.autograd.backward(results, [torch.empty_like(t) for t in results])

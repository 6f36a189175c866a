"""Memory and multiply-adds of a network on fake tensors: shapes and layouts, but no numbers.

A fake tensor goes through the very code that a real one would, is kept by autograd and dropped by
Python at the same moments. What a `Meter` sees is therefore when each piece of memory begins and
ends; only what an operator takes for itself while it runs stands in a table, `SCRATCH`.
"""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Args = Sequence[Any]  # of an operator
Scratch = Callable[[Args, Sequence[Tensor]], int]


def fake_mode() -> FakeTensorMode:
    """The mode in which networks and clips are fake."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def silently() -> Iterator[None]:
    """Without torch's log of shapes that an operator refuses: the error says it."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")

    def refuse(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(refuse)
    try:
        yield
    finally:
        logger.removeFilter(refuse)


def fake_copy(model: nn.Module, mode: FakeTensorMode, dtype: torch.dtype | None) -> nn.Module:
    """A copy whose parameters and buffers take no memory, as if they lay on a CPU.

    dtype: of those that are not integers; None leaves it.
    """
    memo: dict[int, Any] = {}
    with mode:
        for real in (*model.parameters(), *model.buffers()):
            kind = dtype if dtype is not None and real.is_floating_point() else real.dtype
            fake = torch.empty_strided(real.size(), real.stride(), dtype=kind, device="cpu")
            is_parameter = isinstance(real, nn.Parameter)
            memo[id(real)] = nn.Parameter(fake, real.requires_grad) if is_parameter else fake
    return copy.deepcopy(model, memo)  # takes the tensors it finds in memo for copied


@dataclass
class Tally:
    """What was seen while a part of the network ran; bytes."""

    multiply_adds: int = 0
    peak: int = 0  # alive at once, at most, everything included
    adds: int = 0  # of these, at most, above what was alive when the part began
    made: int = 0  # made while the part ran and alive now
    began: int = 0  # alive when it began


class Meter(TorchDispatchMode):
    """Counts bytes alive and multiply-adds while fake tensors are computed with.

    Views share their storage, and each storage counts from the operator that made it until
    nothing refers to it any more.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = 0
        self.running: list[Tally] = []
        self._held: dict[int, weakref.ref[Any]] = {}

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count these tensors from now on, each storage once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = id(storage), storage.nbytes()
            if key not in self._held:
                makers = tuple(self.running)
                self._held[key] = weakref.ref(storage, partial(self._drop, key, size, makers))
                self._count(size, makers)

    def _drop(self, key: int, size: int, makers: Iterable[Tally], _: weakref.ref[Any]) -> None:
        del self._held[key]
        self._count(-size, makers)

    def _count(self, size: int, makers: Iterable[Tally]) -> None:
        self.alive += size
        for tally in makers:
            tally.made += size

    def begin(self, tally: Tally) -> None:
        """A part of the network starts to run, forward or backward."""
        if not any(tally is other for other in self.running):
            tally.began = self.alive
            tally.peak = max(tally.peak, self.alive)
            self.running.append(tally)

    def end(self, tally: Tally) -> None:
        """It has run."""
        self.running = [other for other in self.running if other is not tally]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Args = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.hold(made)
        name = func.name() if hasattr(func, "name") else str(func)
        name = name.partition(".")[0]  # without the overload: aten::add.Tensor
        scratch = SCRATCH[name](args, made) if name in SCRATCH else 0
        work = _multiply_adds(name, func, args, kwargs, out)
        # where a tensor is used twice, autograd adds the gradients in the memory of one of them;
        # under a mode like this it makes a third, which replaces them at once
        passing = name == "aten::add" and _in_backward_between_operators()
        for tally in self.running:
            tally.multiply_adds += work
            if not passing:
                tally.peak = max(tally.peak, self.alive + scratch)
                tally.adds = max(tally.adds, self.alive + scratch - tally.began)
        return out


def _in_backward_between_operators() -> bool:
    running = torch._C._current_graph_task_id() >= 0
    return running and torch._C._current_autograd_node() is None


def _multiply_adds(name: str, func: Any, args: Args, kwargs: dict[str, Any], out: Any) -> int:
    if name in MULTIPLY_ADDS:
        return MULTIPLY_ADDS[name](args)
    operator = getattr(func, "_overloadpacket", func)
    if name.startswith("aten::") and name.endswith("_"):  # in place: torch tells it of the other
        operator = getattr(torch.ops.aten, name[len("aten::") : -1], operator)
    formula = flop_registry.get(operator)
    return 0 if formula is None else formula(*args, **kwargs, out_val=out) // 2


def _convolution(args: Args, made: Sequence[Tensor]) -> int:
    """Work space of oneDNN, or of torch's own kernel for small 3-D images.

    oneDNN brings the weights, and images that are not channels-last, into an order of its own; the
    order of an image's result is undone after that of the image is dropped. Torch's own kernel
    copies the weights and lays out every patch of one image as a column.
    """
    x, weight, stride = args[0], args[1], args[3]
    if _is_slow(x, weight, args[3:9]):
        return weight.nbytes + x.nbytes + _columns(weight, made[0])
    if _is_product(weight, stride):
        return 0
    return weight.nbytes + (0 if _is_channels_last(x) else max(x.nbytes, made[0].nbytes))


def _convolution_backward(args: Args, made: Sequence[Tensor]) -> int:
    dy, x, weight, stride = args[0], args[1], args[2], args[4]
    if _is_slow(x, weight, args[4:10]):
        return x.nbytes + _columns(weight, dy)
    if _is_product(weight, stride):
        return 0
    return 2 * weight.nbytes + (0 if _is_channels_last(x) else x.nbytes + dy.nbytes)


def _is_slow(x: Tensor, weight: Tensor, options: Args) -> bool:
    chosen = torch._C._select_conv_backend(x, weight, None, *options)
    return chosen.name == "Slow3d"


def _columns(weight: Tensor, y: Tensor) -> int:
    return weight[0].numel() * prod(y.shape[2:]) * y.element_size()


def _is_product(weight: Tensor, stride: Sequence[int]) -> bool:
    """A 1 x 1 convolution at every place needs no other order."""
    return prod(weight.shape[2:]) == prod(stride) == 1


def _is_channels_last(x: Tensor) -> bool:
    """Whether the channels of neighbouring places follow each other in memory."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.dim() in formats and x.is_contiguous(memory_format=formats[x.dim()])


def _pooling(args: Args, made: Sequence[Tensor]) -> int:
    """A copy of what is in neither layout."""
    return sum(
        t.nbytes
        for t in args
        if isinstance(t, Tensor) and not (t.is_contiguous() or _is_channels_last(t))
    )


def _softmax_rows(blocks: int) -> Scratch:
    """Blocks of at_once x Q scores, in float32 or better, that exist at the same time."""

    def scratch(args: Args, made: Sequence[Tensor]) -> int:
        theta, phi, at_once = args[0], args[1], args[-1]
        rows = min(at_once, theta.shape[0] * theta.shape[1])
        return blocks * rows * phi.shape[1] * max(4, phi.element_size())

    return scratch


def _copies(args: Args, made: Sequence[Tensor]) -> int:
    """Of tensors whose channels do not lie side by side."""
    return sum(t.nbytes for t in args if isinstance(t, Tensor) and not t.is_contiguous())


def _relu_sum(args: Args, made: Sequence[Tensor]) -> int:
    """The two lists, sorted with their order, and the values as contiguous float32 or better."""
    a, b, *values = (t for t in args if isinstance(t, Tensor))
    copied = [v for v in values if v.element_size() < 4 or not v.is_contiguous()]
    return 32 * (a.numel() + b.numel()) + sum(v.numel() * max(4, v.element_size()) for v in copied)


# Bytes that an operator takes while it runs, beyond what it is given and what it makes:
# (its arguments, the tensors it made) -> bytes. An operator that is not here takes next to none.
SCRATCH: dict[str, Scratch] = {
    "aten::convolution": _convolution,
    "aten::convolution_backward": _convolution_backward,
    "aten::max_pool2d_with_indices": _pooling,
    "aten::max_pool2d_with_indices_backward": _pooling,
    "nonlocalnet::softmax_rows": _softmax_rows(1),
    "nonlocalnet::softmax_rows_backward": _softmax_rows(2),
    "nonlocalnet::softmax_fused": _copies,
    "nonlocalnet::relu_sum": _relu_sum,
    "nonlocalnet::step_sum": _relu_sum,
    "nonlocalnet::relu_sum_backward": _relu_sum,
}


def _products(of_c: int, of_d: int) -> Callable[[Args], int]:
    """Products of (P, Q) with widths C and D, for theta (N, P, C), phi (N, Q, C), g (N, Q, D)."""

    def count(args: Args) -> int:
        (n, p, c), (_, q, d) = args[0].shape, args[2].shape
        return n * p * q * (of_c * c + of_d * d)

    return count


def _walks(passes: int) -> Callable[[Args], int]:
    """Passes over sorted keys and queries, a (N, P), b (N, Q), g (N, Q, D)."""
    return lambda args: passes * (args[0].numel() + args[1].numel()) * args[2].shape[2]


def _convolution_gradients(args: Args) -> int:
    """As many products as forward for each gradient wanted, of the input and of the weights."""
    y, x, weight, *_, transposed, _, _, wanted = args
    return (x if transposed else y).numel() * weight[0].numel() * sum(wanted[:2])


# Of our own operators; torch knows those of its own, but for the groups of a convolution.
MULTIPLY_ADDS: dict[str, Callable[[Args], int]] = {
    "aten::convolution_backward": _convolution_gradients,
    "nonlocalnet::softmax_rows": _products(1, 1),
    "nonlocalnet::softmax_rows_backward": _products(3, 2),
    "nonlocalnet::softmax_fused": _products(1, 1),
    "nonlocalnet::relu_sum": _walks(1),
    "nonlocalnet::step_sum": _walks(1),
    "nonlocalnet::relu_sum_backward": _walks(3),  # H and R, and a product with each row
}

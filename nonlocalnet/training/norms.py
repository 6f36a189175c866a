"""Batch norms of several processes as one, and their true statistics before a validation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError


class _Normalize(torch.autograd.Function):
    """(x - mean) / deviation with mean and variance over the clips of all processes.

    With n values per channel, d = (x - m) / s and g the gradient of d, that of x is
    (g - sum(g)/n - d sum(g d)/n) / s. Written out, because autograd through the two sums would
    keep three tensors of x's size where one is enough. Also returned: mean, variance, n.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, eps: float, counts: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sums = _sums(x) * counts
        all_reduce(sums, ReduceOp.SUM)
        n, mean, var = _joined(sums)
        scale = (var + eps).rsqrt().float()
        d = ((x.float() - _wide(mean.float(), x)) * _wide(scale, x)).to(x.dtype)
        ctx.save_for_backward(d, scale, n)
        ctx.counts = counts
        ctx.mark_non_differentiable(n, mean, var)
        return d, n, mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        g = grads[0]
        d, scale, n = ctx.saved_tensors
        sums = torch.stack([g.float().sum(_others(g)), (g * d).float().sum(_others(g))]).double()
        all_reduce(sums, ReduceOp.SUM)
        first, second = (sums / n.clamp(min=1) * ctx.counts).float()
        inner = g - _wide(first, g) - d * _wide(second, g)
        return (inner * _wide(scale, g)).to(g.dtype), None, None


def _others(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """(C,) as it is broadcast over x (N, C, ...)."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _sums(x: Tensor) -> Tensor:
    """(3, C) float64: per channel of (N, C, ...) how many values, their sum, that of squares."""
    var, mean = (t.double() for t in torch.var_mean(x.float(), _others(x), correction=0))
    return torch.stack([torch.ones_like(mean), mean, var + mean.square()]) * (x[:, 0].numel())


def _joined(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and variance, (C,) each, from sums as of `_sums`."""
    number = sums[0].clamp(min=1)  # no value at all: zeros
    mean = sums[1] / number
    return sums[0], mean, sums[2] / number - mean.square()


class SyncNorm(_BatchNorm):
    """A batch norm whose statistics in training are over the clips of all processes.

    torch.nn.SyncBatchNorm does this on GPUs only. `counts` False: this process takes part in the
    exchange, but its clips count nothing.
    """

    counts = True

    def _check_input_dim(self, _: Tensor) -> None:
        """Any number of positions."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        if not self.training:
            return super().forward(x)
        d, n, mean, var = _Normalize.apply(x, self.eps, self.counts)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            some = n > 0  # not one clip of any process counts: nothing moves
            self.num_batches_tracked.add_(some[0])
            share = (self.momentum * some).to(self.running_mean)
            self.running_mean.lerp_(mean.to(self.running_mean), share)
            unbiased = var * n / (n - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.to(self.running_var), share)
        return torch.addcmul(_wide(self.bias, x), d, _wide(self.weight, x)).to(x.dtype)


def synchronize(network: nn.Module) -> None:
    """Make every batch norm of a network a `SyncNorm`; names, weights and buffers stay.

    Raises `UserError` for one that holds more than a norm, as timm's hold an activation.
    """
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, _BatchNorm) and not isinstance(norm, SyncNorm):
                if any(norm.children()):
                    raise UserError(
                        f"a {type(norm).__name__} is more than a batch norm, and cannot become one"
                        " over several processes: leave out --sync-norm"
                    )
                synced = SyncNorm(norm.num_features, norm.eps, norm.momentum)
                synced.__dict__.update(
                    {k: norm.__dict__[k] for k in ("_parameters", "_buffers", "training")}
                )
                setattr(parent, name, synced)


@contextmanager
def true_statistics(
    network: nn.Module, passes: Iterable[None], total: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Within, batch norms hold mean and variance over clips, of all processes together.

    Caffe2's precise batch norm: each batch is normalised by its own statistics as in training, and
    these are put together to the mean and variance of all. Afterwards the running statistics, the
    random state and the modes are what they were. Frozen norms take no part.

    passes: sends one batch after the other through the network as it is iterated.
    total: the sum over processes of a tensor.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training]
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices):  # dropout draws
            moments = _moments(norms, passes, total) if norms else []
        for norm, sums in zip(norms, moments, strict=True):
            if sums.any():  # else not one clip could be read
                _, mean, var = _joined(sums)
                _put(norm, {"running_mean": mean, "running_var": var})
        yield
    finally:
        for norm, before in zip(norms, kept, strict=True):
            _put(norm, before)


@torch.no_grad()
def _put(norm: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        norm.get_buffer(name).copy_(value)


def _moments(
    norms: list[_BatchNorm], passes: Iterable[None], total: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    sums = [torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms]

    def watch(into: Tensor) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(norm: nn.Module, inputs: tuple[Tensor]) -> None:
            if norm.training and getattr(norm, "counts", True):
                into.add_(_sums(inputs[0]).cpu())

        return hook

    handles = [n.register_forward_pre_hook(watch(s)) for n, s in zip(norms, sums, strict=True)]
    try:
        with torch.no_grad():
            deque(passes, maxlen=0)
    finally:
        for handle in handles:
            handle.remove()
    return list(total(torch.cat(sums, dim=1)).split([n.num_features for n in norms], dim=1))

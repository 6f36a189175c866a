"""Layers for features (N, C, T, H, W) held channels-last, (N, T, H, W, C) in memory.

There, frames (N T, C, H, W) and columns (N, C, T, H W) are views of the same memory, so 1 x k x k
and t x 1 x 1 kernels run as 2-D ones, which are faster, without a copy. Weights keep the shapes
and names of nn.Conv3d.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Triple = tuple[int, int, int]
Grid = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
BackboneNorm = Literal["batch", "affine"]
NARROW = 8  # channels


def to_frames(x: Tensor) -> Tensor:
    """(N, C, T, H, W) -> (N T, C, H, W): a view where x is channels-last."""
    return x.transpose(1, 2).flatten(0, 1)


def from_frames(x: Tensor, n: int) -> Tensor:
    """(N T, C, H, W) -> (N, C, T, H, W): the inverse of `to_frames`."""
    return x.unflatten(0, (n, x.shape[0] // max(n, 1))).transpose(1, 2)


def to_columns(x: Tensor) -> Tensor:
    """(N, C, T, H, W) -> (N, C, T, H W): a view where x is channels-last."""
    # by way of (N, T, H W, C): flattening H and W alone leaves strides, for N = 1, in which
    # torch does not recognise the layout
    return x.permute(0, 2, 3, 4, 1).flatten(2, 3).permute(0, 3, 1, 2)


class Conv3d(nn.Conv3d):
    """nn.Conv3d, evaluated as a 2-D convolution where its kernel allows.

    1 x k x k: over frames. t x 1 x 1: over columns (T, H W). Others (the stem of I3D, 3x3x3) as
    they are: channels-last 3-D kernels measured faster than stacking frames into channels.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C', T', H', W')."""
        t, h, w = self.kernel_size
        plain = self.dilation == (1, 1, 1) and self.padding_mode == "zeros"
        if not plain or isinstance(self.padding, str):
            return super().forward(x)
        st, sh, sw = self.stride
        pt, ph, pw = self.padding
        if t == 1 and pt == 0:
            if x.shape[1] < NARROW and (h, w) == (1, 1) != (sh, sw) and (ph, pw) == (0, 0):
                # The same pixels taken first. In torch 2.15 the weights' gradient of such a strided
                # convolution over channels-last frames writes beyond its memory.
                x = x[..., ::sh, ::sw].contiguous(memory_format=torch.channels_last_3d)
                sh = sw = 1
            frames = to_frames(x[:, :, ::st])
            y = F.conv2d(
                frames, self.weight.squeeze(2), self.bias, (sh, sw), (ph, pw), 1, self.groups
            )
            return from_frames(y, x.shape[0])
        if (h, w) == (sh, sw) == (1, 1) and (ph, pw) == (0, 0):
            y = F.conv2d(
                to_columns(x), self.weight.squeeze(4), self.bias, (st, 1), (pt, 0), 1, self.groups
            )
            return y.unflatten(3, x.shape[3:])
        return super().forward(x)


class MaxPool3d(nn.MaxPool3d):
    """nn.MaxPool3d as a pooling over frames, then one over columns: the same maximum."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C, T', H', W')."""
        if self.ceil_mode or self.return_indices or self.dilation not in (1, (1, 1, 1)):
            return super().forward(x)
        (t, *space), (st, *stride), (pt, *pad) = (
            triple(v) for v in (self.kernel_size, self.stride, self.padding)
        )
        if (space, stride) != ([1, 1], [1, 1]):
            x = from_frames(F.max_pool2d(to_frames(x), space, stride, pad), x.shape[0])
        if (t, st) == (1, 1):
            return x
        grid = x.shape[3:]
        return F.max_pool2d(to_columns(x), (t, 1), (st, 1), (pt, 0)).unflatten(3, grid)


class BatchNorm3d(nn.BatchNorm3d):
    """nn.BatchNorm3d that writes over its input where that has no gradient to wait for.

    In eval mode without gradients y = x gain + shift needs no memory of its own; what comes in
    here is a convolution's output, which nobody else holds (as with nn.ReLU(inplace=True)).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> the same shape."""
        kept = (
            torch.is_grad_enabled() or torch.compiler.is_compiling()
        )  # a compiler fuses by itself
        if self.training or kept or self.running_var is None:
            return super().forward(x)
        assert self.running_mean is not None
        gain = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * gain
        last = x.permute(0, 2, 3, 4, 1)  # (N, T, H, W, C), contiguous where x is channels-last
        torch.addcmul(shift.to(x.dtype), last, gain.to(x.dtype), out=last)
        return x


class Affine3d(nn.Module):
    """y = weight x + bias per channel, both constants: what Caffe2's long-clip networks have.

    A batch norm whose statistics were folded into it and which is trained no further.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> the same shape, written over x where that has no gradient."""
        last = x.permute(0, 2, 3, 4, 1)
        kept = torch.is_grad_enabled() or torch.compiler.is_compiling()
        into = None if kept else last
        y = torch.addcmul(self.bias.to(x.dtype), last, self.weight.to(x.dtype), out=into)
        return x if into is not None else y.permute(0, 4, 1, 2, 3)


NORMS: dict[BackboneNorm, type[BatchNorm3d | Affine3d]] = {
    "batch": BatchNorm3d,
    "affine": Affine3d,
}


def triple(value: int | str | tuple[int, ...]) -> Triple:
    if isinstance(value, str):
        raise TypeError(f"a padding given in words ({value!r}) has no fixed grid")
    return (value, value, value) if isinstance(value, int) else (value[0], value[1], value[2])


def grid_of(path: Iterable[nn.Module]) -> Grid:
    """Where the cells of the last layer's output lie in the first one's input, per axis.

    Returns (stride, offset) for T, H and W: cell i is centred at offset + stride * i, the centre of
    the input's first cell being 0. Layers without a kernel are passed over.
    """
    axes = [(1.0, 0.0)] * 3
    for layer in path:
        if not isinstance(layer, nn.Conv3d | nn.MaxPool3d):
            continue
        kernel, stride, pad = (triple(v) for v in (layer.kernel_size, layer.stride, layer.padding))
        axes = [
            (step * st, start + step * ((k - 1) / 2 - p))
            for (step, start), k, st, p in zip(axes, kernel, stride, pad, strict=True)
        ]
    return axes[0], axes[1], axes[2]

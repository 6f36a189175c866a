"""The bodies of the paper's video networks: a ResNet whose every kernel also has a time axis.

Features are (N, C, T, H, W) held channels-last, (N, T, H, W, C) in memory. There, frames
(N T, C, H, W) and columns (N, C, T, H W) are views of the same memory, so 1 x k x k and t x 1 x 1
kernels run as 2-D ones, which are faster, without a copy. Weights keep the shapes of nn.Conv3d
and the names of torchvision's ResNet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Triple = tuple[int, int, int]
Grid = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


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
            _triple(v) for v in (self.kernel_size, self.stride, self.padding)
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


def _triple(value: int | str | tuple[int, ...]) -> Triple:
    if isinstance(value, str):
        raise TypeError(f"a padding given in words ({value!r}) has no fixed grid")
    return (value, value, value) if isinstance(value, int) else (value[0], value[1], value[2])


@dataclass(frozen=True)
class Pool:
    """Kernel, stride and padding of a max pooling, each over (T, H, W)."""

    kernel: Triple
    stride: Triple
    padding: Triple

    def layer(self) -> MaxPool3d:
        return MaxPool3d(self.kernel, self.stride, self.padding)


@dataclass(frozen=True)
class Stem:
    """Everything before res3 that the paper and the codebases set differently.

    `kernel` and `stride` are conv1's (T, H, W); `pool1` follows it, `pool2` follows res2.
    """

    kernel: Triple = (1, 7, 7)
    stride: Triple = (1, 2, 2)
    pool1: Pool | None = None
    pool2: Pool | None = None


STEMS: dict[str, Stem] = {
    # Table 1 of the paper: 32 frames to 4
    "paper": Stem(
        stride=(2, 2, 2),
        pool1=Pool((3, 3, 3), (2, 2, 2), (1, 1, 1)),
        pool2=Pool((3, 1, 1), (2, 1, 1), (1, 0, 0)),
    ),
    # video-nonlocal-net's resnet_video_org (32x2, 128x1)
    "caffe2-32": Stem(
        stride=(2, 2, 2),
        pool1=Pool((2, 3, 3), (2, 2, 2), (0, 0, 0)),
        pool2=Pool((2, 1, 1), (2, 1, 1), (0, 0, 0)),
    ),
    # video-nonlocal-net's resnet_video (8x8, 32x4): 8 frames to 4
    "caffe2-8": Stem(
        pool1=Pool((1, 3, 3), (1, 2, 2), (0, 0, 0)), pool2=Pool((2, 1, 1), (2, 1, 1), (0, 0, 0))
    ),
    # PySlowFast and PyTorchVideo: 8 frames to 4
    "slowfast": Stem(
        pool1=Pool((1, 3, 3), (1, 2, 2), (0, 1, 1)), pool2=Pool((2, 1, 1), (2, 1, 1), (0, 0, 0))
    ),
    # the image network on every frame, as TSM has it: no frame is lost
    "image": Stem(pool1=Pool((1, 3, 3), (1, 2, 2), (0, 1, 1))),
    # for clips of 32x32: no pooling, every frame kept
    "tiny": Stem(kernel=(1, 3, 3)),
}


class BasicBlock(nn.Module):
    """Two 1x3x3 convolutions and the identity (He et al. 2016, ResNet-18)."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, (1, 3, 3), stride)
        self.bn1 = BatchNorm3d(width)
        self.conv2 = _conv(width, width, (1, 3, 3))
        self.bn2 = BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, width, T, H', W')."""
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += identity
        return self.relu(x)


class Bottleneck(nn.Module):
    """1x1x1, 1x3x3, 1x1x1 and the identity; the stride is on the 1x3x3, as in all public weights.

    Each kernel may be inflated in time: the first 1x1x1 to 3x1x1, or the 1x3x3 to 3x3x3.
    """

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, (1, 1, 1))
        self.bn1 = BatchNorm3d(width)
        self.conv2 = _conv(width, width, (1, 3, 3), stride)
        self.bn2 = BatchNorm3d(width)
        self.conv3 = _conv(width, width * self.expansion, (1, 1, 1))
        self.bn3 = BatchNorm3d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, 4 width, T, H', W')."""
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += identity
        return self.relu(x)


def _conv(channels: int, width: int, kernel: Triple, stride: int = 1) -> Conv3d:
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return Conv3d(channels, width, kernel, (1, stride, stride), padding, bias=False)


def _shortcut(channels: int, width: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == width:
        return None
    return nn.Sequential(_conv(channels, width, (1, 1, 1), stride), BatchNorm3d(width))


class ResNet3d(nn.Module):
    """A ResNet on (N, 3, T, H, W) with time kernels of 1: the paper's C2D (Table 1).

    `inflate`, `shift` and `insert` make I3D, TSM and non-local networks of it. Names are those of
    torchvision's ResNet, with pool2 between layer1 and layer2; layer1 ... layer4 are the paper's
    res2 ... res5. The head is global average pooling, dropout and one linear layer.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        layers: blocks per stage, up to four stages.
        stem: a name of `STEMS`, or a `Stem`.
        width: channels of the first stage; it doubles at each.
        num_classes: outputs of the head.
        dropout: probability before the head, in training.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: tuple[int, ...],
        stem: str | Stem = "paper",
        width: int = 64,
        num_classes: int = 400,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if isinstance(stem, str):
            if stem not in STEMS:
                raise ValueError(f"no stem {stem!r}; there are {', '.join(STEMS)}")
            stem = STEMS[stem]
        t, h, w = stem.kernel
        self.conv1 = Conv3d(3, width, (t, h, w), stem.stride, (t // 2, h // 2, w // 2), bias=False)
        self.bn1 = BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = stem.pool1.layer() if stem.pool1 else nn.Identity()
        channels = width
        for stage, depth in enumerate(layers):
            blocks = []
            for i in range(depth):
                stride = 2 if i == 0 and stage > 0 else 1
                blocks.append(block(channels, width * 2**stage, stride))
                channels = width * 2**stage * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            if stage == 0:
                self.pool2 = stem.pool2.layer() if stem.pool2 else nn.Identity()
        self.stages = tuple(f"layer{s + 1}" for s in range(len(layers)))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        self._initialize()
        self.to(memory_format=torch.channels_last_3d)

    def _initialize(self) -> None:
        # MSRA for convolutions; fc N(0, 0.01^2) and a zero last gain as in video-nonlocal-net
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
            elif isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Clips (N, 3, T, H, W), normalised -> logits (N, classes)."""
        x = self.features(x).mean((2, 3, 4))  # (N, C, T, H, W) -> (N, C)
        return self.fc(self.dropout(x))

    def features(self, x: Tensor) -> Tensor:
        """Clips (N, 3, T, H, W) -> the last stage's features (N, C, T', H', W')."""
        if x.dim() != 5 or x.shape[1] != self.conv1.in_channels:
            raise ValueError(
                f"clips are (N, {self.conv1.in_channels}, T, H, W); they came as {tuple(x.shape)}"
            )
        x = x.contiguous(memory_format=torch.channels_last_3d)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
            if name == "layer1":
                x = self.pool2(x)
        return x

    def grid(self, name: str) -> Grid:
        """Where the cells of a residual block's output lie in the clip, per axis (T, H, W).

        `name` is such as "layer3.4", or "layer3" for the whole stage. Returns (stride, offset) for
        each axis: cell i is centred at frame or pixel offset + stride * i, the first one's centre
        being 0. Raises ValueError for a name that is neither.
        """
        stage, _, index = name.partition(".")
        depths = {s: len(list(self.get_submodule(s).children())) for s in self.stages}
        index = index if index or "." in name else str(depths.get(stage, 1) - 1)
        if not (stage in depths and index.isdigit() and int(index) < depths[stage]):
            has = ", ".join(f"{s}.0 to {s}.{depth - 1}" for s, depth in depths.items())
            raise ValueError(f"{name!r} is no residual block; there are {has}")
        axes = [(1.0, 0.0)] * 3
        path: list[nn.Module] = [self.conv1, self.maxpool]
        for s in self.stages:
            blocks = list(self.get_submodule(s).children())
            path += blocks[: int(index) + 1] if s == stage else blocks
            if s == stage:
                break
            if s == "layer1":
                path.append(self.pool2)
        for module in path:
            for layer in _strided(module):
                kernel, stride, pad = (
                    _triple(v) for v in (layer.kernel_size, layer.stride, layer.padding)
                )
                axes = [
                    (step * st, start + step * ((k - 1) / 2 - p))
                    for (step, start), k, st, p in zip(axes, kernel, stride, pad, strict=True)
                ]
        return axes[0], axes[1], axes[2]


def _strided(module: nn.Module) -> list[Conv3d | MaxPool3d]:
    """The layers of a block that move its grid: the main path's, not the shortcut's."""
    if isinstance(module, Conv3d | MaxPool3d):
        return [module]
    return [m for m in module.children() if isinstance(m, Conv3d)]

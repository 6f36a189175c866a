"""The bodies of the paper's video networks: a ResNet whose every kernel also has a time axis.

Names are those of torchvision's ResNet, weights have the shapes of nn.Conv3d (see `layers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .head import HEADS, Head, join, places
from .layers import (
    NORMS,
    BackboneNorm,
    BatchNorm3d,
    Conv3d,
    Grid,
    MaxPool3d,
    Triple,
    grid_of,
    to_frames,
)

StrideOn = Literal["3x3", "1x1"]
MakeNorm = Callable[[int], nn.Module]


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
    # MMAction2's I3D 32x2: pool1 drops every second frame
    "mmaction-i3d": Stem(
        stride=(2, 2, 2),
        pool1=Pool((1, 3, 3), (2, 2, 2), (0, 1, 1)),
        pool2=Pool((2, 1, 1), (2, 1, 1), (0, 0, 0)),
    ),
    # MMAction2's C2D: the figures of "caffe2-8"
    "mmaction-c2d": Stem(
        pool1=Pool((1, 3, 3), (1, 2, 2), (0, 0, 0)), pool2=Pool((2, 1, 1), (2, 1, 1), (0, 0, 0))
    ),
    # the image network on every frame, as TSM, SlowOnly and the "nopool" networks have it
    "image": Stem(pool1=Pool((1, 3, 3), (1, 2, 2), (0, 1, 1))),
    # for clips of 32x32: no pooling, every frame kept
    "tiny": Stem(kernel=(1, 3, 3)),
}


class BasicBlock(nn.Module):
    """Two 1x3x3 convolutions and the identity (He et al. 2016, ResNet-18)."""

    expansion = 1

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int = 1,
        stride_on: StrideOn = "3x3",
        norm: MakeNorm = BatchNorm3d,
    ) -> None:
        super().__init__()
        if stride_on != "3x3":
            raise ValueError("a basic block has 1x3x3 convolutions only: its stride is on the 3x3")
        self.conv1 = _conv(channels, width, (1, 3, 3), stride)
        self.bn1 = norm(width)
        self.conv2 = _conv(width, width, (1, 3, 3))
        self.bn2 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, width, T, H', W')."""
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += identity
        return self.relu(x)


class Bottleneck(nn.Module):
    """1x1x1, 1x3x3, 1x1x1 and the identity.

    The stride is on the 1x3x3, as in all public weights, or on the first 1x1x1 (the older MSRA
    networks, with which alone the paper's 34.2 G are reached). Each kernel may be inflated in
    time: the first 1x1x1 to 3x1x1, or the 1x3x3 to 3x3x3.
    """

    expansion = 4

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int = 1,
        stride_on: StrideOn = "3x3",
        norm: MakeNorm = BatchNorm3d,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = _conv(channels, width, (1, 1, 1), first)
        self.bn1 = norm(width)
        self.conv2 = _conv(width, width, (1, 3, 3), second)
        self.bn2 = norm(width)
        self.conv3 = _conv(width, width * self.expansion, (1, 1, 1))
        self.bn3 = norm(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, width * self.expansion, stride, norm)

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


def _shortcut(channels: int, width: int, stride: int, norm: MakeNorm) -> nn.Sequential | None:
    if stride == 1 and channels == width:
        return None
    return nn.Sequential(_conv(channels, width, (1, 1, 1), stride), norm(width))


class ResNet3d(nn.Module):
    """A ResNet on (N, 3, T, H, W) with time kernels of 1: the paper's C2D (Table 1).

    `inflate`, `shift` and `insert` make I3D, TSM and non-local networks of it. Names are those of
    torchvision's ResNet, with pool2 between layer1 and layer2; layer1 ... layer4 are the paper's
    res2 ... res5. The head is average pooling, dropout and one linear layer.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        layers: blocks per stage, up to four stages.
        stem: a name of `STEMS`, or a `Stem`.
        width: channels of the first stage; it doubles at each.
        num_classes: outputs of the head.
        dropout: probability before the head, in training.
        stride_on: the convolution of a bottleneck that halves the picture.
        norm: of the whole body, a key of `NORMS`: "batch", or "affine" constants.
        head: where it averages, one of `HEADS`.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: tuple[int, ...],
        stem: str | Stem = "paper",
        width: int = 64,
        num_classes: int = 400,
        dropout: float = 0.5,
        *,
        stride_on: StrideOn = "3x3",
        norm: BackboneNorm = "batch",
        head: Head = "global",
    ) -> None:
        super().__init__()
        for choice, value, known in (("norm", norm, NORMS), ("head", head, HEADS)):
            if value not in known:
                raise ValueError(f"{choice} is one of {', '.join(known)}, not {value!r}")
        if stride_on not in ("3x3", "1x1"):
            raise ValueError(f"stride_on is '3x3' or '1x1', not {stride_on!r}")
        if isinstance(stem, str):
            if stem not in STEMS:
                raise ValueError(f"no stem {stem!r}; there are {', '.join(STEMS)}")
            stem = STEMS[stem]
        t, h, w = stem.kernel
        self.conv1 = Conv3d(3, width, (t, h, w), stem.stride, (t // 2, h // 2, w // 2), bias=False)
        self.bn1 = NORMS[norm](width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = stem.pool1.layer() if stem.pool1 else nn.Identity()
        channels = width
        for stage, depth in enumerate(layers):
            blocks = []
            for i in range(depth):
                stride = 2 if i == 0 and stage > 0 else 1
                blocks.append(block(channels, width * 2**stage, stride, stride_on, NORMS[norm]))
                channels = width * 2**stage * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            if stage == 0:
                self.pool2 = stem.pool2.layer() if stem.pool2 else nn.Identity()
        self.stages = tuple(f"layer{s + 1}" for s in range(len(layers)))
        self.dropout = nn.Dropout(dropout)
        self.head: Head = head
        self.fc = nn.Linear(channels, num_classes)
        self._initialize()
        self.to(memory_format=torch.channels_last_3d)

    def _initialize(self) -> None:
        if self.fc.weight.is_meta:
            return  # there is nothing to fill, and torch takes its time over that
        # MSRA for convolutions; fc N(0, 0.01^2) and a zero last gain as in video-nonlocal-net
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            last = {Bottleneck: "bn3", BasicBlock: "bn2"}.get(type(module))
            if last and isinstance(norm := getattr(module, last), BatchNorm3d):
                nn.init.zeros_(norm.weight)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Clips (N, 3, T, H, W), normalised -> logits (N, classes)."""
        return self._classify(self.features(x))

    def frames(self, x: Tensor) -> Tensor:
        """The logits of each frame by itself: (N, 3, T, H, W) -> (N, T, classes).

        Raises ValueError if the network halves time on the way.
        """
        y = self.features(x)
        if y.shape[2] != x.shape[2]:
            raise ValueError(
                f"this network makes {y.shape[2]} frames of {x.shape[2]}, so that none has logits"
                " of its own; the stem 'image' keeps them all"
            )
        each = to_frames(y).unsqueeze(2)  # (N, C, T, H, W) -> (N T, C, 1, H, W)
        return self._classify(each).unflatten(0, (x.shape[0], x.shape[2]))

    def _classify(self, x: Tensor) -> Tensor:
        x = places(x, self.head)  # (N, C, T, H, W) -> (N, places, C)
        return join(self.fc(self.dropout(x)), self.head)

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
        path: list[nn.Module] = [self.conv1, self.maxpool]
        for s in self.stages:
            blocks = list(self.get_submodule(s).children())
            path += blocks[: int(index) + 1] if s == stage else blocks
            if s == stage:
                break
            if s == "layer1":
                path.append(self.pool2)
        return grid_of(layer for module in path for layer in _strided(module))


def _strided(module: nn.Module) -> list[nn.Module]:
    """The layers of a block that move its grid: the main path's, not the shortcut's."""
    return [module, *(m for m in module.children() if isinstance(m, Conv3d))]

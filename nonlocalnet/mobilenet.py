"""MobileNetV2 on clips (Sandler et al. 2018): the network that TSM runs on phones and cameras.

Names are those of torchvision's mobilenet_v2, kernels have a time axis of 1 (see `layers`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import BatchNorm3d, Conv3d, Grid, grid_of

# expansion, channels, blocks, stride of the first one: Table 2 of the MobileNetV2 paper
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> Conv3d:
    pad = kernel // 2
    return Conv3d(
        channels,
        width,
        (1, kernel, kernel),
        (1, stride, stride),
        (0, pad, pad),
        groups=groups,
        bias=False,
    )


def _rectified(
    channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = _conv(channels, width, kernel, stride, groups)
    return nn.Sequential(conv, BatchNorm3d(width), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """1x1x1 to more channels, 1x3x3 of each by itself, 1x1x1 back; and the identity if it fits."""

    def __init__(self, channels: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        expand = [] if expansion == 1 else [_rectified(channels, inner, 1)]
        self.conv = nn.Sequential(
            *expand,
            _rectified(inner, inner, 3, stride, groups=inner),
            _conv(inner, width, 1),
            BatchNorm3d(width),
        )
        self.residual = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, width, T, H', W')."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNet3d(nn.Module):
    """MobileNetV2 on (N, 3, T, H, W) with time kernels of 1.

    Args:
        num_classes: outputs of the head.
        dropout: probability before the head, in training.
    """

    def __init__(self, num_classes: int = 400, dropout: float = 0.5) -> None:
        super().__init__()
        layers: list[nn.Module] = [_rectified(3, 32, 3, 2)]
        channels = 32
        for expansion, width, depth, stride in STAGES:
            for i in range(depth):
                layers.append(InvertedResidual(channels, width, stride if i == 0 else 1, expansion))
                channels = width
        layers.append(_rectified(channels, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(1280, num_classes))
        self._initialize()
        self.to(memory_format=torch.channels_last_3d)

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Clips (N, 3, T, H, W), normalised -> logits (N, classes), those of `frames` averaged."""
        return self.frames(x).mean(1)

    def frames(self, x: Tensor) -> Tensor:
        """The logits of each frame by itself: (N, 3, T, H, W) -> (N, T, classes)."""
        if x.dim() != 5 or x.shape[1] != 3:
            raise ValueError(f"clips are (N, 3, T, H, W); they came as {tuple(x.shape)}")
        x = self.features(x.contiguous(memory_format=torch.channels_last_3d))
        return self.classifier(x.mean((3, 4)).mT)  # (N, C, T, H, W) -> (N, T, C)

    def grid(self, name: str) -> Grid:
        """Where the cells of "features.6" and the like lie in the clip: see `layers.grid_of`.

        Raises ValueError for another name.
        """
        prefix, _, index = name.partition(".")
        if prefix != "features" or not index.isdigit() or int(index) >= len(self.features):
            last = len(self.features) - 1
            raise ValueError(f"{name!r} is no block; there are features.0 to features.{last}")
        return grid_of(self.features[: int(index) + 1].modules())

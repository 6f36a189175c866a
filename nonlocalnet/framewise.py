"""An image network on clips: every frame by itself, but for what shifts carry over; their mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import to_frames
from .shift import TemporalShift


class Framewise(nn.Module):
    """Clips (N, 3, T, H, W) -> logits (N, K), by a network that takes images (N T, 3, H, W).

    What a frame knows of others comes from the shifts in the image network (see `surgery.shift`).
    They are told T at each call, so clips of any length go through.

    Args:
        host: the image network. Its last linear layer, the head, is taken out, and so is dropout.
        num_classes: outputs of the new head `fc`.
        dropout: probability before the head, in training.

    Raises:
        ValueError: a host whose last layer with weights is not linear.
    """

    def __init__(self, host: nn.Module, num_classes: int = 400, dropout: float = 0.5) -> None:
        super().__init__()
        self.host_head, channels = _behead(host)
        self.host = host
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Clips (N, 3, T, H, W), normalised -> logits (N, K), those of `frames` averaged."""
        return self.frames(x).mean(1)

    def frames(self, x: Tensor) -> Tensor:
        """The logits of each frame: (N, 3, T, H, W) -> (N, T, K)."""
        if x.dim() != 5 or x.shape[1] != 3:
            raise ValueError(f"clips are (N, 3, T, H, W); they came as {tuple(x.shape)}")
        n, _, t, *_ = x.shape
        for module in self.host.modules():
            if isinstance(module, TemporalShift):
                module.frames = t
        x = to_frames(x.contiguous(memory_format=torch.channels_last_3d))  # (N T, 3, H, W)
        x = self.host(x)  # (N T, C)
        return self.fc(self.dropout(x)).unflatten(0, (n, t))


def _behead(host: nn.Module) -> tuple[str, int]:
    """Take head and dropout out of an image network; the head's name and its inputs."""
    layers = [
        (name, module)
        for name, module in host.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    name, head = layers[-1] if layers else ("", host)
    if not name or not isinstance(head, nn.Linear):
        raise ValueError(
            f"the last layer of an image network is to be linear, to be replaced by one for your"
            f" classes; that of {type(host).__name__} is a {type(head).__name__}"
        )
    idle = [n for n, module in host.named_modules() if isinstance(module, nn.Dropout)]
    for place in (name, *idle):
        parent, _, child = place.rpartition(".")
        setattr(host.get_submodule(parent), child, nn.Identity())
    return name, head.in_features

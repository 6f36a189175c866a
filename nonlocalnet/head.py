"""From the last features to logits: where a head averages, how places join, its last layer."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

# "global": the mean over all positions (the paper; MMAction2's adaptive pooling; TSM).
# "7x7-softmax": a window of all frames and 7x7 cells slides over the features; the softmax of each
#     place is averaged (Caffe2 and PySlowFast, which test 256 x 256 with weights of 224 x 224).
# "7x7-sigmoid": the same window, the sigmoid of each place is averaged (PySlowFast on Charades).
# "7x7-logits": the same window, the logits averaged (PyTorchVideo).
Head = Literal["global", "7x7-softmax", "7x7-sigmoid", "7x7-logits"]
HEADS: tuple[Head, ...] = ("global", "7x7-softmax", "7x7-sigmoid", "7x7-logits")
WINDOW = 7


def places(x: Tensor, head: Head) -> Tensor:
    """Features (N, C, T, H, W) -> their means, (N, C), or (N, places, C) under a sliding window.

    Features smaller than the window are averaged whole.
    """
    if head == "global":
        return x.mean((2, 3, 4))
    frames = x.mean(2)  # (N, C, H, W)
    window = [min(WINDOW, size) for size in frames.shape[2:]]
    return F.avg_pool2d(frames, window, stride=1).flatten(2).mT


def join(logits: Tensor, head: Head) -> Tensor:
    """Logits (N, K), or of each place (N, places, K) -> logits (N, K), whose softmax scores.

    One place has its own logits; of several, the mean, or what the mean softmax (or sigmoid) is
    the softmax (sigmoid) of.
    """
    if logits.dim() == 2:
        return logits
    count = logits.shape[1]
    if count == 1:
        return logits.squeeze(1)
    if head == "7x7-softmax":
        return logits.log_softmax(2).logsumexp(1) - math.log(count)
    if head == "7x7-sigmoid":
        yes, no = F.logsigmoid(logits).logsumexp(1), F.logsigmoid(-logits).logsumexp(1)
        return yes - no
    return logits.mean(1)


LAST = ("fc", "classifier.1", "fc.3")  # the last layer of each kind of network


def is_head(name: str) -> bool:
    """Whether a parameter of that name belongs to the last layer, which knows the classes."""
    return name.rpartition(".")[0] in LAST


def head_of(model: nn.Module) -> nn.Linear:
    """The last layer of a network of `create_model`."""
    names = {name for name, _ in model.named_modules()}
    head = model.get_submodule(next(name for name in reversed(LAST) if name in names))
    assert isinstance(head, nn.Linear)
    return head

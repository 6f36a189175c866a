"""The paper's training, and each row of its Tables 2a to 2d, 2f and 2g."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..recipes import Recipe
from .protocol import Protocol

# The paper's training (section 4 and video-nonlocal-net): 400,000 steps of 64 clips from ImageNet.
PAPER = Recipe(
    model="i3d_resnet50",
    non_local=5,
    pretrained="imagenet",
    precise_norm=200,
    dropout=0.5,
    frames=32,
    stride=2,
    sampling="dense",
    crop=224,
    short_side=256,
    test_crop=256,
    jitter=(256, 320),
    flip=True,
    colours="imagenet",
    epochs=109,  # 400,000 steps of 64 over 234,643 clips
    accumulate_to=64,  # with a learning rate of 0.01, which follows from it
    clip_grad=0.0,
    schedule="steps",
    warmup=0.0,
    class_weights=False,
)
# Two clips on each of eight GPUs, norms frozen, blocks without a norm, the same number of steps.
LONG: dict[str, Any] = {
    "pretrained": None,
    "pretrained_blocks": False,
    "freeze_norm": True,
    "precise_norm": 0,
    "epochs": 27,  # 400,000 steps of 16
    "accumulate_to": 16,
    "lr": 0.0025,
}
TORCHVISION = "it starts from torchvision's ImageNet weights and colours, not from Caffe2's"

_TABLE2 = replace(PAPER, model="c2d_resnet50", non_local=0, head="7x7-softmax", crops=0)


def _table(name: str, about: str, changes: dict[str, Any], top1: float, top5: float) -> Protocol:
    """A row of the paper's Table 2: ResNet-50 and 32 frames where not said otherwise."""
    expect = f"{top1} % top-1, {top5} % top-5 (paper, Table 2{name})"
    recipe = replace(_TABLE2, **changes)
    return Protocol(about, recipe, "Kinetics-400", expect, "10xwhole", differs=TORCHVISION)


def _longer(of: str, about: str, changes: dict[str, Any], top1: float, top5: float) -> Protocol:
    """A row of Table 2g: 128 frames, starting from the network of 32."""
    long = {**LONG, "pretrained_blocks": True, "frames": 128, "stride": 1}
    row = _table("g", f"{about}, 128 frames", {**long, **changes}, top1, top5)
    return replace(row, first=f"table2_{of}", differs=_BLOCKS if changes.get("non_local") else "")


_BLOCKS = "the norms of the blocks learn on; the paper freezes batch norm and does not say which"


_R101 = {"model": "c2d_resnet101"}
# name: (table, what, changes, top-1, top-5)
_ABLATIONS: dict[str, tuple[str, str, dict[str, Any], float, float]] = {
    "c2d": ("a-g", "C2D, the base line", {}, 71.8, 89.7),
    "c2d_gaussian": (
        "a", "C2D, one Gaussian block", {"non_local": 1, "pairwise": "gaussian"}, 72.5, 90.2,
    ),
    "c2d_embedded": ("a", "C2D, one embedded Gaussian block", {"non_local": 1}, 72.7, 90.5),
    "c2d_dot": (
        "a", "C2D, one dot-product block", {"non_local": 1, "pairwise": "dot_product"}, 72.9, 90.3,
    ),
    "c2d_concatenation": (
        "a", "C2D, one concatenation block", {"non_local": 1, "pairwise": "concatenation"},
        72.8, 90.5,
    ),
    "c2d_res2": ("b", "C2D, one block in res2", {"non_local": "res2"}, 72.7, 90.3),
    "c2d_res3": ("b", "C2D, one block in res3", {"non_local": "res3"}, 72.9, 90.4),
    "c2d_res4": ("b", "C2D, one block in res4", {"non_local": "res4"}, 72.7, 90.5),
    "c2d_res5": ("b", "C2D, one block in res5", {"non_local": "res5"}, 72.3, 90.1),
    "c2d_5": ("c", "C2D, 5 blocks", {"non_local": 5}, 73.8, 91.0),
    "c2d_10": ("c", "C2D, 10 blocks", {"non_local": 10}, 74.3, 91.2),
    "c2d_r101": ("c", "C2D, ResNet-101", _R101, 73.1, 91.0),
    "c2d_r101_1": ("c", "C2D, ResNet-101, 1 block", {**_R101, "non_local": 1}, 74.3, 91.3),
    "c2d_r101_5": ("c", "C2D, ResNet-101, 5 blocks", {**_R101, "non_local": 5}, 75.1, 91.7),
    "c2d_r101_10": ("c", "C2D, ResNet-101, 10 blocks", {**_R101, "non_local": 10}, 75.1, 91.6),
    "c2d_space": ("d", "C2D, 5 blocks in space", {"non_local": 5, "mode": "space"}, 72.9, 90.8),
    "c2d_time": ("d", "C2D, 5 blocks in time", {"non_local": 5, "mode": "time"}, 73.1, 90.5),
    "c2d_r101_space": (
        "d", "C2D, ResNet-101, 5 blocks in space", {**_R101, "non_local": 5, "mode": "space"},
        74.4, 91.3,
    ),
    "c2d_r101_time": (
        "d", "C2D, ResNet-101, 5 blocks in time", {**_R101, "non_local": 5, "mode": "time"},
        74.4, 90.5,
    ),
    "i3d": ("f", "I3D 3x1x1", {"model": "i3d_resnet50"}, 73.3, 90.7),
    "i3d_5": ("f", "I3D 3x1x1, 5 blocks", {"model": "i3d_resnet50", "non_local": 5}, 74.9, 91.6),
    "i3d_r101": ("f", "I3D 3x1x1, ResNet-101", {"model": "i3d_resnet101"}, 74.4, 91.1),
    "i3d_r101_5": (
        "f", "I3D 3x1x1, ResNet-101, 5 blocks", {"model": "i3d_resnet101", "non_local": 5},
        76.0, 92.1,
    ),
}  # fmt: skip

# the row of 32 frames: what, changes, top-1, top-5 with 128
_LONGER: dict[str, tuple[str, dict[str, Any], float, float]] = {
    "c2d": ("C2D", {}, 73.8, 91.2),
    "i3d": ("I3D 3x1x1", {"model": "i3d_resnet50"}, 74.9, 91.7),
    "i3d_5": ("I3D 3x1x1, 5 blocks", {"model": "i3d_resnet50", "non_local": 5}, 76.5, 92.6),
    "c2d_r101": ("C2D, ResNet-101", _R101, 75.3, 91.8),
    "i3d_r101": ("I3D 3x1x1, ResNet-101", {"model": "i3d_resnet101"}, 76.4, 92.7),
    "i3d_r101_5": (
        "I3D 3x1x1, ResNet-101, 5 blocks", {"model": "i3d_resnet101", "non_local": 5}, 77.7, 93.3,
    ),
}  # fmt: skip

TABLE2: dict[str, Protocol] = {
    **{f"table2_{name}": _table(*row) for name, row in _ABLATIONS.items()},
    **{f"table2_{name}_128": _longer(name, *row) for name, row in _LONGER.items()},
}

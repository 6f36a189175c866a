"""How each published result is obtained: recipes by name, each with what it promises.

`nonlocalnet recipes` lists them, `nonlocalnet recipes NAME` says all of one, and
`nonlocalnet train DATA --recipe NAME` follows it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .recipes import Recipe

# Training videos. Kinetics loses videos every year: figures are of the copy that is named.
VIDEOS: dict[str, int] = {
    "Kinetics-400": 234_643,  # video-nonlocal-net's copy, of 246,534 in the list
    "Something-Something v1": 86_017,
    "Something-Something v2": 168_913,
    "Charades": 7_811,  # those that video-long-term-feature-banks trains on
    "UCF101": 9_537,  # split 1
    "HMDB51": 3_570,  # split 1
}
SUSTAINED = 40e12  # floating-point operations per second that a training GPU is taken to sustain


@dataclass(frozen=True)
class Protocol:
    """A recipe and its promise.

    about: what it is. recipe: what `train` is told. data: a key of VIDEOS, or in words. expect: the
    score and whose it is. views: of the test that gives that score. first: the protocol whose run
    it starts from. differs: from its source, as far as known. measured: where it was, here.
    """

    about: str
    recipe: Recipe
    data: str
    expect: str = ""
    views: str = ""
    first: str = ""
    differs: str = ""
    measured: str = "not measured here"

    def commands(self, name: str) -> tuple[str, ...]:
        """What to type for training on eight GPUs and for the test."""
        if self.data not in VIDEOS:
            return (f"nonlocalnet train DATA --recipe {name} -o runs/{name}",)
        start = f" --pretrained runs/{self.first}" if self.first else ""
        run = f"torchrun --nproc-per-node 8 -m nonlocalnet train TRAIN --val VAL --recipe {name}"
        test = f"nonlocalnet test runs/{name} VAL --views {self.views}"
        return f"{run}{start} -o runs/{name}", test

    def operations(self, multiply_adds: int) -> float:
        """Floating-point operations of the training: 2 a multiply-add, thrice the forward pass."""
        return 6.0 * multiply_adds * VIDEOS.get(self.data, 0) * (self.recipe.epochs or 0)


# The paper's training (section 4 and video-nonlocal-net): 400,000 steps of 64 clips from ImageNet.
_PAPER = Recipe(
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
_8X8 = {"preset": "caffe2-8x8", "frames": 8, "stride": 8}
# Two clips on each of eight GPUs, norms frozen, blocks without a norm, the same number of steps.
_LONG: dict[str, Any] = {
    "pretrained": None,
    "pretrained_blocks": False,
    "freeze_norm": True,
    "precise_norm": 0,
    "epochs": 27,  # 400,000 steps of 16
    "accumulate_to": 16,
    "lr": 0.0025,
}
_TORCHVISION = "it starts from torchvision's ImageNet weights and colours, not from Caffe2's"
_VNN = "video-nonlocal-net's model zoo, on its own copy of Kinetics"


def _zoo(name: str, changes: dict[str, Any], top1: float, top5: float, **more: str) -> Protocol:
    return Protocol(
        f"video-nonlocal-net's {name}",
        replace(_PAPER, **changes),
        "Kinetics-400",
        f"{top1} % top-1, {top5} % top-5 ({_VNN})",
        "10x3",
        differs=more.pop("differs", _TORCHVISION),
        **more,
    )


_TABLE2 = replace(_PAPER, model="c2d_resnet50", non_local=0, head="7x7-softmax", crops=0)


def _table(name: str, about: str, changes: dict[str, Any], top1: float, top5: float) -> Protocol:
    """A row of the paper's Table 2: ResNet-50 and 32 frames where not said otherwise."""
    expect = f"{top1} % top-1, {top5} % top-5 (paper, Table 2{name})"
    recipe = replace(_TABLE2, **changes)
    return Protocol(about, recipe, "Kinetics-400", expect, "10xwhole", differs=_TORCHVISION)


def _longer(of: str, about: str, changes: dict[str, Any], top1: float, top5: float) -> Protocol:
    """A row of Table 2g: 128 frames, starting from the network of 32."""
    long = {**_LONG, "pretrained_blocks": True, "frames": 128, "stride": 1}
    row = _table("g", f"{about}, 128 frames", {**long, **changes}, top1, top5)
    return replace(row, first=f"table2_{of}", differs="")


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

# TSM (mit-han-lab): its optimiser, crops and rates of head and biases.
_TSM = Recipe(
    model="tsm_resnet50",
    non_local=0,
    pretrained="imagenet",
    dropout=0.5,
    crop=224,
    short_side=256,
    test_crop=224,
    cropping="tsn",
    flip=True,
    colours="imagenet",
    epochs=50,
    accumulate_to=128,
    lr=0.02,
    head_lr=5.0,
    bias_lr=2.0,
    bias_decay=False,
    nesterov=False,
    clip_grad=20.0,
    schedule="steps",
    milestones=(0.4, 0.8),
    warmup=0.0,
    class_weights=False,
)
_DENSE: dict[str, Any] = {
    "sampling": "dense",
    "frames": 8,
    "stride": 8,
    "window": "full",
    "starts": "floor",
    "beyond": "wrap",
    "epochs": 100,
    "test_crop": 256,
}
_SOMETHING: dict[str, Any] = {"accumulate_to": 64, "lr": 0.01, "weight_decay": 5e-4, "flip": False}
_MIT = "mit-han-lab's README"
_NORMS = (
    "its norms' gains and biases keep the norms' own rule (no decay), and the head starts from"
    " N(0, 0.01^2)"
)

# Several labels a video: each class by its own sigmoid.
_CHARADES = replace(
    _PAPER,
    model="i3d_resnet101",
    loss="bce",
    head="7x7-sigmoid",
    pretrained=None,
    freeze_norm=True,
    precise_norm=0,
    clips=10,
    crops=3,
)

PROTOCOLS: dict[str, Protocol] = {
    "folder": Protocol(
        "a folder or list of your own videos; everything is derived from them",
        Recipe(),
        "your own",
        "nothing is promised: it depends on the videos",
    ),
    "reunion": Protocol(
        "the demo's tiny networks on the embedded data set",
        Recipe(
            model="i3d_tiny",
            non_local=1,
            zero_init="none",  # awake, with MSRA's weights (docs/log.md)
            init="msra",
            dropout=0.0,
            frames=8,
            stride=1,
            sampling="dense",
            crop=32,
            short_side=32,
            test_crop=32,
            jitter=(32, 32),
            flip=False,  # a mirrored clip moves the other way
            colours="paper",
            epochs=8,
            accumulate_to=32,
            optimizer="adamw",
            lr=3e-3,
            schedule="one_cycle",
            warmup=0.0,
            class_weights=False,
            precision="fp32",
        ),
        "reunion",
        "1.000 of 500 test clips, seeds 0, 1 and 2",
        measured="measured here: python benchmarks/reunion.py",
    ),
    "kinetics_32x2": _zoo("i3d_nonlocal_32x2", {"preset": "caffe2-32x2"}, 74.9, 91.6),
    "kinetics_8x8": _zoo("i3d_nonlocal_8x8", _8X8, 74.7, 91.6),
    "kinetics_32x2_c2d": _zoo(
        "c2d_nonlocal_32x2", {"preset": "caffe2-32x2", "model": "c2d_resnet50"}, 73.9, 91.0
    ),
    "kinetics_8x8_c2d": _zoo("c2d_nonlocal_8x8", {**_8X8, "model": "c2d_resnet50"}, 74.4, 91.4),
    "kinetics_32x2_i3d": _zoo(
        "i3d_baseline_32x2", {"preset": "caffe2-32x2", "non_local": 0}, 73.6, 90.8
    ),
    "kinetics_8x8_i3d": _zoo("i3d_baseline_8x8", {**_8X8, "non_local": 0}, 73.4, 90.9),
    "kinetics_128x1": _zoo(
        "i3d_nonlocal_128x1",
        {**_LONG, "preset": "caffe2-128x1-affine", "frames": 128, "stride": 1},
        76.5,
        92.7,
        first="kinetics_32x2_i3d",
        differs="it starts from the network without blocks, as the code does; the paper says from"
        " the corresponding one of 32 frames, which is --pretrained-blocks",
    ),
    "kinetics_32x4": _zoo(
        "i3d_nonlocal_32x4",
        {**_LONG, "preset": "caffe2-32x4-affine", "frames": 32, "stride": 4},
        76.5,
        92.6,
        first="kinetics_8x8_i3d",
    ),
    "kinetics_8x8_scratch": Protocol(
        "PySlowFast's I3D_NLN_8x8_R50, from random weights",
        replace(
            _PAPER,
            preset="slowfast",
            pretrained=None,
            frames=8,
            stride=8,
            colours="paper",
            epochs=196,  # at a learning rate of 0.1, which follows from the 64 clips
            schedule="cosine",
            warmup=34.0,
            warmup_from=0.1,
        ),
        "Kinetics-400",
        "74.0 % top-1, 91.1 % top-5 (PySlowFast's model zoo)",
        "10x3",
    ),
    "kinetics_32x2_mmaction": Protocol(
        "MMAction2's I3D with embedded Gaussian blocks",
        replace(
            _PAPER,
            preset="mmaction-i3d",
            cropping="mmaction",
            precise_norm=0,
            epochs=100,
            milestones=(0.4, 0.8),
            nesterov=False,
            clip_grad=40.0,
        ),
        "Kinetics-400",
        "74.73 % top-1, 91.80 % top-5 (MMAction2's README)",
        "10x3",
    ),
    **{f"table2_{name}": _table(*row) for name, row in _ABLATIONS.items()},
    **{f"table2_{name}_128": _longer(name, *row) for name, row in _LONGER.items()},
    "tsm_kinetics": Protocol(
        "TSM, 8 segments", _TSM, "Kinetics-400", f"71.2 % top-1 ({_MIT})", "1x1", differs=_NORMS
    ),
    "tsm_kinetics_dense": Protocol(
        "TSM, 8 frames of 64",
        replace(_TSM, **_DENSE),
        "Kinetics-400",
        f"74.1 % top-1 ({_MIT})",
        "10x3",
        differs=_NORMS,
    ),
    "tsm_kinetics_dense_nl": Protocol(
        "TSM, 8 frames of 64, five non-local blocks",
        replace(_TSM, **_DENSE, preset="tsm", non_local="tsm"),
        "Kinetics-400",
        f"75.6 % top-1 ({_MIT})",
        "10x3",
        differs=_NORMS,
    ),
    "tsm_something_v1": Protocol(
        "TSM, 8 segments",
        replace(_TSM, **_SOMETHING),
        "Something-Something v1",
        f"45.6 % top-1 ({_MIT})",
        "1x1",
        differs=_NORMS,
    ),
    "tsm_something_v2": Protocol(
        "TSM, 8 segments, two clips of three crops of 256",
        replace(_TSM, **_SOMETHING, test_crop=256),
        "Something-Something v2",
        f"61.2 % top-1 ({_MIT})",
        "2x3",
        differs=_NORMS,
    ),
    "charades": Protocol(
        "the paper's NL I3D ResNet-101 on Charades, 128 frames, 288 pixels",
        replace(
            _CHARADES,
            frames=128,
            stride=1,
            crop=288,
            jitter=(330, 412),  # 256 and 320, times 288 / 224
            short_side=320,
            test_crop=320,
            epochs=205,  # 200,000 steps of 8
            accumulate_to=8,
            lr=0.00125,
            milestones=(75 / 200, 150 / 200),
            aggregate="max",
        ),
        "Charades",
        "37.5 % mAP on val after training on train (paper, Table 4)",
        "10x3",
        first="table2_i3d_r101_5_128",
        differs="the paper does not say how many views it tests nor how it joins them: ten clips,"
        " three crops and the maximum are PySlowFast's",
    ),
    "charades_lfb": Protocol(
        "video-long-term-feature-banks' NL I3D ResNet-101 on Charades, 32 frames",
        replace(
            _CHARADES,
            preset="lfb",
            pretrained="lfb-i3d-nl-32x4-r101",
            frames=32,
            stride=4,
            dropout=0.3,
            epochs=49,  # 24,000 steps of 16
            accumulate_to=16,
            lr=0.02,
            milestones=(20 / 24,),
            weight_decay=1.25e-5,
        ),
        "Charades",
        "40.4 % mAP on val (video-long-term-feature-banks, charades_r101_baseline)",
        "10x3",
        differs="res5 has spatial stride 1 there and 2 here",
    ),
    **{
        name.lower(): Protocol(
            f"TSM from Kinetics on {name}, split 1",
            replace(_TSM, pretrained=None, lr=0.001, accumulate_to=64, epochs=25, dropout=0.8),
            name,
            "no published figure of this very split is known to us",
            "1x1",
            first="tsm_kinetics",
            differs=_NORMS,
        )
        for name in ("UCF101", "HMDB51")
    },
}

RECIPES: dict[str, Recipe] = {name: protocol.recipe for name, protocol in PROTOCOLS.items()}

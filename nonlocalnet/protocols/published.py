"""The recipes by name: of each codebase, and what starts from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..recipes import Recipe
from .paper import LONG, PAPER, TABLE2, TORCHVISION
from .protocol import Protocol

_8X8 = {"preset": "caffe2-8x8", "frames": 8, "stride": 8}
_VNN = "video-nonlocal-net's model zoo, on its own copy of Kinetics"
_WITHOUT_BLOCKS = (
    "from the paper, which starts from the network of fewer frames with its blocks"
    " (--pretrained-blocks); this starts from the one without, as the code does"
)


def _zoo(name: str, changes: dict[str, Any], top1: float, top5: float, **more: str) -> Protocol:
    return Protocol(
        f"video-nonlocal-net's {name}",
        replace(PAPER, **changes),
        "Kinetics-400",
        f"{top1} % top-1, {top5} % top-5 ({_VNN})",
        "10x3",
        differs=more.pop("differs", TORCHVISION),
        **more,
    )


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
    PAPER,
    model="i3d_resnet101",
    loss="bce",
    head="7x7-sigmoid",
    pretrained=None,
    freeze_norm=True,
    precise_norm=0,
    clips=10,
    crops=3,
)

_REUNION = Recipe(
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
        _REUNION,
        "reunion",
        "1.000 of 500 test clips, seeds 0, 1 and 2",
        measured="measured here: python benchmarks/reunion.py",
    ),
    "reunion_online": Protocol(
        "a tiny online TSM with a causal block on the embedded data set",
        # three of the eight frames have seen both discs, which takes more and smaller steps
        replace(_REUNION, model="tsm_tiny", shift="online", causal=8, epochs=16, accumulate_to=16),
        "reunion",
        "0.998 or more of 500 test clips, seeds 0, 1 and 2, frame by frame too",
        measured="measured here: python benchmarks/online.py",
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
        {**LONG, "preset": "caffe2-128x1-affine", "frames": 128, "stride": 1},
        76.5,
        92.7,
        first="kinetics_32x2_i3d",
        differs=_WITHOUT_BLOCKS,
    ),
    "kinetics_32x4": _zoo(
        "i3d_nonlocal_32x4",
        {**LONG, "preset": "caffe2-32x4-affine", "frames": 32, "stride": 4},
        76.5,
        92.6,
        first="kinetics_8x8_i3d",
        differs=_WITHOUT_BLOCKS,
    ),
    "kinetics_8x8_scratch": Protocol(
        "PySlowFast's I3D_NLN_8x8_R50, from random weights",
        replace(
            PAPER,
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
            PAPER,
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
    **TABLE2,
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
        " three crops and the maximum are PySlowFast's; the norms of the blocks learn on",
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
            colours="paper",  # those of the weights it starts from
        ),
        "Charades",
        "40.4 % mAP on val (video-long-term-feature-banks, charades_r101_baseline)",
        "10x3",
        differs="res5 has spatial stride 1 there and 2 here; its ten test clips lie in the middle"
        " of tenths of the video, these begin with them",
    ),
    **{
        name.lower(): Protocol(
            f"TSM from Kinetics on {name}, split 1",
            replace(
                _TSM,
                pretrained=None,
                freeze_later_norms=True,
                lr=0.001,
                weight_decay=5e-4,
                accumulate_to=64,
                epochs=25,
                dropout=0.8,
            ),
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

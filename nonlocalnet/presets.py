"""How each codebase builds and uses its networks, by name: facts, composed of options.

A preset says what a file of weights cannot: pooling and strides of the first layers, scale and
order of the non-local blocks, the head, which frames and colours. `create_model(preset=...)`
builds with it, and a loader of `weights` names the one a checkpoint was made for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preset:
    """One codebase's way.

    text: what it is, in a line. options: those of `create_model`. card: fields of `Card` that
    differ from its defaults. five: where 5 blocks go, a key of `Size.positions`. networks: the
    names it has weights or configurations for, its main one first.
    """

    text: str
    options: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    five: int | str = 5
    networks: tuple[str, ...] = ("i3d_resnet50", "c2d_resnet50")


# Blocks of video-nonlocal-net, PySlowFast and PyTorchVideo: keys pooled first, scores scaled.
_FACEBOOK = {"subsample": "before", "scale": "1/sqrt(d)"}
# Blocks of mmcv, AlexHex7 and TSM: keys pooled after phi and g, no scale.
_AFTER = {"subsample": "after", "scale": None}
_DOT = {"pairwise": "dot_product", "scale": None}
_IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
# Caffe2's clip j of 10 starts at j tenths of the video, and goes on from its beginning.
_CAFFE2_VIEWS = {"starts": "share", "beyond": "wrap"}
_CAFFE2 = {**_FACEBOOK, "head": "7x7-softmax"}
# Frozen constants for norms, none in the blocks, and res3's blocks see four frames at a time.
_AFFINE = {
    **_CAFFE2,
    "backbone_norm": "affine",
    "norm": "none",
    "temporal_groups": {"layer2": 4},
}
_SEGMENTS = {"frames": 8, "stride": 1, "sampling": "segments", **_IMAGENET}
_8X8 = {"frames": 8, "stride": 8}
# PySlowFast spreads the frames over a window of frames * stride at 30 a second, and starts clip j
# of 10 at j tenths of the room that is left.
_SLOWFAST_VIEWS = {**_8X8, "window": "spread", "starts": "slack", "rate": 30.0}

_SLOWFAST = {**_FACEBOOK, "stem": "slowfast", "head": "7x7-softmax"}
# MMAction2 counts the frames after the last one too, and goes on from the beginning of a short
# video. It averages softmax scores, but for the
# networks with TSN's head, which takes all frames of all clips and crops for one.
_MMACTION = {"window": "full", "beyond": "wrap", **_IMAGENET}
_MMACTION_SEGMENTS = {**_SEGMENTS, "beyond": "wrap", "clips": 1, "aggregate": "softmax"}
_MMACTION_I3D = {**_AFTER, "stem": "mmaction-i3d", "out_bias": False}
_MMACTION_TSM = {**_AFTER, "out_bias": False}
_SLOWONLY = {**_FACEBOOK, "subsample": "after", "out_bias": False}

PRESETS: dict[str, Preset] = {
    "paper": Preset(
        "Table 1 of the paper: 32 frames, padded 3x3x3 and 3x1x1 pooling",
        networks=("i3d_resnet50", "c2d_resnet50", "i3d_resnet101", "c2d_resnet101"),
    ),
    "caffe2-8x8": Preset(
        "video-nonlocal-net, 8 frames, stride 8: unpadded 1x3x3 and 2x1x1 pooling",
        {**_CAFFE2, "stem": "caffe2-8"},
        {**_8X8, **_CAFFE2_VIEWS},
    ),
    "caffe2-32x2": Preset(
        "video-nonlocal-net, 32 frames, stride 2: conv1 and an unpadded 2x3x3 pooling halve time",
        {**_CAFFE2, "stem": "caffe2-32"},
        _CAFFE2_VIEWS,
    ),
    "caffe2-32x4-affine": Preset(
        "video-nonlocal-net, 32 frames, stride 4: as caffe2-8x8, constants for norms, res3's"
        " blocks in groups of 4 frames",
        {**_AFFINE, "stem": "caffe2-8"},
        {"frames": 32, "stride": 4, **_CAFFE2_VIEWS},
        networks=("i3d_resnet50",),
    ),
    "caffe2-128x1-affine": Preset(
        "video-nonlocal-net, 128 frames, stride 1: as caffe2-32x2, constants for norms, res3's"
        " blocks in groups of 4 frames",
        {**_AFFINE, "stem": "caffe2-32"},
        {"frames": 128, "stride": 1, **_CAFFE2_VIEWS},
        networks=("i3d_resnet50",),
    ),
    "lfb": Preset(
        "video-long-term-feature-banks, 32 frames, stride 4: padded 1x3x3 pooling, res3's blocks"
        " in groups of 4 frames; norms as the file has them",
        {**_AFFINE, "norm": "frozen", "stem": "slowfast"},
        {"frames": 32, "stride": 4, **_CAFFE2_VIEWS},
        networks=("i3d_resnet50", "i3d_resnet101"),
    ),
    "slowfast": Preset(
        "PySlowFast, 8 frames, stride 8: padded 1x3x3 and 2x1x1 pooling",
        _SLOWFAST,
        _SLOWFAST_VIEWS,
        "slowfast",
        networks=("i3d_resnet50", "c2d_resnet50", "i3d_resnet101"),
    ),
    "slowfast-dot": Preset(
        "PySlowFast with dot-product blocks",
        {**_SLOWFAST, **_DOT},
        _SLOWFAST_VIEWS,
        "slowfast",
        networks=("i3d_resnet50",),
    ),
    "slowfast-nopool": Preset(
        "PySlowFast without the pooling after res2: 8 frames to the end",
        {**_SLOWFAST, "stem": "image"},
        _SLOWFAST_VIEWS,
        "slowfast",
        networks=("c2d_resnet50",),
    ),
    "slowfast-nopool-dot": Preset(
        "PySlowFast without the pooling after res2, with dot-product blocks (its SLOW_NLN)",
        {**_SLOWFAST, **_DOT, "stem": "image"},
        _SLOWFAST_VIEWS,
        "slowfast",
        networks=("slowonly_resnet50",),
    ),
    "pytorchvideo": Preset(
        "PyTorchVideo, 8 frames, stride 8: PySlowFast's layers, logits averaged over places",
        {**_SLOWFAST, "head": "7x7-logits"},
        _SLOWFAST_VIEWS,
    ),
    "mmaction-i3d": Preset(
        "MMAction2's I3D, 32 frames, stride 2: pooling drops every second frame, keys pooled last",
        _MMACTION_I3D,
        _MMACTION,
        networks=("i3d_resnet50",),
    ),
    "mmaction-i3d-dot": Preset(
        "MMAction2's I3D with dot-product blocks",
        {**_MMACTION_I3D, **_DOT},
        _MMACTION,
        networks=("i3d_resnet50",),
    ),
    "mmaction-i3d-heavy": Preset(
        "MMAction2's I3D with every block inflated and all frames kept by the first layers",
        {**_MMACTION_I3D, "stem": "slowfast", "inflate_blocks": "all"},
        {"frames": 32, "stride": 2, **_MMACTION},
        networks=("i3d_resnet50",),
    ),
    "mmaction-c2d": Preset(
        "MMAction2's C2D, 8 frames, stride 8: unpadded 1x3x3 and 2x1x1 pooling",
        {**_MMACTION_I3D, "stem": "mmaction-c2d"},
        {**_8X8, **_MMACTION},
        networks=("c2d_resnet50",),
    ),
    "mmaction-c2d-nopool": Preset(
        "MMAction2's C2D without pooling in time: an image network, its frames averaged",
        {**_MMACTION_I3D, "stem": "image"},
        {**_8X8, **_MMACTION, "aggregate": "logits"},
        networks=("c2d_resnet50", "c2d_resnet101"),
    ),
    "mmaction-tsm": Preset(
        "MMAction2's TSM, 8 segments",
        _MMACTION_TSM,
        _MMACTION_SEGMENTS,
        "tsm",
        networks=("tsm_resnet50", "tsm_resnet101", "tsm_mobilenetv2"),
    ),
    "mmaction-tsm-dot": Preset(
        "MMAction2's TSM with dot-product blocks",
        {**_MMACTION_TSM, **_DOT},
        _MMACTION_SEGMENTS,
        "tsm",
        networks=("tsm_resnet50",),
    ),
    "mmaction-slowonly": Preset(
        "MMAction2's SlowOnly, 4 frames, stride 16: no pooling in time, res4 and res5 inflated",
        _SLOWONLY,
        {"frames": 4, "stride": 16, **_MMACTION},
        "tsm",
        networks=("slowonly_resnet50", "slowonly_resnet101"),
    ),
    "mmaction-slowonly-dot": Preset(
        "MMAction2's SlowOnly with dot-product blocks",
        {**_SLOWONLY, **_DOT},
        {"frames": 4, "stride": 16, **_MMACTION},
        "tsm",
        networks=("slowonly_resnet50",),
    ),
    "tsm": Preset(
        "mit-han-lab's TSM, 8 segments, logits averaged",
        _AFTER,
        {**_SEGMENTS, "clips": 2, "aggregate": "logits"},
        "tsm",
        networks=("tsm_resnet50", "tsm_resnet101", "tsm_mobilenetv2"),
    ),
    "tsn": Preset(
        "mit-han-lab's TSN, 8 segments: TSM without shifts",
        {**_AFTER, "stem": "image"},
        {**_SEGMENTS, "clips": 2, "aggregate": "logits"},
        "tsm",
        networks=("c2d_resnet50", "c2d_resnet101"),
    ),
    "tsm-online": Preset(
        "mit-han-lab's online TSM: a frame sees the past alone",
        {**_AFTER, "shift": "past"},
        {**_SEGMENTS, "clips": 2, "aggregate": "logits"},
        "tsm",
        networks=("tsm_mobilenetv2",),
    ),
    "alexhex7": Preset(
        "AlexHex7's network for digits: keys pooled last, no scale", _AFTER, networks=("digits",)
    ),
    "alexhex7-dot": Preset(
        "AlexHex7's network for digits with dot-product blocks",
        {**_AFTER, **_DOT},
        networks=("digits",),
    ),
}

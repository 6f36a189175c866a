"""MMAction2's models of these families, as its model zoo lists them; `published` makes rows of it.

Figures and addresses are those of README.md in each folder of configs/recognition (version 1.2.0;
the old models: branch 0.x); inputs and views those of the configurations it names. Where README.md
and the metafile.yml beside it differ (SlowOnly, by up to 0.4 %), the figure is README.md's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# our name, preset, top-1, top-5, their views, file name without suffix (or folder/file name); the
# last 8 letters of that begin the file's sha256
Row = tuple[str, str, float, float | None, str, str]


@dataclass(frozen=True)
class Group:
    """Models with one input: the folder of their README.md, class list, card, rows."""

    folder: str
    classes: str
    card: dict[str, Any]
    rows: tuple[Row, ...]


FULL = "10 clips x 3 crops of 256"
SMALL = "10 clips x 3 crops of 224"
THREE = "1 clip x 3 crops of 256"
TEN = "1 clip x 10 crops of 224, 5 mirrored"
DENSE_TEN = "10 clips x 10 crops of 224, 5 mirrored"
TWICE = "2 clips x 3 crops of 256"

DENSE: dict[str, Any] = {
    "sampling": "dense", "beyond": "wrap", "short_side": 256, "test_crop": 256, "clips": 10,
    "crops": 3,
}  # fmt: skip
# ten crops are no view rule here: where they were taken, the card has MobileNetV2's three of 256
SEGMENTS = DENSE | {"sampling": "segments", "clips": 1}
SOMETHING = SEGMENTS | {"clips": 2, "flip": False}

# fmt: off
GROUPS = (
    Group("i3d", "kinetics400", DENSE | {"frames": 32, "stride": 2}, (
        ("mmaction-i3d-32x2-r50", "mmaction-i3d", 73.47, 91.27, FULL,
         "i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb_20220812-e213c223"),
        ("mmaction-i3d-dense-32x2-r50", "mmaction-i3d", 73.77, 91.35, FULL,
         "i3d_imagenet-pretrained-r50_8xb8-dense-32x2x1-100e_kinetics400-rgb_20220812-9f46003f"),
        ("mmaction-i3d-heavy-32x2-r50", "mmaction-i3d-heavy", 76.21, 92.48, FULL,
         "i3d_imagenet-pretrained-r50-heavy_8xb8-32x2x1-100e_kinetics400-rgb_20220812-ed501b31"),
        ("mmaction-i3d-nl-32x2-r50", "mmaction-i3d", 74.73, 91.80, FULL,
         "i3d_imagenet-pretrained-r50-nl-embedded-gaussian_8xb8-32x2x1-100e_kinetics400-rgb"
         "_20220812-afd8f562"),
        ("mmaction-i3d-nl-dot-32x2-r50", "mmaction-i3d-dot", 74.80, 92.07, FULL,
         "i3d_imagenet-pretrained-r50-nl-dot-product_8xb8-32x2x1-100e_kinetics400-rgb"
         "_20220812-8e1f2148"),
        ("mmaction-i3d-nl-gaussian-32x2-r50", "mmaction-i3d", 73.97, 91.33, FULL,
         "i3d_imagenet-pretrained-r50-nl-gaussian_8xb8-32x2x1-100e_kinetics400-rgb"
         "_20220812-0c5cbf5a"),
    )),
    Group("c2d", "kinetics400",
          DENSE | {"frames": 8, "stride": 8, "short_side": 224, "test_crop": 224}, (
        ("mmaction-c2d-nopool-8x8-r50", "mmaction-c2d-nopool", 73.44, 91.00, SMALL,
         "c2d_r50-in1k-pre-nopool_8xb32-8x8x1-100e_kinetics400-rgb_20221027-e0227b22"),
        ("mmaction-c2d-nopool-8x8-r101", "mmaction-c2d-nopool", 74.97, 91.77, SMALL,
         "c2d_r101-in1k-pre-nopool_8xb32-8x8x1-100e_kinetics400-rgb_20221027-557bd8bc"),
        ("mmaction-c2d-8x8-r50", "mmaction-c2d", 73.89, 91.21, SMALL,
         "c2d_r50-in1k-pre_8xb32-8x8x1-100e_kinetics400-rgb_20221027-3ca304fa"),
    )),
    Group("c2d", "kinetics400",
          DENSE | {"frames": 16, "stride": 4, "short_side": 224, "test_crop": 224}, (
        ("mmaction-c2d-16x4-r50", "mmaction-c2d", 74.97, 91.91, SMALL,
         "c2d_r50-in1k-pre_8xb32-16x4x1-100e_kinetics400-rgb_20221027-5f382a43"),
    )),
    Group("slowonly", "kinetics400", DENSE | {"frames": 4, "stride": 16}, (
        ("mmaction-slowonly-scratch-4x16-r50", "mmaction-slowonly", 72.97, 90.88, FULL,
         "slowonly_r50_8xb16-4x16x1-256e_kinetics400-rgb/"
         "slowonly_r50_4x16x1_256e_8xb16_kinetics400-rgb_20220901-f6a40d08"),
        ("mmaction-slowonly-4x16-r50", "mmaction-slowonly", 75.12, 91.72, FULL,
         "slowonly_imagenet-pretrained-r50_8xb16-4x16x1-steplr-150e_kinetics400-rgb"
         "_20220901-e7b65fad"),
        ("mmaction-slowonly-nl-4x16-r50", "mmaction-slowonly", 75.07, 91.69, FULL,
         "slowonly_r50-in1k-pre-nl-embedded-gaussian_8xb16-4x16x1-steplr-150e_kinetics400-rgb"
         "_20220901-cf739c75"),
    )),
    Group("slowonly", "kinetics400", DENSE | {"frames": 8, "stride": 8}, (
        ("mmaction-slowonly-scratch-8x8-r50", "mmaction-slowonly", 75.15, 92.11, FULL,
         "slowonly_r50_8xb16-8x8x1-256e_kinetics400-rgb_20220901-2132fc87"),
        ("mmaction-slowonly-scratch-8x8-r101", "mmaction-slowonly", 76.59, 92.80, FULL,
         "slowonly_r101_8xb16-8x8x1-196e_kinetics400-rgb_20220901-e6281431"),
        ("mmaction-slowonly-8x8-r50", "mmaction-slowonly", 76.45, 92.55, FULL,
         "slowonly_imagenet-pretrained-r50_8xb16-8x8x1-steplr-150e_kinetics400-rgb"
         "_20220901-df42dc84"),
        ("mmaction-slowonly-nl-8x8-r50", "mmaction-slowonly", 76.65, 92.47, FULL,
         "slowonly_r50-in1k-pre-nl-embedded-gaussian_8xb16-8x8x1-steplr-150e_kinetics400-rgb"
         "_20220901-df42dc84"),
    )),
    Group("tsm", "kinetics400", SEGMENTS | {"frames": 8}, (
        ("mmaction-tsm-8f-r50", "mmaction-tsm", 73.18, 90.56, TEN,
         "tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb_20220831-64d69186"),
        ("mmaction-tsm-8f-100e-r50", "mmaction-tsm", 73.22, 90.22, TEN,
         "tsm_imagenet-pretrained-r50_8xb16-1x1x8-100e_kinetics400-rgb_20220831-a6db1e5d"),
        ("mmaction-tsm-nl-8f-r50", "mmaction-tsm", 74.34, 91.23, TEN,
         "tsm_imagenet-pretrained-r50-nl-embedded-gaussian_8xb16-1x1x8-50e_kinetics400-rgb"
         "_20220831-35eddb57"),
        ("mmaction-tsm-nl-dot-8f-r50", "mmaction-tsm-dot", 74.49, 91.15, TEN,
         "tsm_imagenet-pretrained-r50-nl-dot-product_8xb16-1x1x8-50e_kinetics400-rgb"
         "_20220831-108bfde5"),
        ("mmaction-tsm-nl-gaussian-8f-r50", "mmaction-tsm", 73.66, 90.99, TEN,
         "tsm_imagenet-pretrained-r50-nl-gaussian_8xb16-1x1x8-50e_kinetics400-rgb"
         "_20220831-7e54dacf"),
        ("mmaction-tsm-8f-mobilenetv2", "mmaction-tsm", 68.71, 88.32, THREE,
         "tsm_imagenet-pretrained-mobilenetv2_8xb16-1x1x8-100e_kinetics400-rgb"
         "_20230414-401127fd"),
    )),
    Group("tsm", "kinetics400", SEGMENTS | {"frames": 16}, (
        ("mmaction-tsm-16f-r50", "mmaction-tsm", 75.12, 91.55, TEN,
         "tsm_imagenet-pretrained-r50_8xb16-1x1x16-50e_kinetics400-rgb_20220831-042b1748"),
    )),
    Group("tsm", "kinetics400", DENSE | {"frames": 8, "stride": 8}, (
        ("mmaction-tsm-dense-8x8-r50", "mmaction-tsm", 73.38, 90.78, DENSE_TEN,
         "tsm_imagenet-pretrained-r50_8xb16-dense-1x1x8-50e_kinetics400-rgb_20220831-f55d3c2b"),
    )),
    Group("tsm", "sthv2", SOMETHING | {"frames": 8}, (
        ("mmaction-tsm-sthv2-8f-r50", "mmaction-tsm", 62.72, 87.70, TWICE,
         "tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_sthv2-rgb_20230317-be0fc26e"),
        ("mmaction-tsm-sthv2-8f-r101", "mmaction-tsm", 63.70, 88.28, TWICE,
         "tsm_imagenet-pretrained-r101_8xb16-1x1x8-50e_sthv2-rgb_20230320-efcc0d1b"),
    )),
    Group("tsm", "sthv2", SOMETHING | {"frames": 16}, (
        ("mmaction-tsm-sthv2-16f-r50", "mmaction-tsm", 64.16, 88.61, TWICE,
         "tsm_imagenet-pretrained-r50_8xb16-1x1x16-50e_sthv2-rgb_20230317-ec6696ad"),
    )),
)

# branch 0.x, whose files lie elsewhere; its README.md gives "efficient / accurate" figures, these
# are the accurate ones
OLD_GROUPS = (
    Group("tsm", "sthv1-released", SOMETHING | {"frames": 8}, (
        ("mmaction-tsm-sthv1-8f-r50", "mmaction-tsm", 47.70, 76.12, TWICE,
         "tsm_r50_1x1x8_50e_sthv1_rgb_20210203-01dce462"),
        ("mmaction-tsm-sthv1-8f-r101", "mmaction-tsm", 48.59, 77.10, TWICE,
         "tsm_r101_1x1x8_50e_sthv1_rgb_20211202-49970a5b"),
    )),
    Group("tsm", "sthv1-released", SOMETHING | {"frames": 16}, (
        ("mmaction-tsm-sthv1-16f-r50", "mmaction-tsm", 49.03, 77.83, TWICE,
         "tsm_r50_1x1x16_50e_sthv1_rgb_20211202-b922e5d2"),
    )),
    Group("tsm", "jester-released", SOMETHING | {"frames": 8}, (
        ("mmaction-tsm-jester-8f-r50", "mmaction-tsm", 97.2, None, TWICE,
         "tsm_r50_1x1x8_50e_jester_rgb-c799267e"),
    )),
)
# fmt: on

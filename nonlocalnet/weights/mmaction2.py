"""MMAction2's torch files (mmengine): I3D, C2D, SlowOnly and TSM, with and without blocks.

Its C2D with and without pooling in time, and blocks of embedded Gaussian and of dot product, have
equal names; the settings in a file's `meta` tell them apart, where it has any. `block.` appears
where TSM wraps a residual block to add a non-local one, `.net` where it shifts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from ..mobilenet import STAGES
from .family import Family, has_dot, setting
from .names import Names

# mmcv's block: ".0" where a pooling follows
BLOCK = [
    *((f"{part}.0.conv.{{p}}", f"{part}.{{p}}") for part in ("g", "phi")),
    *((f"{part}.conv.{{p}}", f"{part}.{{p}}") for part in ("g", "phi", "theta")),
    ("conv_out.conv.{p}", "out.{p}"),
    ("conv_out.bn.{p}", "norm.{p}"),
    ("concat_project.conv.weight", "w_f"),
]
_HEAD = ("cls_head.fc_cls.{p}", "fc.{p}")


def _resnet() -> list[tuple[str, str]]:
    rows = [("backbone.conv1.conv.{p}", "conv1.{p}"), ("backbone.conv1.bn.{p}", "bn1.{p}"), _HEAD]
    block = "layer{L}.{i}"
    for wrapped in (f"backbone.{block}.", f"backbone.{block}.block."):
        rows += [
            (wrapped + "conv{c}.conv.{p}", block + ".conv{c}.{p}"),
            (wrapped + "conv{c}.conv.net.{p}", block + ".conv{c}.{p}"),
            (wrapped + "conv{c}.bn.{p}", block + ".bn{c}.{p}"),
            (wrapped + "downsample.conv.{p}", block + ".downsample.0.{p}"),
            (wrapped + "downsample.bn.{p}", block + ".downsample.1.{p}"),
        ]
    theirs, ours = f"backbone.{block}.non_local_block.", block + ".non_local."
    return rows + [(theirs + a, ours + b) for a, b in BLOCK]


def _mobilenet() -> list[tuple[str, str]]:
    rows = [("backbone.conv1.conv.{p}", "features.0.0.{p}")]
    rows += [("backbone.conv1.bn.{p}", "features.0.1.{p}")]
    index = 0
    for stage, (expansion, _, depth, _) in enumerate(STAGES, 1):
        for i in range(depth):
            index += 1
            theirs, ours = f"backbone.layer{stage}.{i}.conv.", f"features.{index}.conv."
            last = 1 if expansion == 1 else 2
            for j in range(last):
                for wrapped in (f"{theirs}{j}.", f"{theirs}{j}.net."):
                    rows.append((wrapped + "conv.{p}", f"{ours}{j}.0.{{p}}"))
                    rows.append((wrapped + "bn.{p}", f"{ours}{j}.1.{{p}}"))
            rows.append((f"{theirs}{last}.conv.{{p}}", f"{ours}{last}.{{p}}"))
            rows.append((f"{theirs}{last}.bn.{{p}}", f"{ours}{last + 1}.{{p}}"))
    rows.append(("backbone.conv2.conv.{p}", f"features.{index + 1}.0.{{p}}"))
    rows.append(("backbone.conv2.bn.{p}", f"features.{index + 1}.1.{{p}}"))
    return [*rows, ("cls_head.fc_cls.{p}", "classifier.1.{p}")]


def _presets(told: Mapping[str, Any], notes: Mapping[str, str]) -> tuple[str, ...]:
    text = notes.get("meta.cfg", "").replace('"', "'")
    kind = told["name"].partition("_")[0]
    usual = "1" if told.get("inflate_blocks") == "all" else "2"
    for key in ("conv1_stride_t", "pool1_stride_t"):
        if kind == "i3d" and setting(text, key) not in (None, usual):
            raise UserError(f"its settings have {key}={setting(text, key)}, which no preset has")
    if kind == "c2d":
        if "type='C2D'" in text:
            return ("mmaction-c2d",)
        nopool = ("mmaction-c2d-nopool",)
        return nopool if "type='ResNet'" in text else ("mmaction-c2d", *nopool)
    name = f"mmaction-{kind}"
    if told.get("inflate_blocks") == "all":
        name += "-heavy"
    if not has_dot(told):
        return (name,)
    if name.endswith("-heavy"):
        raise UserError("heavy I3D with blocks of theta and phi has no preset: none was published")
    dot = f"mmaction-{kind}-dot"
    if "mode='dot_product'" in text:
        return (dot,)
    return (name,) if "mode='embedded_gaussian'" in text else (name, dot)


def _card(notes: Mapping[str, str]) -> dict[str, Any]:
    """The clip that the settings' SampleFrames names; one frame of each of `num_clips` for TSM."""
    text = notes.get("meta.cfg", "")
    names = ("clip_len", "frame_interval", "num_clips")
    said = [setting(text, name) or "" for name in names]
    length, stride, clips = (int(word) if word.isdecimal() else 0 for word in said)
    if "DenseSampleFrames" in text and length == 1 and clips:  # out of a window of 64 frames
        return {"frames": clips, "stride": max(1, 64 // clips), "sampling": "dense"}
    if length > 1 and stride:
        return {"frames": length, "stride": stride, "sampling": "dense"}
    return {"frames": clips} if length == 1 and clips > 1 else {}


def _options(notes: Mapping[str, str]) -> dict[str, Any]:
    """What the settings change in the network and in no tensor."""
    text = notes.get("meta.cfg", "").replace('"', "'")
    if (parts := setting(text, "shift_div")) not in (None, "8"):
        raise UserError(f"its settings have shift_div={parts}; only 8 is read here")
    options: dict[str, Any] = {}
    if setting(text, "style") == "caffe":
        options["stride_on"] = "1x1"
    scaled = setting(text, "use_scale")
    if scaled is not None and "mode='embedded_gaussian'" in text:
        options["scale"] = "1/sqrt(d)" if scaled == "True" else None
    return options


FAMILY = Family(
    "MMAction2",
    Names(_resnet()),
    _presets,
    shift=".net.",
    card=_card,
    options=_options,
    pooled=".g.0.",
)
MOBILENET = Family(
    "MMAction2 (MobileNetV2)",
    Names(_mobilenet()),
    _presets,
    shift=".net.",
    card=_card,
    options=_options,
)

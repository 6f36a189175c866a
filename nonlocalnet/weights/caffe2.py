"""Caffe2 pickles: video-nonlocal-net, video-long-term-feature-banks, PySlowFast's .pkl files.

Names are those of facebookresearch/video-nonlocal-net's model builder: `_w` and `_b` of layers;
of norms `_bn_s` (gain), `_bn_b`, `_bn_rm` (mean) and `_bn_riv`, which holds the variance and not
its inverse. A file does not tell how many frames its network takes or how its pooling is padded:
three codebases write these names for three geometries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .family import Family
from .names import Names

_NORM = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
_LAYER = {"w": "weight", "b": "bias"}


def _norm(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [(f"{theirs}_bn_{a}", f"{ours}.{b}") for a, b in _NORM.items()]


def _layer(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [(f"{theirs}_{a}", f"{ours}.{b}") for a, b in _LAYER.items()]


def _rows() -> list[tuple[str, str]]:
    rows = [("conv1_w", "conv1.weight"), *_norm("res_conv1", "bn1"), *_layer("pred", "fc")]
    for letter, number in zip("abc", "123", strict=True):
        theirs, block = f"res{{S}}_{{i}}_branch2{letter}", "layer{L}.{i}"
        rows.append((f"{theirs}_w", f"{block}.conv{number}.weight"))
        rows += _norm(theirs, f"{block}.bn{number}")
    rows.append(("res{S}_{i}_branch1_w", "layer{L}.{i}.downsample.0.weight"))
    rows += _norm("res{S}_{i}_branch1", "layer{L}.{i}.downsample.1")
    theirs, ours = "nonlocal_conv{S}_{i}", "layer{L}.{i}.non_local"
    for part in ("theta", "phi", "g", "out"):
        rows += _layer(f"{theirs}_{part}", f"{ours}.{part}")
    return rows + _norm(theirs, f"{ours}.norm")


def _presets(told: Mapping[str, Any], notes: Mapping[str, str]) -> tuple[str, ...]:
    if told.get("backbone_norm") == "affine":
        return ("caffe2-32x4-affine", "caffe2-128x1-affine", "lfb")
    if told["non_local"]:  # of video-long-term-feature-banks only these are published
        ours = ("caffe2-8x8", "caffe2-32x2", "lfb")
        return (*ours, "slowfast", "slowfast-dot", "slowfast-nopool", "slowfast-nopool-dot")
    return ("caffe2-8x8", "caffe2-32x2", "slowfast", "slowfast-nopool")


FAMILY = Family("video-nonlocal-net's Caffe2 names", Names(_rows()), _presets, constants=True)

"""mit-han-lab/temporal-shift-module's torch files: TSM and TSN on ResNets and MobileNetV2.

`.net` is a shifted convolution, `block.` a residual block that a
non-local one follows. The online network's file is a bare state dict without either. A file does
not tell how many segments it was trained with: any number runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..mobilenet import STAGES
from .alexhex7 import BLOCK  # which this codebase took over
from .family import Family
from .names import Names


def _resnet() -> list[tuple[str, str]]:
    rows = [("base_model.conv1.{p}", "conv1.{p}"), ("base_model.bn1.{p}", "bn1.{p}")]
    rows.append(("new_fc.{p}", "fc.{p}"))
    block = "layer{L}.{i}"
    for wrapped in (f"base_model.{block}.", f"base_model.{block}.block."):
        rows += [
            (wrapped + "conv{c}.{p}", block + ".conv{c}.{p}"),
            (wrapped + "conv{c}.net.{p}", block + ".conv{c}.{p}"),
            (wrapped + "bn{c}.{p}", block + ".bn{c}.{p}"),
            (wrapped + "downsample.0.{p}", block + ".downsample.0.{p}"),
            (wrapped + "downsample.1.{p}", block + ".downsample.1.{p}"),
        ]
    theirs, ours = f"base_model.{block}.nl.", block + ".non_local."
    return rows + [(theirs + a, ours + b) for a, b in BLOCK]


def _mobilenet(prefix: str, head: str) -> list[tuple[str, str]]:
    """Each inverted residual is one flat list: convolution, norm, ReLU6, and so on."""
    rows = [(head + ".{p}", "classifier.1.{p}")]
    last = 1 + sum(depth for _, _, depth, _ in STAGES)
    for index in (0, last):
        for j in (0, 1):
            rows.append((f"{prefix}features.{index}.{j}.{{p}}", f"features.{index}.{j}.{{p}}"))
    expanded = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
    plain = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
    for index in range(1, last):
        theirs, ours = f"{prefix}features.{index}.conv.", f"features.{index}.conv."
        for a, b in (plain if index == 1 else expanded).items():
            rows.append((f"{theirs}{a}.{{p}}", f"{ours}{b}.{{p}}"))
            rows.append((f"{theirs}{a}.net.{{p}}", f"{ours}{b}.{{p}}"))
    return rows


def _presets(told: Mapping[str, Any], notes: Mapping[str, str]) -> tuple[str, ...]:
    return ("tsn",) if str(told["name"]).startswith("c2d") else ("tsm",)


FAMILY = Family("mit-han-lab's TSM", Names(_resnet()), _presets, shift=".net.", pooled=".nl.g.0.")
MOBILENET = Family(
    "mit-han-lab's TSM (MobileNetV2)",
    Names(_mobilenet("base_model.", "new_fc")),
    _presets,
    shift=".net.",
)
ONLINE = Family(
    "mit-han-lab's online TSM",
    Names(_mobilenet("", "classifier")),
    lambda told, notes: ("tsm-online",),
)

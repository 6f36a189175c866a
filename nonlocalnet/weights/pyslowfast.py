"""PySlowFast's torch files (.pyth), of its own networks and of those built by PyTorchVideo.

The settings that a file carries tell the pooling and the pairwise function; without them the
caller does. Its .pkl files have Caffe2's names: see `caffe2`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from . import pytorchvideo
from .family import Family, has_dot, numbers, setting
from .names import Names

# of MODEL.ARCH, those that pool in time after res2; "2d", "slow", "c2d_nopool" and others do not
POOLED = ("c2d", "i3d")
_BLOCK, _PATH = "layer{L}.{i}", "s{S}.pathway0_"
BLOCK = [
    *((f"conv_{part}.{{p}}", f"{part}.{{p}}") for part in ("theta", "phi", "g", "out")),
    ("bn.{p}", "norm.{p}"),
]
ROWS = [
    ("s1.pathway0_stem.conv.{p}", "conv1.{p}"),
    ("s1.pathway0_stem.bn.{p}", "bn1.{p}"),
    (_PATH + "res{i}.branch1.{p}", _BLOCK + ".downsample.0.{p}"),
    (_PATH + "res{i}.branch1_bn.{p}", _BLOCK + ".downsample.1.{p}"),
    (_PATH + "res{i}.branch2.a.{p}", _BLOCK + ".conv1.{p}"),
    (_PATH + "res{i}.branch2.a_bn.{p}", _BLOCK + ".bn1.{p}"),
    (_PATH + "res{i}.branch2.b.{p}", _BLOCK + ".conv2.{p}"),
    (_PATH + "res{i}.branch2.b_bn.{p}", _BLOCK + ".bn2.{p}"),
    (_PATH + "res{i}.branch2.c.{p}", _BLOCK + ".conv3.{p}"),
    (_PATH + "res{i}.branch2.c_bn.{p}", _BLOCK + ".bn3.{p}"),
    *((f"{_PATH}nonlocal{{i}}.{theirs}", f"{_BLOCK}.non_local.{ours}") for theirs, ours in BLOCK),
    ("head.projection.{p}", "fc.{p}"),
]


def _presets(told: Mapping[str, Any], notes: Mapping[str, str]) -> tuple[str, ...]:
    text = notes.get("cfg", "")
    arch = setting(text, "ARCH")
    candidates: tuple[str, ...] = ("slowfast", "slowfast-nopool")
    if arch is not None:
        candidates = ("slowfast",) if arch in POOLED else ("slowfast-nopool",)
    kind = setting(text, "INSTANTIATION") if has_dot(told) else "softmax"
    if kind == "softmax":
        return candidates
    dot = tuple(f"{name}-dot" for name in candidates)
    return dot if kind == "dot_product" else (*candidates, *dot)


def _card(notes: Mapping[str, str]) -> dict[str, Any]:
    """The clip, the colours and the scores that the settings name."""
    text = notes.get("cfg", "")
    told = {"frames": "NUM_FRAMES", "stride": "SAMPLING_RATE"}
    found = {field: setting(text, key) for field, key in told.items()}
    card: dict[str, Any] = {f: int(said) for f, said in found.items() if said and said.isdecimal()}
    if setting(text, "HEAD_ACT") == "sigmoid":
        card["activation"] = "sigmoid"
    if setting(text, "ENSEMBLE_METHOD") == "max":
        card["aggregate"] = "max"
    for field in ("mean", "std"):
        if len(colours := numbers(text, "DATA", field.upper())) == 3:
            card[field] = tuple(colours)
    return card


def _options(notes: Mapping[str, str]) -> dict[str, Any]:
    """What the settings change in the network, beside ARCH and INSTANTIATION."""
    text = notes.get("cfg", "")
    if any(n != 1 for n in numbers(text, "NONLOCAL", "GROUP")):
        raise UserError("its settings have NONLOCAL.GROUP, frames in groups, which none here has")
    pool = numbers(text, "NONLOCAL", "POOL")
    if any(pool[i : i + 3] != [1, 2, 2] for i in range(0, len(pool), 3)):
        raise UserError("its settings pool the blocks' keys otherwise than by 1x2x2: NONLOCAL.POOL")
    for key, all_four in (("SPATIAL_DILATIONS", [1, 1, 1, 1]), ("SPATIAL_STRIDES", [1, 2, 2, 2])):
        if (found := numbers(text, "RESNET", key)) not in ([], all_four):
            raise UserError(f"its settings have RESNET.{key} {found}; only {all_four} is read here")
    detection = re.search(r"^DETECTION:\n(?:[ \t].*\n)*? +ENABLE: true", text, re.MULTILINE | re.I)
    if detection:
        raise UserError(
            "its settings have DETECTION: it finds actions in places, which none here does"
        )
    on_1x1 = (setting(text, "STRIDE_1X1") or "").lower() == "true"
    options = {"stride_on": "1x1"} if on_1x1 else {}
    return options | ({"head": "7x7-sigmoid"} if setting(text, "HEAD_ACT") == "sigmoid" else {})


FAMILY = Family("PySlowFast", Names(ROWS), _presets, card=_card, options=_options)
# its own wrapper around PyTorchVideo's network: the same names behind "model."
BY_PYTORCHVIDEO = Family(
    "PySlowFast (built by PyTorchVideo)",
    Names([(f"model.{theirs}", ours) for theirs, ours in pytorchvideo.ROWS]),
    _presets,
    card=_card,
    options=_options,
)

"""What network a set of tensors belongs to, as far as names and shapes tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import UserError
from ..head import LAST
from ..resnet import Bottleneck
from ..sizes import SIZES

Found = Mapping[str, Tensor]


def architecture(found: Found, shifted: bool) -> dict[str, Any]:
    """The arguments of `create_model` that tensors under our names determine.

    What they do not (pooling, strides, scale, ...) a preset adds. Raises UserError where no size
    of ours has these stages.
    """
    told: dict[str, Any] = {}
    for head in LAST:
        if f"{head}.weight" in found:
            told["num_classes"] = found[f"{head}.weight"].shape[0]
    if "features.0.0.weight" in found:
        name = "tsm_mobilenetv2"
    elif "conv_1.0.weight" in found:
        name = "digits"
    else:
        size = _size(found)
        kind, style = _kind(found, shifted)
        name, told = f"{kind}_{size}", told | style
        width = found["conv1.weight"].shape[0] if "conv1.weight" in found else 0
        if width not in (0, SIZES[size].width):
            told["width"] = width
        statistics = any(n.endswith("running_mean") and "non_local" not in n for n in found)
        told["backbone_norm"] = "batch" if statistics else "affine"
    return {"name": name, **told, **_blocks(found)}


def _size(found: Found) -> str:
    depths: dict[str, int] = {}
    for name in found:
        if match := re.match(r"(layer\d)\.(\d+)\.conv1\.weight", name):
            stage, index = match.groups()
            depths[stage] = max(depths.get(stage, 0), int(index) + 1)
    layers = tuple(depths[stage] for stage in sorted(depths))
    deep = any(name.endswith("conv3.weight") for name in found)
    for name, size in SIZES.items():
        if layers and size.layers == layers and (size.block is Bottleneck) == deep:
            return name
    sizes = "; ".join(f"{name} {size.layers}" for name, size in SIZES.items() if size.layers)
    kind = "bottlenecks" if deep else "basic blocks"
    raise UserError(
        f"a ResNet of {kind} with stages of {layers or 'no'} blocks is no size here ({sizes})"
    )


def _kind(found: Found, shifted: bool) -> tuple[str, dict[str, Any]]:
    """C2D, I3D, SlowOnly or TSM, by the kernels that have a time extent."""
    if shifted:
        return "tsm", {}
    deep = {
        name.removesuffix(".weight")
        for name, tensor in found.items()
        if tensor.dim() == 5 and tensor.shape[2] > 1
    }
    inside = {name for name in deep if name.startswith("layer")}
    if not deep:
        return "c2d", {}
    told: dict[str, Any] = {}
    if any(name.endswith("conv2") for name in inside):
        told["inflate_style"] = "3x3x3"
    if "conv1" not in deep:
        return "slowonly", told
    if any(name.startswith("layer2.1.") for name in inside):
        told["inflate_blocks"] = "all"
    return "i3d", told


def _blocks(found: Found) -> dict[str, Any]:
    """Where non-local blocks are, and their options that tensors tell."""
    widths = {
        name.removesuffix(".non_local.g.weight"): tuple(tensor.flatten(1).shape)
        for name, tensor in found.items()
        if name.endswith(".non_local.g.weight")
    }
    if not widths:
        return {"non_local": ()}
    at = sorted(widths, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])

    def has(name: str) -> bool:  # any of them: one may be damaged
        return any(f"{place}.non_local.{name}" in found for place in at)

    told: dict[str, Any] = {"non_local": tuple(at), "out_bias": has("out.bias")}
    if any(inner != max(1, channels // 2) for inner, channels in widths.values()):
        inner = {inner for inner, _ in widths.values()}
        if len(inner) > 1:
            raise UserError(
                f"its blocks have inner widths {sorted(inner)}; one for all is possible"
            )
        told["inner"] = inner.pop()
    if has("w_f"):
        told["pairwise"] = "concatenation"
    elif not has("theta.weight"):
        told["pairwise"] = "gaussian"
    if has("norm.running_mean"):
        told["norm"] = "batch"
    else:
        told["norm"] = "frozen" if has("norm.weight") else "none"
    return told

"""Other codebases' checkpoints: of which family and network a file is, its tensors in our names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..card import card_of, set_card
from ..errors import UserError
from ..presets import PRESETS
from . import alexhex7, caffe2, mmaction2, pyslowfast, pytorchvideo, tsm
from .assemble import assemble
from .container import Container
from .family import Family
from .structure import architecture

FAMILIES = (
    caffe2.FAMILY,
    pyslowfast.FAMILY,
    pyslowfast.BY_PYTORCHVIDEO,
    pytorchvideo.FAMILY,
    mmaction2.FAMILY,
    mmaction2.MOBILENET,
    tsm.FAMILY,
    tsm.MOBILENET,
    tsm.ONLINE,
    alexhex7.FAMILY,
)
_CONSTANT = {"backbone_norm": "affine", "norm": "frozen"}
SAMPLE = 64  # names looked at to tell the family


def load_foreign(
    container: Container, path: Path, preset: str | None, num_classes: int | None
) -> nn.Module:
    """The network of another codebase's file, on the CPU; see `weights.load`."""
    tensors = _unwrapped(container.tensors)
    family = recognise(list(tensors), path)
    found, unexpected = rename(tensors, family)
    shifted = _shifted(tensors, family)
    try:
        told = architecture(found, bool(shifted)) | family.options(container.notes)
    except UserError as error:
        raise UserError(f"{path} has {family.title} names, but {error}") from None
    if not family.constants:  # statistics that are missing are told as missing
        told |= {k: "batch" for k, v in _CONSTANT.items() if told.get(k) == v}
    chosen = choose(family, told, container.notes, preset, path)
    classes = told.pop("num_classes", None)
    if classes is None and num_classes is None:
        raise UserError(
            f"{path} has no head (it was made to start from): say the number of classes,"
            " num_classes=400, and a new one is made"
        )
    if "pairwise" in told:  # gaussian and concatenation are scaled nowhere
        told["scale"] = None
    told = {**PRESETS[chosen].options, **told, "num_classes": num_classes or classes}
    if family.pooled and told["non_local"]:
        told |= _pooling(tensors, family, path)
    model = assemble(
        told,
        {**found, **unexpected, **_constants(told, found)},
        path,
        new_head=num_classes not in (None, classes),
        theirs=family.names.theirs,
    )
    if family.shift:
        _check_shifts(model, shifted, path)
    said = {**PRESETS[chosen].card, **family.card(container.notes)}
    names = tuple(container.notes.get("meta.dataset_meta.classes", "").splitlines())
    if len(names) == told["num_classes"] == classes:
        said["classes"] = names
    said["source"] = f"{path.name}, read as {chosen}"
    set_card(model, dataclasses.replace(card_of(model), **said))
    return model


def _shifted(tensors: Mapping[str, Tensor], family: Family) -> set[str]:
    """Our names of the convolutions that the file's names show as shifted."""
    return {
        str(family.names.ours(name)).removesuffix(".weight")
        for name, tensor in tensors.items()
        if family.shift and family.shift in name and tensor.dim() > 1
    }


def _constants(told: Mapping[str, Any], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The statistics with which frozen norms of the blocks are their gains and biases alone."""
    made = {}
    for place in told["non_local"] if told.get("norm") == "frozen" else ():
        width = found[f"{place}.non_local.g.weight"].shape[1]
        made[f"{place}.non_local.norm.running_mean"] = torch.zeros(width)
        made[f"{place}.non_local.norm.running_var"] = torch.full((width,), 1 - 1e-5)
    return made


def _pooling(tensors: Mapping[str, Tensor], family: Family, path: Path) -> dict[str, str]:
    """Whether the names of the blocks' g show a pooling behind it: {} or {"subsample": "none"}."""
    pooled = {
        family.pooled in name
        for name in tensors
        if str(family.names.ours(name)).endswith(".non_local.g.weight")
    }
    if len(pooled) > 1:
        raise UserError(f"{path} pools the keys of some of its blocks; all or none is possible")
    return {} if pooled == {True} else {"subsample": "none"}


def _check_shifts(model: nn.Module, shifted: set[str], path: Path) -> None:
    ours = {name for name, module in model.named_modules() if hasattr(module, "temporal_shift")}
    if ours != shifted:
        told = ", ".join(sorted(ours ^ shifted)[:3])
        raise UserError(
            f"{path} is shifted in {len(shifted)} places, and TSM's rule for this network shifts"
            f" {len(ours)}: they differ in {told}; it was made by another rule"
        )


def _unwrapped(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Without the "module." that torch's DataParallel puts before every name."""
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def recognise(names: Sequence[str], path: Path) -> Family:
    """The family whose table knows most of the names. Raises UserError if none knows half."""
    sample = names[:: max(1, len(names) // SAMPLE)]
    known = [sum(f.names.ours(name) is not None for name in sample) for f in FAMILIES]
    if 2 * max(known) > len(sample):
        return FAMILIES[known.index(max(known))]
    titles = ", ".join(family.title for family in FAMILIES)
    image = {"conv1.weight", "layer1.0.conv1.weight"} <= set(names)
    also = (
        "; it looks like an image ResNet, which is no video network yet: give it to"
        " load_imagenet(model, path) or to train --pretrained"
        if image
        else ""
    )
    raise UserError(
        f"{path} is of no family known here ({titles}): its tensors are called"
        f" {', '.join(names[:3])}{also}"
    )


def rename(
    tensors: Mapping[str, Tensor], family: Family
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors under our names, and those whose names the family's table does not know."""
    found: dict[str, Tensor] = {}
    unexpected: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        ours = family.names.ours(name)
        (unexpected if ours is None or ours in found else found)[ours or name] = tensor
    return found, unexpected


def choose(
    family: Family,
    told: Mapping[str, Any],
    notes: Mapping[str, str],
    preset: str | None,
    path: Path,
) -> str:
    """The one of `PRESETS` that the file was made for. Raises UserError if it takes the caller."""
    try:
        candidates = family.presets(told, notes)
    except UserError as error:
        raise UserError(f"{path} has {family.title} names, but {error}") from None
    if preset is None and len(candidates) == 1:
        return candidates[0]
    if preset in candidates:
        return str(preset)
    blocks = len(told["non_local"])
    what = f"{family.title}, {told['name']} with {blocks} non-local blocks"
    lines = "\n".join(f"  {name:20} {PRESETS[name].text}" for name in candidates)
    if preset is not None:
        known = "" if preset in PRESETS else " (no preset has that name)"
        raise UserError(f"{path} ({what}) is no {preset!r}{known}; what it can be:\n{lines}")
    raise UserError(
        f"{path} ({what}) fits several networks, whose tensors have equal names and shapes but"
        " whose scores differ; say which one it is, by load(path, preset=...) or `nonlocalnet"
        f" convert` with --preset:\n{lines}"
    )

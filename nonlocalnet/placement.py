"""Where TSM shifts an image network: the residual blocks that are known, and the paper's rules.

Blocks are known by the names of their classes and children, so that neither torchvision nor timm
is needed to shift a network of theirs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from .shift import TemporalShift

# "residual": before the first convolution of each residual branch; the identity stays as it is.
# "block": before the whole block, so the identity is shifted too (the paper's "in-place" TSM).
Placement = Literal["residual", "block"]
PLACEMENTS: tuple[Placement, ...] = ("residual", "block")


@dataclass(frozen=True)
class Kind:
    """A kind of residual block.

    branch: the child that begins the residual branch, a convolution or with one inside.
    identity: the attribute that says whether the block adds its input to its output. Only
        inverted residuals have one, and TSM shifts those that add and open with an expansion
        (mit-han-lab's MobileNetV2). None: they all add, and all are shifted.
    """

    name: str
    branch: str
    identity: str | None = None


KINDS = (
    # ResNet, ResNeXt and Wide ResNet of torchvision, timm and ours
    Kind("BasicBlock", "conv1"),
    Kind("Bottleneck", "conv1"),
    # ConvNeXt of torchvision; of timm
    Kind("CNBlock", "block"),
    Kind("ConvNeXtBlock", "conv_dw"),
    # MobileNetV2 of torchvision; ours
    Kind("InvertedResidual", "conv", "use_res_connect"),
    Kind("InvertedResidual", "conv", "residual"),
    # MobileNetV3, EfficientNet and EfficientNetV2 of torchvision
    Kind("InvertedResidual", "block", "use_res_connect"),
    Kind("MBConv", "block", "use_res_connect"),
    Kind("FusedMBConv", "block", "use_res_connect"),
    # MobileNetV2, MobileNetV3, EfficientNet and EfficientNetV2 of timm
    Kind("InvertedResidual", "conv_pw", "has_skip"),
    Kind("EdgeResidual", "conv_exp", "has_skip"),
    Kind("DepthwiseSeparableConv", "conv_dw", "has_skip"),
    Kind("ConvBnAct", "conv", "has_skip"),
)
KNOWN = "ResNet, ResNeXt, MobileNetV2, MobileNetV3, EfficientNet, EfficientNetV2 and ConvNeXt"
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
DEEP = 23  # blocks of one stage from which on TSM shifts every second one, as in ResNet-101


@dataclass(frozen=True)
class Block:
    """A residual block by its dotted name, and whether the rule of its kind shifts it."""

    name: str
    convolution: str
    shifted: bool


def residual_blocks(model: nn.Module) -> list[Block]:
    """The residual blocks of a network that are of a known kind, in order."""
    found = []
    for name, module in model.named_modules():
        for kind in KINDS:
            inside = _first_convolution(module, kind)
            if inside is not None:
                found.append(Block(name, f"{name}.{inside}".lstrip("."), _shifted(module, kind)))
                break
    return found


def places(model: nn.Module, placement: Placement = "residual") -> tuple[str, ...]:
    """The modules whose input TSM shifts, by mit-han-lab's rules.

    Every residual block; of inverted residuals those with an identity and an expansion. With
    residual placement, where some stage has 23 blocks or more, every second block of all stages
    (ResNet-101 and deeper), so that not too much of each frame is lost on the way.

    Raises:
        ValueError: a network without a residual block that the rule is known for.
    """
    blocks = residual_blocks(model)
    stages: Counter[str] = Counter()
    numbered = []
    for block in blocks:
        stage = block.name.rpartition(".")[0]
        numbered.append((stages[stage], block))
        stages[stage] += 1
    step = 2 if placement == "residual" and max(stages.values(), default=0) >= DEEP else 1
    chosen = [block for index, block in numbered if block.shifted and index % step == 0]
    if not chosen:
        raise ValueError(
            f"where to shift {type(model).__name__} is not known: the rule is for {KNOWN}, as"
            " torchvision and timm build them; name the modules before which to shift instead,"
            " such as ('layer1.0.conv1', 'layer1.1.conv1')"
        )
    return tuple(block.convolution if placement == "residual" else block.name for block in chosen)


def told_shifts(model: nn.Module) -> list[str]:
    """The shifts of a network in words: placement, how many blocks have one, what moves, where."""
    blocks = residual_blocks(model)
    placed = {block.convolution: "residual" for block in blocks}
    placed |= {block.name: "in-place" for block in blocks}
    alike: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        if isinstance(module, TemporalShift):
            place = name.removesuffix("temporal_shift").rstrip(".")
            alike[placed.get(place, ""), module.moves].append(place)
    lines = []
    for (placement, moves), at in alike.items():
        rule = f", {placement} placement, {len(at)} of {len(blocks)} blocks" if placement else ""
        lines.append(f"shift{rule}: {moves}; before {', '.join(at)}")
    return lines


def _first_convolution(module: nn.Module, kind: Kind) -> str | None:
    """The first convolution of a block's residual branch, by its name in the block."""
    branch = getattr(module, kind.branch, None)
    known = kind.identity is None or hasattr(module, kind.identity)
    if type(module).__name__ != kind.name or not known or not isinstance(branch, nn.Module):
        return None
    layers = branch.named_modules(prefix=kind.branch)
    return next((name for name, layer in layers if isinstance(layer, CONVOLUTIONS)), None)


def _shifted(module: nn.Module, kind: Kind) -> bool:
    if kind.identity is None:
        return True
    conv: Any = module.get_submodule(_first_convolution(module, kind) or "")
    return bool(getattr(module, kind.identity)) and conv.out_channels > conv.in_channels

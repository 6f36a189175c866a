"""The networks of the paper and of TSM by name: a ResNet and the edits that make it.

    c2d_*   Table 1: a ResNet whose time kernels are 1                      (paper section 4.1)
    i3d_*   the same, inflated: conv1 to 5x7x7, one kernel per two residual blocks to three frames
    tsm_*   the image network on every frame, shifted before each residual branch   (ICCV 2019)

Sizes: resnet50 and resnet101 as published; resnet18 by the same rules; tiny, three narrow stages
of one block for clips of 8 x 32 x 32 (the demo and the tests).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Unpack

from .block import BlockOptions
from .card import Card, set_card
from .resnet import BasicBlock, Bottleneck, ResNet3d
from .surgery import inflate, insert, shift

NonLocal = int | str | Iterable[str]
InflateStyle = Literal["3x1x1", "3x3x3"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Size:
    """One depth of the family: its stages, and where edits go when only their number is given.

    `positions` maps a number of non-local blocks to the residual blocks they follow.
    """

    block: type[BasicBlock | Bottleneck]
    layers: tuple[int, ...]
    positions: Mapping[int, tuple[str, ...]]
    width: int = 64


def _at(**stages: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{stage}.{i}" for stage, indices in stages.items() for i in indices)


SIZES: dict[str, Size] = {
    "tiny": Size(BasicBlock, (1, 1, 1), {1: _at(layer2=(0,))}, width=16),
    "resnet18": Size(  # the paper has no such net; 5 blocks end at res2, res3 and res4
        BasicBlock,
        (2, 2, 2, 2),
        {1: _at(layer3=(0,)), 5: _at(layer1=(1,), layer2=(0, 1), layer3=(0, 1))},
    ),
    "resnet50": Size(
        Bottleneck,
        (3, 4, 6, 3),
        {
            1: _at(layer3=(4,)),  # right before the last block of res4
            5: _at(layer2=(1, 3), layer3=(1, 3, 5)),  # every other block of res3 and res4
            10: _at(layer2=(0, 1, 2, 3), layer3=(0, 1, 2, 3, 4, 5)),  # every one
        },
    ),
    "resnet101": Size(
        Bottleneck,
        (3, 4, 23, 3),
        {
            1: _at(layer3=(21,)),
            5: _at(layer2=(1, 3), layer3=(6, 13, 20)),  # as video-nonlocal-net spreads them
            # the paper's "corresponding" blocks, without code: six spread over the 23
            10: _at(layer2=(0, 1, 2, 3), layer3=(3, 7, 11, 15, 19, 22)),
        },
    ),
}


def c2d(size: str, num_classes: int, stem: str | None, width: int, dropout: float) -> ResNet3d:
    """Table 1: 32 frames -> 16 (conv1) -> 8 (pool1) -> 4 (pool2), in the "paper" stem."""
    stem = stem or ("tiny" if size == "tiny" else "paper")
    s = SIZES[size]
    return ResNet3d(s.block, s.layers, stem, width, num_classes, dropout)


def i3d(
    size: str,
    num_classes: int,
    stem: str | None,
    width: int,
    dropout: float,
    style: InflateStyle = "3x1x1",
) -> ResNet3d:
    """C2D inflated: conv1 to 5x7x7, and one kernel in every other residual block to 3 frames.

    Which blocks: all of res2, the even ones of res3 and res4, the odd ones of res5 (Caffe2,
    PySlowFast, MMAction2). "3x1x1" inflates a bottleneck's first 1x1x1, "3x3x3" its 1x3x3. A
    basic block has only 1x3x3 kernels, of which the first is inflated. The tiny size has a
    single 3x3x3 kernel, in its second stage, so that it sees three frames at a time and no more.
    """
    model = c2d(size, num_classes, stem, width, dropout)
    if size == "tiny":
        inflate(model, {"layer2.0.conv1": 3})
        return model
    bottleneck = SIZES[size].block is Bottleneck
    conv = "conv2" if bottleneck and style == "3x3x3" else "conv1"
    every = {"layer1": (0, 1), "layer2": (0, 2), "layer3": (0, 2), "layer4": (1, 2)}
    at = {
        f"{stage}.{i}.{conv}": 3
        for stage, (first, step) in every.items()
        for i in range(first, len(model.get_submodule(stage)), step)  # type: ignore[arg-type]
    }
    inflate(model, {"conv1": 5, **at})
    return model


def tsm(size: str, num_classes: int, stem: str | None, width: int, dropout: float) -> ResNet3d:
    """The image network with a shift before the first convolution of its residual branches.

    Every block at depth 18 and 50; every second one of each stage at depth 101
    (mit-han-lab/temporal-shift-module). Logits averaged over frames are the head's linear layer
    on features averaged over frames.
    """
    stem = stem or ("tiny" if size == "tiny" else "image")
    model = c2d(size, num_classes, stem, width, dropout)
    step = 2 if size == "resnet101" else 1
    at = [
        f"{stage}.{i}.conv1"
        for stage in model.stages
        for i in range(0, len(model.get_submodule(stage)), step)  # type: ignore[arg-type]
    ]
    shift(model, at)
    return model


MODELS: dict[str, tuple[Callable[..., ResNet3d], str]] = {
    "c2d_tiny": (c2d, "tiny"),
    "c2d_resnet18": (c2d, "resnet18"),
    "c2d_resnet50": (c2d, "resnet50"),
    "c2d_resnet101": (c2d, "resnet101"),
    "i3d_tiny": (i3d, "tiny"),
    "i3d_resnet18": (i3d, "resnet18"),
    "i3d_resnet50": (i3d, "resnet50"),
    "i3d_resnet101": (i3d, "resnet101"),
    "tsm_tiny": (tsm, "tiny"),
    "tsm_resnet18": (tsm, "resnet18"),
    "tsm_resnet50": (tsm, "resnet50"),
    "tsm_resnet101": (tsm, "resnet101"),
}


def create_model(
    name: str,
    num_classes: int = 400,
    non_local: NonLocal = 0,
    *,
    stem: str | None = None,
    width: int | None = None,
    dropout: float = 0.5,
    inflate_style: InflateStyle = "3x1x1",
    **options: Unpack[BlockOptions],
) -> ResNet3d:
    """A network by name, taking normalised clips (N, 3, T, H, W) to logits (N, num_classes).

    Args:
        name: a key of `MODELS`.
        num_classes: outputs of the head.
        non_local: 0, 1, 5 or 10 blocks at the paper's positions; a stage "res2" ... "res5" for
            one block right before its last residual block; or names such as ("layer2.1",).
        stem: a key of `STEMS`. None: "paper" for C2D and I3D, "image" for TSM.
        width: channels of res2's 1x3x3; None is the size's own (64; 16 for tiny).
        dropout: before the head.
        inflate_style: I3D's "3x1x1" (the paper's best) or "3x3x3".
        options: those of `NonLocalBlock`, `pairwise` among them.

    Raises:
        ValueError: a name or number that does not exist, with those that do.
        TypeError: an option that does not exist.
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; there are {', '.join(MODELS)}")
    if inflate_style not in ("3x1x1", "3x3x3"):
        raise ValueError(f"inflate_style is '3x1x1' or '3x3x3', not {inflate_style!r}")
    unknown = sorted(set(options) - set(BlockOptions.__annotations__))
    if unknown:  # also where there is no block to refuse them
        known = ", ".join(BlockOptions.__annotations__)
        raise TypeError(f"no option {', '.join(unknown)}; a block has {known}")
    kind, size = MODELS[name]
    positions = block_positions(size, non_local)
    settings: dict[str, Any] = {"inflate_style": inflate_style} if kind is i3d else {}
    model = kind(
        size,
        num_classes,
        stem,
        width or SIZES[size].width,
        dropout,
        *settings.values(),
    )
    if positions:
        insert(model, positions, **options)
    architecture = {
        "name": name,
        "num_classes": num_classes,
        "non_local": positions,
        "stem": stem,
        "width": width,
        "dropout": dropout,
        **settings,
        **options,
    }
    set_card(model, dataclasses.replace(_card(kind, size, stem), architecture=architecture))
    return model


def block_positions(size: str, non_local: NonLocal) -> tuple[str, ...]:
    """The residual blocks that non-local blocks follow: see `create_model`.

    Raises:
        ValueError: a number or stage this size does not have.
    """
    s = SIZES[size]
    if isinstance(non_local, int):
        if non_local == 0:
            return ()
        if non_local not in s.positions:
            has = ", ".join(map(str, (0, *s.positions)))
            raise ValueError(
                f"{size} has documented positions for {has} non-local blocks, not {non_local};"
                " name the residual blocks instead, such as ('layer2.0',)"
            )
        return s.positions[non_local]
    if not isinstance(non_local, str):
        return tuple(non_local)
    stages = {f"res{i + 2}": (f"layer{i + 1}", depth) for i, depth in enumerate(s.layers)}
    if non_local in stages:
        layer, depth = stages[non_local]
        return (f"{layer}.{max(0, depth - 2)}",)
    if non_local.startswith("res"):
        raise ValueError(f"{size} has the stages {', '.join(stages)}, not {non_local!r}")
    return (non_local,)


def _card(kind: Callable[..., ResNet3d], size: str, stem: str | None) -> Card:
    """How such a network is used by default: the paper's rules, or TSM's, or tiny clips."""
    card = Card()
    if kind is tsm:
        # facts of the TSM code: 8 segments, ImageNet colours, logits averaged, two clips of three
        card = Card(
            frames=8,
            stride=1,
            sampling="segments",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            clips=2,
            aggregate="logits",
        )
    elif stem in ("slowfast", "caffe2-8", "image"):
        card = Card(frames=8, stride=8)
    if size == "tiny":
        card = dataclasses.replace(
            card, frames=8, stride=1, short_side=32, crop=32, test_crop=32, jitter=(32, 32)
        )
        card = dataclasses.replace(card, clips=1, crops=1)
    return card

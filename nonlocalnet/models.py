"""The networks of the paper and of TSM by name: a ResNet and the edits that make it.

    c2d_*       Table 1: a ResNet whose time kernels are 1                  (paper section 4.1)
    i3d_*       the same, inflated: conv1 to 5x7x7, one kernel per two residual blocks to three
    slowonly_*  one kernel of each block of res4 and res5 inflated, all frames kept (SlowFast, 2019)
    tsm_*       the image network on every frame, shifted before each residual branch  (ICCV 2019)

Sizes: resnet50 and resnet101 as published; resnet18 by the same rules; tiny, three narrow stages
of one block for clips of 8 x 32 x 32 (the demo and the tests); MobileNetV2 for TSM. And TSM on an
image network of a library, such as tsm_torchvision:convnext_tiny or tsm_timm:efficientnet_b0.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Unpack

from torch import nn

from .block_options import BlockOptions
from .card import Card, set_card
from .framewise import Framewise
from .head import Head
from .layers import BackboneNorm
from .libraries import LIBRARIES, colours, image_network
from .mobilenet import MobileNet3d
from .placement import Placement
from .presets import PRESETS
from .resnet import Bottleneck, ResNet3d, StrideOn
from .shift import Direction
from .sizes import SIZES, NonLocal, block_positions
from .surgery import inflate, insert, shift

InflateStyle = Literal["3x1x1", "3x3x3"]
InflateBlocks = Literal["half", "all"]


@dataclass(frozen=True)
class Body:
    """What a network is apart from its non-local blocks. A network has those that it can use.

    Args:
        num_classes: outputs of the head.
        stem: a key of `STEMS`. None: "paper" for C2D and I3D, "image" for SlowOnly and TSM.
        width: channels of res2's 1x3x3; None is the size's own (64; 16 for tiny).
        dropout: before the head.
        inflate_style: I3D's "3x1x1" (the paper's best) or "3x3x3".
        inflate_blocks: one kernel in every other residual block ("half"), or in "all".
        stride_on: the convolution of a bottleneck that halves the picture, "3x3" or "1x1".
        backbone_norm: "batch", or "affine" constants.
        head: where it averages, one of `head.HEADS`.
        shift: TSM's from "both" sides, or from the "past" alone.
        shift_at: where, as in `surgery.shift`: "residual", "block", or names of the network's
            modules; no names, no shifts.
        shift_fraction: one of so many channels moves from each side.
    """

    num_classes: int = 400
    stem: str | None = None
    width: int | None = None
    dropout: float = 0.5
    inflate_style: InflateStyle = "3x1x1"
    inflate_blocks: InflateBlocks = "half"
    stride_on: StrideOn = "3x3"
    backbone_norm: BackboneNorm = "batch"
    head: Head = "global"
    shift: Direction = "both"
    shift_at: Placement | tuple[str, ...] = "residual"
    shift_fraction: int = 8


class Options(BlockOptions, total=False):
    """The keyword arguments of `create_model`: those of a body, then of `NonLocalBlock`."""

    stem: str | None
    width: int | None
    dropout: float
    inflate_style: InflateStyle
    inflate_blocks: InflateBlocks
    stride_on: StrideOn
    backbone_norm: BackboneNorm
    head: Head
    shift: Direction
    shift_at: Placement | tuple[str, ...]
    shift_fraction: int
    temporal_groups: Mapping[str, int]


def c2d(size: str, body: Body) -> ResNet3d:
    """Table 1: 32 frames -> 16 (conv1) -> 8 (pool1) -> 4 (pool2), in the "paper" stem."""
    s = SIZES[size]
    return ResNet3d(
        s.block,
        s.layers,
        body.stem or ("tiny" if size == "tiny" else "paper"),
        body.width or s.width,
        body.num_classes,
        body.dropout,
        stride_on=body.stride_on,
        norm=body.backbone_norm,
        head=body.head,
    )


def i3d(size: str, body: Body) -> ResNet3d:
    """C2D inflated: conv1 to 5x7x7, and one kernel in every other residual block to 3 frames.

    Which blocks: all of res2, the even ones of res3 and res4, the odd ones of res5 (Caffe2,
    PySlowFast, MMAction2); or "all" of them. "3x1x1" inflates a bottleneck's first 1x1x1, "3x3x3"
    its 1x3x3. A basic block has only 1x3x3 kernels, of which the first is inflated. The tiny size
    has a single 3x3x3 kernel, in its second stage, so that it sees three frames and no more.
    """
    model = c2d(size, body)
    if size == "tiny":
        inflate(model, {"layer2.0.conv1": 3})
        return model
    every = {"layer1": (0, 1), "layer2": (0, 2), "layer3": (0, 2), "layer4": (1, 2)}
    if body.inflate_blocks == "all":
        every = dict.fromkeys(every, (0, 1))
    inflate(model, {"conv1": 5, **_kernels(model, size, body, every)})
    return model


def slowonly(size: str, body: Body) -> ResNet3d:
    """The slow pathway of SlowFast by itself (Feichtenhofer et al. 2019): every frame kept."""
    model = c2d(size, dataclasses.replace(body, stem=body.stem or "image"))
    inflate(model, _kernels(model, size, body, {"layer3": (0, 1), "layer4": (0, 1)}))
    return model


def _kernels(
    model: ResNet3d, size: str, body: Body, every: Mapping[str, tuple[int, int]]
) -> dict[str, int]:
    """The kernels inflated to 3 frames: of each stage from the first block named, every n-th."""
    bottleneck = SIZES[size].block is Bottleneck
    conv = "conv2" if bottleneck and body.inflate_style == "3x3x3" else "conv1"
    return {
        f"{stage}.{i}.{conv}": 3
        for stage, (first, step) in every.items()
        if stage in model.stages
        for i in range(first, len(model.get_submodule(stage)), step)  # type: ignore[arg-type]
    }


def tsm(size: str, body: Body) -> ResNet3d:
    """The image network with a shift before the first convolution of its residual branches.

    Every block at depth 18 and 50; every second one of each stage at depth 101
    (mit-han-lab/temporal-shift-module). Logits averaged over frames are the head's linear layer
    on features averaged over frames.
    """
    stem = body.stem or ("tiny" if size == "tiny" else "image")
    model = c2d(size, dataclasses.replace(body, stem=stem))
    _shift(model, body)
    return model


def tsm_mobile(size: str, body: Body) -> MobileNet3d:
    """MobileNetV2, shifted in the blocks that have an identity and an expansion."""
    model = MobileNet3d(body.num_classes, body.dropout)
    _shift(model, body)
    return model


def tsm_image(size: str, body: Body) -> Framewise:
    """A library's image network, "torchvision:convnext_tiny", shifted as far as TSM's rules go."""
    library, _, name = size.partition(":")
    host = image_network(library, name)
    _shift(host, body)
    return Framewise(host, body.num_classes, body.dropout)


def _shift(model: nn.Module, body: Body) -> None:
    shift(model, body.shift_at, fraction=body.shift_fraction, direction=body.shift)


def digits(size: str, body: Body) -> nn.Sequential:
    """AlexHex7's network for 28 x 28 digits (N, 1, 28, 28), two of its stages with a block."""

    def stage(channels: int, width: int) -> nn.Sequential:
        conv = nn.Conv2d(channels, width, 3, padding=1)
        return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))

    head = nn.Sequential(
        nn.Linear(128 * 3 * 3, 256), nn.ReLU(), nn.Dropout(body.dropout),
        nn.Linear(256, body.num_classes),
    )  # fmt: skip
    parts = {"conv_1": stage(1, 32), "conv_2": stage(32, 64), "conv_3": stage(64, 128)}
    return nn.Sequential(OrderedDict(**parts, flatten=nn.Flatten(), fc=head))


MODELS: dict[str, tuple[Callable[[str, Body], nn.Module], str]] = {
    "c2d_tiny": (c2d, "tiny"),
    "c2d_resnet18": (c2d, "resnet18"),
    "c2d_resnet50": (c2d, "resnet50"),
    "c2d_resnet101": (c2d, "resnet101"),
    "i3d_tiny": (i3d, "tiny"),
    "i3d_resnet18": (i3d, "resnet18"),
    "i3d_resnet50": (i3d, "resnet50"),
    "i3d_resnet101": (i3d, "resnet101"),
    "slowonly_resnet50": (slowonly, "resnet50"),
    "slowonly_resnet101": (slowonly, "resnet101"),
    "tsm_tiny": (tsm, "tiny"),
    "tsm_resnet18": (tsm, "resnet18"),
    "tsm_resnet50": (tsm, "resnet50"),
    "tsm_resnet101": (tsm, "resnet101"),
    "tsm_mobilenetv2": (tsm_mobile, "mobilenetv2"),
}

# not for clips, and not for training here: what checkpoints of blocks come in
IMAGE_MODELS: dict[str, tuple[Callable[[str, Body], nn.Module], str]] = {
    "digits": (digits, "digits"),
}

_RESNET = ("num_classes", "stem", "width", "dropout", "stride_on", "backbone_norm", "head")
_SHIFT = ("shift", "shift_at", "shift_fraction")
_USED: dict[Callable[[str, Body], nn.Module], tuple[str, ...]] = {
    c2d: _RESNET,
    i3d: (*_RESNET, "inflate_style", "inflate_blocks"),
    slowonly: (*_RESNET, "inflate_style"),
    tsm: (*_RESNET, *_SHIFT),
    tsm_mobile: ("num_classes", "dropout", *_SHIFT),
    tsm_image: ("num_classes", "dropout", *_SHIFT),
    digits: ("num_classes", "dropout"),
}


def create_model(
    name: str,
    num_classes: int = 400,
    non_local: NonLocal = 0,
    *,
    preset: str | None = None,
    **options: Unpack[Options],
) -> nn.Module:
    """A network by name, taking normalised clips (N, 3, T, H, W) to logits (N, num_classes).

    Args:
        name: a key of `MODELS`; or tsm_torchvision:NAME or tsm_timm:NAME, TSM on that library's
            image network of that name.
        num_classes: outputs of the head.
        non_local: 0, 1, 5 or 10 blocks at the paper's positions; a stage "res2" ... "res5" for
            one block right before its last residual block; "tsm" or "slowfast" for the five
            of those codebases; or names such as ("layer2.1",).
        preset: a key of `PRESETS`, whose options hold where no other is given here.
        options: those of `Body` and of `NonLocalBlock`, `pairwise` among them; and temporal_groups,
            how many frames see each other in the blocks of a stage, such as {"layer2": 4}.

    Raises:
        ValueError: a name, number or option that does not exist or fit, with those that do.
        TypeError: an option that does not exist.
    """
    kind, size = _constructor(name)
    if kind is tsm_image and non_local:
        raise ValueError(f"{name} runs on single frames, where non-local blocks would see no clip")
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    given: dict[str, Any] = {**(PRESETS[preset].options if preset else {}), **options}
    body, used, rest = _body(name, kind, num_classes, given)
    if preset and non_local == 5 and PRESETS[preset].five in SIZES[size].positions:
        non_local = PRESETS[preset].five  # depths that the codebase has not keep the house's five
    positions = block_positions(size, non_local)
    model = kind(size, body)
    groups = rest.get("temporal_groups", {})
    block = {key: value for key, value in rest.items() if key != "temporal_groups"}
    for position in positions:
        group = groups.get(position.partition(".")[0])
        insert(model, position, **(block if group is None else block | {"temporal_group": group}))
    architecture = {"name": name, "num_classes": num_classes, "non_local": positions}
    architecture |= {key: getattr(body, key) for key in used} | rest
    card = dataclasses.replace(_card(kind, size, body.stem), architecture=architecture)
    card = dataclasses.replace(card, **(PRESETS[preset].card if preset else {}))
    if isinstance(model, Framewise):
        card = dataclasses.replace(card, **colours(model.host))  # type: ignore[arg-type]
    set_card(model, card)
    return model


KNOWN = ", ".join([*MODELS, *(f"tsm_{library}:NAME" for library in LIBRARIES)])


def is_model(name: str) -> bool:
    """Whether that is a name of a video network, for `create_model`, and not a trained one."""
    library, colon, image = name.removeprefix("tsm_").partition(":")
    hosted = name.startswith("tsm_") and colon and image and library in LIBRARIES
    return name in MODELS or bool(hosted)


def _constructor(name: str) -> tuple[Callable[[str, Body], nn.Module], str]:
    table = {**MODELS, **IMAGE_MODELS}
    if name not in table and not is_model(name):
        raise ValueError(f"no model {name!r}; there are {KNOWN}")
    return table.get(name, (tsm_image, name.removeprefix("tsm_")))


def input_shape(card: Card) -> tuple[int, ...]:
    """What one input of the network is: (3, T, S, S) as in training, or an image."""
    if card.architecture.get("name") in IMAGE_MODELS:
        return (1, card.crop, card.crop)
    return (3, card.frames, card.crop, card.crop)


def _body(
    name: str, kind: Callable[[str, Body], nn.Module], num_classes: int, given: dict[str, Any]
) -> tuple[Body, tuple[str, ...], dict[str, Any]]:
    """What is given as a body, the names of the fields that matter, and the blocks' options."""
    unknown = sorted(set(given) - set(Options.__annotations__))
    if unknown:  # also where there is no block to refuse them
        known = ", ".join(Options.__annotations__)
        raise TypeError(f"no option {', '.join(unknown)}; there are {known}")
    fields = {f.name for f in dataclasses.fields(Body)}
    body = Body(num_classes, **{key: value for key, value in given.items() if key in fields})
    for key, allowed in (("inflate_style", InflateStyle), ("inflate_blocks", InflateBlocks)):
        values = allowed.__args__  # type: ignore[attr-defined]
        if getattr(body, key) not in values:
            came = getattr(body, key)
            raise ValueError(f"{key} is {' or '.join(map(repr, values))}, not {came!r}")
    used = _USED[kind]
    plain = Body(num_classes)
    for key in sorted(fields - set(used)):
        if getattr(body, key) != getattr(plain, key):
            raise ValueError(f"{name} has no {key}, which came as {getattr(body, key)!r}")
    return body, used, {key: value for key, value in given.items() if key not in fields}


def _card(kind: Callable[[str, Body], nn.Module], size: str, stem: str | None) -> Card:
    """How such a network is used by default: the paper's rules, or TSM's, or tiny clips."""
    card = Card()
    if kind in (tsm, tsm_mobile, tsm_image):
        card = Card(**PRESETS["tsm"].card)
    elif kind is slowonly:
        card = Card(frames=4, stride=16)
    elif kind is digits:
        side = {"short_side": 28, "crop": 28, "test_crop": 28, "jitter": (28, 28)}
        card = Card(frames=1, stride=1, clips=1, crops=1, flip=False, **side)  # type: ignore[arg-type]
    elif stem in ("slowfast", "caffe2-8", "mmaction-c2d", "image"):
        card = Card(frames=8, stride=8)
    if size == "tiny":
        card = dataclasses.replace(
            card, frames=8, stride=1, short_side=32, crop=32, test_crop=32, jitter=(32, 32)
        )
        card = dataclasses.replace(card, clips=1, crops=1)
    return card

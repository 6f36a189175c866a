"""Presets: what each sets, on every network it is for, and what is said besides it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from nonlocalnet import create_model
from nonlocalnet.block import NonLocalBlock
from nonlocalnet.card import Card, card_of
from nonlocalnet.layers import Affine3d, BatchNorm3d
from nonlocalnet.linear import FrozenBatchNorm
from nonlocalnet.models import IMAGE_MODELS, MODELS, Options
from nonlocalnet.presets import PRESETS
from nonlocalnet.resnet import STEMS, ResNet3d
from nonlocalnet.shift import TemporalShift
from nonlocalnet.sizes import SIZES
from nonlocalnet.surgery import blocks
from nonlocalnet.weights.published import PUBLISHED

NETWORKS = [(preset, network) for preset, p in PRESETS.items() for network in p.networks]
LATE = ("layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5")
EARLY = ("layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4")

# The blocks of each codebase: keys pooled, scaled, a bias on W_z, the norm after it, where five go.
BLOCKS: dict[str, tuple[str, bool, bool, type[nn.Module] | None, tuple[str, ...]]] = {
    "paper": ("before", False, True, nn.BatchNorm1d, LATE),
    "caffe2-8x8": ("before", True, True, nn.BatchNorm1d, LATE),
    "caffe2-32x2": ("before", True, True, nn.BatchNorm1d, LATE),
    "caffe2-32x4-affine": ("before", True, True, None, LATE),
    "caffe2-128x1-affine": ("before", True, True, None, LATE),
    "lfb": ("before", True, True, FrozenBatchNorm, LATE),
    "slowfast": ("before", True, True, nn.BatchNorm1d, LATE),
    "slowfast-dot": ("before", False, True, nn.BatchNorm1d, LATE),
    "slowfast-nopool": ("before", True, True, nn.BatchNorm1d, LATE),
    "slowfast-nopool-dot": ("before", False, True, nn.BatchNorm1d, LATE),
    "pytorchvideo": ("before", True, True, nn.BatchNorm1d, LATE),
    "mmaction-i3d": ("after", False, False, nn.BatchNorm1d, LATE),
    "mmaction-i3d-dot": ("after", False, False, nn.BatchNorm1d, LATE),
    "mmaction-i3d-heavy": ("after", False, False, nn.BatchNorm1d, LATE),
    "mmaction-c2d": ("after", False, False, nn.BatchNorm1d, LATE),
    "mmaction-c2d-nopool": ("after", False, False, nn.BatchNorm1d, LATE),
    "mmaction-tsm": ("after", False, False, nn.BatchNorm1d, EARLY),
    "mmaction-tsm-dot": ("after", False, False, nn.BatchNorm1d, EARLY),
    "mmaction-slowonly": ("after", True, False, nn.BatchNorm1d, EARLY),
    "mmaction-slowonly-dot": ("after", False, False, nn.BatchNorm1d, EARLY),
    "tsm": ("after", False, True, nn.BatchNorm1d, EARLY),
    "tsn": ("after", False, True, nn.BatchNorm1d, EARLY),
    "alexhex7": ("after", False, True, nn.BatchNorm1d, ("conv_1", "conv_2")),
    "alexhex7-dot": ("after", False, True, nn.BatchNorm1d, ("conv_1", "conv_2")),
}

# Frames x stride of the clip ("segments" for frames spread over the video), the size of the maps
# of res2 and of the frames there and in res3, for a clip of 224 x 224.
GEOMETRY = {
    "paper": ("32x2", 56, 8, 4),
    "caffe2-8x8": ("8x8", 55, 8, 4),
    "caffe2-32x2": ("32x2", 55, 8, 4),
    "caffe2-32x4-affine": ("32x4", 55, 32, 16),
    "caffe2-128x1-affine": ("128x1", 55, 32, 16),
    "lfb": ("32x4", 56, 32, 16),
    "slowfast": ("8x8", 56, 8, 4),
    "slowfast-dot": ("8x8", 56, 8, 4),
    "slowfast-nopool": ("8x8", 56, 8, 8),
    "slowfast-nopool-dot": ("8x8", 56, 8, 8),
    "pytorchvideo": ("8x8", 56, 8, 4),
    "mmaction-i3d": ("32x2", 56, 8, 4),
    "mmaction-i3d-dot": ("32x2", 56, 8, 4),
    "mmaction-i3d-heavy": ("32x2", 56, 32, 16),
    "mmaction-c2d": ("8x8", 55, 8, 4),
    "mmaction-c2d-nopool": ("8x8", 56, 8, 8),
    "mmaction-tsm": ("8 segments", 56, 8, 8),
    "mmaction-tsm-dot": ("8 segments", 56, 8, 8),
    "mmaction-slowonly": ("4x16", 56, 4, 4),
    "mmaction-slowonly-dot": ("4x16", 56, 4, 4),
    "tsm": ("8 segments", 56, 8, 8),
    "tsn": ("8 segments", 56, 8, 8),
}


def build(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.mark.parametrize(("preset", "network"), NETWORKS)
def test_every_preset_builds_its_networks(preset: str, network: str) -> None:
    positions = SIZES[{**MODELS, **IMAGE_MODELS}[network][1]].positions
    for count in (0, *(n for n in positions if isinstance(n, int))):
        model = build(network, num_classes=7, non_local=count, preset=preset)
        assert len(blocks(model)) == count
        card = card_of(model)
        shape = (3, card.frames, card.crop, card.crop)
        shape = (1, card.crop, card.crop) if network == "digits" else shape
        with torch.no_grad():
            out = model.eval()(torch.empty(1, *shape, device="meta"))
        assert out.shape == (1, 7)
        # the card's architecture is the whole of it: the same network again, without the preset
        again = build(**card.architecture)
        assert card_of(again).architecture == card.architecture
        assert again.state_dict().keys() == model.state_dict().keys()
        assert repr(again) == repr(model)


def test_the_tables_here_are_complete() -> None:
    blockless = {"tsm-online"}
    assert {*BLOCKS} | blockless == {*PRESETS}
    assert {*GEOMETRY} | blockless | {"alexhex7", "alexhex7-dot"} == {*PRESETS}


@pytest.mark.parametrize("preset", BLOCKS)
def test_blocks_are_the_codebases(preset: str) -> None:
    subsample, scaled, biased, norm, positions = BLOCKS[preset]
    network = PRESETS[preset].networks[0]
    found = blocks(build(network, non_local=2 if network == "digits" else 5, preset=preset))
    assert tuple(found) == positions
    for name, block in found.items():
        assert isinstance(block, NonLocalBlock)
        assert block.subsample == subsample
        assert block.scale == (block.inner**-0.5 if scaled else None)
        assert (block.out.bias is not None) == biased
        assert type(block.norm) is (norm or type(None))
        assert block.inner * 2 == block.channels
        assert block.cells is None
        dot = preset.endswith("-dot")
        assert block.pairwise == ("dot_product" if dot else "embedded_gaussian")
        grouped = preset in ("caffe2-32x4-affine", "caffe2-128x1-affine", "lfb")
        assert block.temporal_group == (4 if grouped and name.startswith("layer2") else None)


@pytest.mark.parametrize("preset", GEOMETRY)
def test_geometry_is_the_codebases(preset: str) -> None:
    clip, side, early, late = GEOMETRY[preset]
    model = build(PRESETS[preset].networks[0], preset=preset)
    assert isinstance(model, ResNet3d)
    card = card_of(model)
    kind = f"{card.frames}x{card.stride}" if card.sampling == "dense" else f"{card.frames} segments"
    assert kind == clip
    shapes = {}
    for name in ("layer1", "layer2", "layer4"):
        model.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: shapes.update({name: tuple(o.shape[2:])})
        )
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, card.frames, 224, 224, device="meta"))
    assert shapes["layer1"] == (early, side, side)
    assert shapes["layer2"] == (late, 28, 28)
    assert shapes["layer4"] == (late, 7, 7)
    assert model.conv1.kernel_size[0] == (5 if "i3d" in PRESETS[preset].networks[0] else 1)


def test_what_the_cards_say() -> None:
    cards = {name: card_of(build(p.networks[0], preset=name)) for name, p in PRESETS.items()}
    caffe2 = {"caffe2-8x8", "caffe2-32x2", "caffe2-32x4-affine", "caffe2-128x1-affine", "lfb"}
    mmaction = {name for name in PRESETS if name.startswith("mmaction")}
    assert {n for n, c in cards.items() if c.starts == "share"} == caffe2
    assert {n for n, c in cards.items() if c.beyond == "wrap"} == caffe2 | mmaction
    imagenet = {n for n, c in cards.items() if c.mean == (0.485, 0.456, 0.406)}
    assert imagenet == {*mmaction, "tsm", "tsn", "tsm-online"}
    assert {c.mean for n, c in cards.items() if n not in imagenet} == {Card().mean}
    # TSN's head in MMAction2's C2D takes the frames of all views for one clip's
    logits = {"tsm", "tsn", "tsm-online", "mmaction-c2d-nopool"}
    assert {n for n, c in cards.items() if c.aggregate == "logits"} == logits
    heads = {n: c.architecture.get("head") for n, c in cards.items()}
    windowed = {n for n, head in heads.items() if head == "7x7-softmax"}
    assert windowed == caffe2 | {n for n in PRESETS if n.startswith("slowfast")}
    assert heads["pytorchvideo"] == "7x7-logits"


@pytest.mark.parametrize("preset", ["caffe2-32x4-affine", "caffe2-128x1-affine", "lfb"])
def test_long_clip_networks_train_no_norm(preset: str) -> None:
    model = build("i3d_resnet50", non_local=5, preset=preset)
    kinds = {type(m) for m in model.modules()}
    assert Affine3d in kinds
    assert not kinds & {BatchNorm3d, nn.BatchNorm1d}
    assert not [n for n, _ in model.named_parameters() if "bn" in n or "norm" in n]


def test_the_online_preset_sees_the_past_alone() -> None:
    def directions(preset: str) -> set[str]:
        model = build("tsm_mobilenetv2", preset=preset)
        return {m.direction for m in model.modules() if isinstance(m, TemporalShift)}

    assert directions("tsm-online") == {"past"}
    assert directions("tsm") == {"both"}


def test_what_is_said_besides_the_preset_wins() -> None:
    options: dict[str, Any] = {
        "stem": "paper", "head": "global", "subsample": "none", "scale": None, "norm": "frozen",
        "pairwise": "dot_product",
    }  # fmt: skip
    model = build("i3d_resnet50", non_local=5, preset="slowfast", **options)
    architecture = card_of(model).architecture
    assert {key: architecture[key] for key in options} == options
    for block in blocks(model).values():
        assert (block.subsample, block.scale, block.pairwise) == ("none", None, "dot_product")
        assert isinstance(block.norm, FrozenBatchNorm)
    assert isinstance(model, ResNet3d)
    assert model.maxpool.kernel_size == STEMS["paper"].pool1.kernel  # type: ignore[union-attr]
    # what is not said stays the preset's
    plain = card_of(build("i3d_resnet50", preset="slowfast", non_local=5))
    assert card_of(model) == dataclasses.replace(plain, architecture=architecture)
    named = build("i3d_resnet50", non_local=("layer4.0",), preset="slowfast")
    assert list(blocks(named)) == ["layer4.0"]
    # five of PySlowFast's at depth 101 are its own, any other number is the paper's
    deep = build("i3d_resnet101", non_local=5, preset="slowfast")
    assert tuple(blocks(deep)) == LATE
    # a depth that PySlowFast has not keeps our own five
    small = build("i3d_resnet18", non_local=5, preset="slowfast")
    assert tuple(blocks(small)) == SIZES["resnet18"].positions[5]
    with pytest.raises(ValueError, match="mobilenetv2 has documented positions for 0"):
        build("tsm_mobilenetv2", non_local=5, preset="tsm")
    one = build("i3d_resnet101", non_local=1, preset="slowfast")
    assert list(blocks(one)) == ["layer3.21"]


def test_presets_name_what_exists() -> None:
    known = {*Options.__annotations__}
    fields = {field.name for field in dataclasses.fields(Card)}
    for name, preset in PRESETS.items():
        assert {*preset.options} <= known
        assert {*preset.card} <= fields
        assert preset.text
        assert "\n" not in preset.text
        assert preset.networks
        assert {*preset.networks} <= {*MODELS, *IMAGE_MODELS}
        assert all(preset.five in SIZES[s].positions for s in ("resnet50", "resnet101")), name


def test_published_models_are_of_networks_their_preset_is_for() -> None:
    depths = {"r50": "resnet50", "r101": "resnet101", "mobilenetv2": "mobilenetv2"}
    for row in PUBLISHED.values():
        assert row.preset in PRESETS
        size = depths[row.name.rpartition("-")[2]]
        assert size in {n.partition("_")[2] for n in PRESETS[row.preset].networks}, row.name

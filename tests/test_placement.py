from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch
import torchvision
from torch import nn

from nonlocalnet import create_model, describe, shift
from nonlocalnet.placement import places, residual_blocks


@pytest.fixture(autouse=True)
def without_weights() -> Iterator[None]:
    with torch.device("meta"):
        yield


def of(*stages: tuple[str, list[int]], conv: str) -> tuple[str, ...]:
    return tuple(f"{stage}.{i}{conv}" for stage, indices in stages for i in indices)


ALL50 = [(f"layer{s}", [*range(n)]) for s, n in enumerate((3, 4, 6, 3), 1)]
# every second one of each stage, counted anew in each (mit-han-lab's n_round = 2)
HALF101 = [(f"layer{s}", [*range(0, n, 2)]) for s, n in enumerate((3, 4, 23, 3), 1)]
DEPTHS = {"convnext_tiny": (3, 3, 9, 3), "convnext_atto": (2, 2, 6, 2)}
# MobileNetV2's ten are those of the online demo's caches; the others were read off the published
# tables: blocks of stride 1 between equal widths, where the middle is wider than both
MOBILE2 = [3, 5, 6, 8, 9, 10, 12, 13, 15, 16]
MOBILE3_SMALL = [3, 5, 6, 8, 10, 11]
MOBILE3_LARGE = [3, 5, 6, 8, 9, 10, 12, 14, 15]
EFFICIENT = {2: [1], 3: [1], 4: [1, 2], 5: [1, 2], 6: [1, 2, 3]}
EFFICIENT2_S = {2: 4, 3: 4, 4: 6, 5: 9, 6: 15}  # the first of each halves or widens

TORCHVISION = {
    "resnet18": of(*((f"layer{s}", [0, 1]) for s in (1, 2, 3, 4)), conv=".conv1"),
    "resnet50": of(*ALL50, conv=".conv1"),
    "resnet101": of(*HALF101, conv=".conv1"),
    "resnext50_32x4d": of(*ALL50, conv=".conv1"),
    "wide_resnet50_2": of(*ALL50, conv=".conv1"),
    "mobilenet_v2": of(("features", MOBILE2), conv=".conv.0.0"),
    "mobilenet_v3_small": of(("features", MOBILE3_SMALL), conv=".block.0.0"),
    "mobilenet_v3_large": of(("features", MOBILE3_LARGE), conv=".block.0.0"),
    "efficientnet_b0": of(*((f"features.{s}", i) for s, i in EFFICIENT.items()), conv=".block.0.0"),
    "efficientnet_v2_s": of(
        *((f"features.{s}", [*range(1, n)]) for s, n in EFFICIENT2_S.items()), conv=".block.0.0"
    ),
    "convnext_tiny": of(
        *((f"features.{2 * s + 1}", [*range(n)]) for s, n in enumerate(DEPTHS["convnext_tiny"])),
        conv=".block.0",
    ),
}
TIMM = {
    "resnet50": of(*ALL50, conv=".conv1"),
    "resnext101_32x4d": of(*HALF101, conv=".conv1"),
    "mobilenetv2_100": of(
        *((f"blocks.{s}", i) for s, i in enumerate([[1], [1, 2], [1, 2, 3], [1, 2], [1, 2]], 1)),
        conv=".conv_pw",
    ),
    "mobilenetv3_small_100": of(
        *((f"blocks.{s}", i) for s, i in enumerate([[1], [1, 2], [1], [1, 2]], 1)), conv=".conv_pw"
    ),
    "efficientnet_b0": of(*((f"blocks.{s - 1}", i) for s, i in EFFICIENT.items()), conv=".conv_pw"),
    "convnext_atto": of(
        *((f"stages.{s}.blocks", [*range(n)]) for s, n in enumerate(DEPTHS["convnext_atto"])),
        conv=".conv_dw",
    ),
}
OURS = {
    "resnet50": of(*ALL50, conv=".conv1"),
    "resnet101": of(*HALF101, conv=".conv1"),
    "mobilenetv2": of(("features", MOBILE2), conv=".conv.0.0"),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    assert places(torchvision.models.get_model(name)) == TORCHVISION[name]


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    assert places(timm.create_model(name)) == TIMM[name]


@pytest.mark.parametrize("name", OURS)
def test_ours(name: str) -> None:
    model = create_model(f"tsm_{name}")
    shifted = [n for n, m in model.named_modules() if hasattr(m, "temporal_shift")]
    assert tuple(shifted) == places(model) == OURS[name]


def test_efficientnet_v2_fuses_convolutions_in_timm_too() -> None:
    found = places(timm.create_model("tf_efficientnetv2_s"))
    want = {("1", 1): "conv_exp", ("2", 3): "conv_exp", ("3", 1): "conv_pw", ("5", 14): "conv_pw"}
    for (stage, index), conv in want.items():
        assert f"blocks.{stage}.{index}.{conv}" in found
    assert len(found) == sum(n - 1 for n in EFFICIENT2_S.values())


def test_in_place_shifts_whole_blocks_and_every_one() -> None:
    """mit-han-lab's "block": the rule of every second block is for residual placement alone."""
    assert places(torchvision.models.resnet101(), "block") == of(
        ("layer1", [0, 1, 2]), ("layer2", [*range(4)]), ("layer3", [*range(23)]),
        ("layer4", [0, 1, 2]), conv="",
    )  # fmt: skip
    assert places(create_model("tsm_mobilenetv2"), "block") == of(("features", MOBILE2), conv="")


def test_blocks_are_counted_where_none_is_shifted_too() -> None:
    counts = {"mobilenet_v2": 17, "efficientnet_b0": 16, "convnext_tiny": 18, "resnet101": 33}
    for name, count in counts.items():
        assert len(residual_blocks(torchvision.models.get_model(name))) == count


def test_a_network_of_another_kind_is_told_what_to_do() -> None:
    for name in ("vgg11", "squeezenet1_0", "mnasnet1_0"):
        with pytest.raises(ValueError, match=r"not known: .* ResNet.* ConvNeXt.* name the modules"):
            shift(torchvision.models.get_model(name))
    vgg = shift(torchvision.models.vgg11(), ("features.3", "features.8"), frames=4)
    assert "shift: 1/8 from the future, 1/8 from the past; before features.3, features.8" in (
        describe(vgg)
    )


def test_a_block_that_has_the_name_alone_is_not_known() -> None:
    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Linear(4, 4)

    assert not residual_blocks(nn.Sequential(Bottleneck()))


def test_describe_says_what_was_shifted() -> None:
    told = describe(shift(torchvision.models.mobilenet_v2(), direction="past", fraction=4))
    assert (
        "shift, residual placement, 10 of 17 blocks: 1/4 from the past; before features.3." in told
    )
    told = describe(shift(torchvision.models.resnet101()))
    assert "residual placement, 18 of 33 blocks: 1/8 from the future, 1/8 from the past" in told
    told = describe(shift(torchvision.models.resnet18(), "block"))
    assert "shift, in-place placement, 8 of 8 blocks:" in told
    assert "before layer1.0, layer1.1, " in told

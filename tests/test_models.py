from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nonlocalnet import create_model
from nonlocalnet.card import card_of
from nonlocalnet.cost import Row, cost
from nonlocalnet.layers import Conv3d
from nonlocalnet.models import MODELS, input_shape
from nonlocalnet.sizes import SIZES, block_positions
from nonlocalnet.surgery import blocks

# Parameters (M) and multiply-adds (G) for 32 x 224 x 224 and 400 classes in the paper's geometry,
# from a layer-by-layer calculation by hand, independent of this code: C2D's 43.2 M and the
# ratios 1.2x/1.5x (I3D 3x1x1), 1.5x/1.8x (3x3x3) and 1.2x/1.2x (NL C2D) of the paper's Table 2e.
# Then multiply-adds with Caffe2's unpadded pools (55 x 55 in res2), the "released geometry".
TABLE = [
    ("c2d_resnet50", 0, "3x1x1", 24.328, 20.437, 20.234),
    ("i3d_resnet50", 0, "3x3x3", 33.434, 39.088, 38.688),
    ("i3d_resnet50", 0, "3x1x1", 28.043, 33.128, 32.830),
    ("c2d_resnet50", 1, "3x1x1", 26.429, 21.622, 21.419),
    ("c2d_resnet50", 5, "3x1x1", 31.686, 28.565, 28.361),
    ("c2d_resnet50", 10, "3x1x1", 39.045, 36.693, 36.489),
    ("i3d_resnet50", 5, "3x1x1", 35.402, 41.256, 40.958),
    ("c2d_resnet101", 0, "3x1x1", 43.320, 35.286, 35.083),
    ("i3d_resnet101", 0, "3x3x3", 63.043, 62.261, 61.861),
    ("i3d_resnet101", 0, "3x1x1", 51.754, 51.676, 51.378),
    ("c2d_resnet101", 1, "3x1x1", 45.422, 36.471, 36.267),
    ("c2d_resnet101", 5, "3x1x1", 50.678, 43.414, 43.210),
    ("c2d_resnet101", 10, "3x1x1", 58.037, 51.542, 51.338),
    ("i3d_resnet101", 5, "3x1x1", 59.113, 59.804, 59.506),
]


@pytest.mark.parametrize(
    ("name", "non_local", "style", "parameters", "multiply_adds", "released"), TABLE
)
def test_size_and_cost_of_the_papers_networks(
    name: str,
    non_local: int,
    style: str,
    parameters: float,
    multiply_adds: float,
    released: float,
) -> None:
    options = {"non_local": non_local, "inflate_style": style}
    for stem, billions in (("paper", multiply_adds), ("caffe2-32", released)):
        total = total_of(name, (3, 32, 224, 224), stem=stem, **options)
        assert round(total.parameters / 1e6, 3) == parameters
        assert round(total.multiply_adds / 1e9, 3) == billions


# Multiply-adds (G) of other geometries from the same calculation; where a codebase publishes a
# figure, it is this one with the norms counted too (docs/networks.md).
OTHERS: list[tuple[str, tuple[int, int], dict[str, Any], float]] = [
    # the stride on the 1x1: the only way to the paper's 34.2, and none of the released networks
    ("c2d_resnet101", (32, 224), {"stem": "caffe2-32", "stride_on": "1x1"}, 34.172),
    ("c2d_resnet101", (32, 224), {"stride_on": "1x1"}, 34.361),
    ("c2d_resnet101", (8, 224), {"stem": "caffe2-8"}, 34.138),
    # MMAction2: its figures are those of a 256 x 256 crop, but for C2D and TSM
    ("i3d_resnet50", (32, 256), {"preset": "mmaction-i3d"}, 43.27),
    ("i3d_resnet50", (32, 224), {"preset": "mmaction-i3d"}, 33.13),
    ("i3d_resnet50", (32, 256), {"preset": "mmaction-i3d", "non_local": 5}, 59.1),
    (
        "i3d_resnet50",
        (32, 256),
        {"preset": "mmaction-i3d", "non_local": 5, "pairwise": "gaussian"},
        56.3,
    ),
    ("c2d_resnet50", (8, 224), {"preset": "mmaction-c2d-nopool"}, 32.7),
    ("c2d_resnet101", (8, 224), {"preset": "mmaction-c2d-nopool"}, 62.4),
    ("c2d_resnet50", (8, 224), {"preset": "mmaction-c2d"}, 19.3),
    ("tsm_resnet50", (8, 224), {"preset": "mmaction-tsm"}, 32.70),
    ("tsm_resnet50", (8, 224), {"preset": "mmaction-tsm", "non_local": 5}, 61.10),
    (
        "tsm_resnet50",
        (8, 224),
        {"preset": "mmaction-tsm", "non_local": 5, "pairwise": "gaussian"},
        58.86,
    ),
    # PyTorchVideo
    ("c2d_resnet50", (8, 256), {"preset": "pytorchvideo"}, 25.46),
    # 37.106: the sheet's 37.10 is cut off behind the second digit
    ("i3d_resnet50", (8, 256), {"preset": "pytorchvideo"}, 37.11),
    # 128 frames: about 131 without blocks
    ("i3d_resnet50", (128, 224), {"preset": "caffe2-128x1-affine"}, 131),
]


@pytest.mark.parametrize(("name", "clip", "options", "billions"), OTHERS)
def test_cost_of_other_geometries(
    name: str, clip: tuple[int, int], options: dict[str, Any], billions: float
) -> None:
    frames, side = clip
    total = total_of(name, (3, frames, side, side), **options)
    digits = len(str(billions).partition(".")[2])
    assert round(total.multiply_adds / 1e9, digits) == billions


def test_parameters_of_other_networks() -> None:
    """Those the codebases' own modules have, with all norms and biases."""
    counts = {
        24_327_632: ("c2d_resnet50", {"preset": "pytorchvideo"}),
        28_043_472: ("i3d_resnet50", {"preset": "pytorchvideo"}),
        31_686_096: ("tsm_resnet50", {"preset": "tsm", "non_local": 5}),
        # MMAction2's backbone without biases on W_z, and a head for 400 classes
        34_578_240 + 2049 * 400: ("i3d_resnet50", {"preset": "mmaction-i3d", "non_local": 5}),
    }
    for count, (name, options) in counts.items():
        with torch.device("meta"):
            model = create_model(name, **options)
        assert sum(p.numel() for p in model.parameters()) == count


def test_table_2e_counts_kernels_and_matrices() -> None:
    """43.2 M, 1.5x, 1.2x and 1.2x: without norms and biases, as Caffe2's code counts."""
    millions = {}
    for row, (name, options) in {
        "C2D": ("c2d_resnet101", {}),
        "I3D 3x3x3": ("i3d_resnet101", {"inflate_style": "3x3x3"}),
        "I3D 3x1x1": ("i3d_resnet101", {}),
        "NL C2D": ("c2d_resnet101", {"non_local": 5}),
    }.items():
        with torch.device("meta"):
            model = create_model(name, **options)  # type: ignore[arg-type]
        millions[row] = sum(p.numel() for p in model.parameters() if p.dim() > 1) / 1e6
    rounded = {row: round(value, 2) for row, value in millions.items()}
    assert rounded == {"C2D": 43.21, "I3D 3x3x3": 62.94, "I3D 3x1x1": 51.65, "NL C2D": 50.55}
    assert round(millions["C2D"], 3) == 43.214


def total_of(name: str, clip: tuple[int, ...], **options: Any) -> Row:
    with torch.device("meta"):
        return cost(create_model(name, **options), clip)[-1]


def test_cost_tells_each_stage_and_block() -> None:
    rows = cost(create_model("i3d_tiny", 4, non_local=1), (3, 8, 32, 32))
    by_name = {row.name: row for row in rows}
    assert by_name["layer2"].shape == (32, 8, 8, 8)
    block = by_name["layer2.0.non_local"]
    queries, keys, c, inner = 8 * 8 * 8, 8 * 4 * 4, 32, 16
    products = 2 * queries * keys * inner
    embeddings = (queries * 2 + keys * 2) * c * inner
    assert block.multiply_adds == products + embeddings
    assert by_name["total"].parameters == sum(
        row.parameters for row in rows if "." not in row.name and row.name != "total"
    )
    with pytest.raises(ValueError, match="cannot take a clip of"):
        cost(create_model("i3d_tiny"), (4, 8, 32, 32))


@pytest.mark.parametrize("name", MODELS)
def test_every_network_learns_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"zero_init": "none", "dropout": 0.0}
    if "mobilenet" in name:
        model = create_model(name, 3, non_local=("features.6",), **options)
    else:
        width = None if "tiny" in name else 8
        model = create_model(name, 3, non_local="res3", width=width, **options)
    wake(model).train()
    x = torch.randn(2, 3, 16, 64, 64)
    logits = model(x)
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [n for n in still if not n.endswith("out.bias")]  # BN removes that one's effect


def test_positions_are_the_documented_ones() -> None:
    every = ("layer2.0", "layer2.1", "layer2.2", "layer2.3")
    assert block_positions("resnet50", 1) == ("layer3.4",)
    assert block_positions("resnet50", 5) == (
        "layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5",
    )  # fmt: skip
    assert block_positions("resnet50", 10) == (*every, *(f"layer3.{i}" for i in range(6)))
    assert block_positions("resnet101", 1) == ("layer3.21",)
    assert block_positions("resnet101", 5)[2:] == ("layer3.6", "layer3.13", "layer3.20")
    # TSM's and PySlowFast's own five; the latter are those of depth 50 at any depth
    for size in ("resnet50", "resnet101"):
        tsm = ("layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4")
        assert block_positions(size, "tsm") == tsm
        assert block_positions(size, "slowfast") == block_positions("resnet50", 5)
    # one block right before the last residual block of a stage (paper Table 2b)
    stages = {"res2": "layer1.1", "res3": "layer2.2", "res4": "layer3.4", "res5": "layer4.1"}
    for stage, block in stages.items():
        assert block_positions("resnet50", stage) == (block,)
    assert list(blocks(create_model("c2d_resnet18", non_local=("layer4.1",)))) == ["layer4.1"]


def test_i3d_inflates_the_documented_kernels() -> None:
    """9 of 16 blocks at depth 50 and 18 of 33 at depth 101, in Caffe2's pattern."""
    pattern = {"layer1": (0, 1, 2), "layer2": (0, 2), "layer3": (0, 2, 4), "layer4": (1,)}
    with torch.device("meta"):
        model = create_model("i3d_resnet50")
        deep = create_model("i3d_resnet101", inflate_style="3x3x3")
    found = [n for n, m in model.named_modules() if isinstance(m, Conv3d) and m.kernel_size[0] == 3]
    assert found == [f"{stage}.{i}.conv1" for stage, at in pattern.items() for i in at]
    assert model.conv1.kernel_size == (5, 7, 7)
    inflated = [m for m in deep.modules() if isinstance(m, Conv3d) and m.kernel_size == (3, 3, 3)]
    assert len(inflated) == 18


def test_i3d_may_inflate_every_block() -> None:
    with torch.device("meta"):
        models = [
            create_model("i3d_resnet50", inflate_blocks="all", inflate_style=style)
            for style in ("3x1x1", "3x3x3")
        ]
    every = [f"layer{s + 1}.{i}" for s, d in enumerate((3, 4, 6, 3)) for i in range(d)]
    for model, conv, kernel in zip(models, ("conv1", "conv2"), ((3, 1, 1), (3, 3, 3)), strict=True):
        found = [n for n, m in model.named_modules() if isinstance(m, Conv3d) and inflated(m)]
        assert found == ["conv1", *(f"{block}.{conv}" for block in every)]
        kernels = {model.get_submodule(name).kernel_size for name in found[1:]}
        assert kernels == {kernel}


def inflated(conv: Conv3d) -> bool:
    return conv.kernel_size[0] > 1


def test_slowonly_inflates_res4_and_res5_and_keeps_every_frame() -> None:
    """One kernel in each of their blocks, conv1 none: the slow pathway of SlowFast."""
    with torch.device("meta"):
        model = create_model("slowonly_resnet50")
        deep = create_model("slowonly_resnet101", inflate_style="3x3x3")
        features = model.features(torch.empty(1, 3, 4, 224, 224))
    assert features.shape == (1, 2048, 4, 7, 7)
    found = [n for n, m in model.named_modules() if isinstance(m, Conv3d) and inflated(m)]
    assert found == [f"layer{s}.{i}.conv1" for s, d in ((3, 6), (4, 3)) for i in range(d)]
    assert all(model.get_submodule(name).kernel_size == (3, 1, 1) for name in found)
    found = [n for n, m in deep.named_modules() if isinstance(m, Conv3d) and inflated(m)]
    assert found == [f"layer{s}.{i}.conv2" for s, d in ((3, 23), (4, 3)) for i in range(d)]
    card = card_of(model)
    assert (card.frames, card.stride, card.sampling) == (4, 16, "dense")


def test_groups_of_frames_in_res3_alone() -> None:
    """Caffe2's long-clip models: res3's blocks see four frames, res4's see all."""
    with torch.device("meta"):
        model = create_model("i3d_resnet50", non_local=5, temporal_groups={"layer2": 4})
        preset = create_model("i3d_resnet50", non_local=5, preset="caffe2-32x4-affine")
        own = create_model(
            "i3d_resnet50", non_local=5, temporal_groups={"layer2": 4}, temporal_group=2
        )
    for built, other in ((model, None), (preset, None), (own, 2)):
        groups = {name: block.temporal_group for name, block in blocks(built).items()}
        assert groups == {
            "layer2.1": 4, "layer2.3": 4, "layer3.1": other, "layer3.3": other, "layer3.5": other,
        }  # fmt: skip
    again = create_model(**card_of(create_model(
        "c2d_tiny", 3, non_local=("layer2.0",), temporal_groups={"layer2": 4}
    )).architecture)  # fmt: skip
    assert blocks(again)["layer2.0"].temporal_group == 4


def test_tsm_shifts_the_documented_blocks() -> None:
    with torch.device("meta"):
        names = {
            depth: [
                n.removesuffix(".temporal_shift")
                for n, _ in create_model(f"tsm_{depth}").named_modules()
                if n.endswith("temporal_shift")
            ]
            for depth in ("resnet50", "resnet101")
        }
    assert len(names["resnet50"]) == 16
    deep = SIZES["resnet101"].layers
    want = [f"layer{s + 1}.{i}.conv1" for s, d in enumerate(deep) for i in range(0, d, 2)]
    assert names["resnet101"] == want


def wake(model: nn.Module) -> nn.Module:
    """Residual branches start with a zero gain, which hides what they can see."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d | nn.BatchNorm1d):
            nn.init.ones_(module.weight)
    return model.eval()


def test_c2d_ignores_order_and_i3d_does_not() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, 32, 32)
    c2d, i3d = (wake(create_model(n, 4)) for n in ("c2d_tiny", "i3d_tiny"))
    with torch.no_grad():
        torch.testing.assert_close(i3d(x.flip(2)), i3d(x))  # inflated: t equal slices
        nn.init.normal_(i3d.get_submodule("layer2.0.conv1").weight, std=0.1)
        torch.testing.assert_close(c2d(x.flip(2)), c2d(x))
        assert not torch.allclose(i3d(x.flip(2)), i3d(x), atol=1e-5)


def test_i3d_tiny_sees_three_frames() -> None:
    # the demo rests on it: without a block, no feature relates frames further apart
    model = create_model("i3d_tiny", 4)
    wake(model)
    x = torch.randn(1, 3, 8, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.features(x)[:, :, 4].sum(), x)
    assert gradient.abs().sum((0, 1, 3, 4)).nonzero().flatten().tolist() == [3, 4, 5]


def test_a_network_carries_its_card() -> None:
    card = card_of(create_model("i3d_resnet18", 7, non_local=1, pairwise="dot_product"))
    assert (card.frames, card.stride, card.sampling) == (32, 2, "dense")
    assert card.architecture["non_local"] == ("layer3.0",)
    assert card_of(create_model(**card.architecture)) == card
    assert card_of(create_model("tsm_resnet18")).sampling == "segments"
    assert card_of(create_model("c2d_resnet18", stem="slowfast")).frames == 8


def test_the_input_a_network_is_made_for() -> None:
    with torch.device("meta"):
        dense = create_model("i3d_resnet50", preset="caffe2-128x1-affine")
        tiny, digits = create_model("tsm_tiny"), create_model("digits", 10, preset="alexhex7")
    assert input_shape(card_of(dense)) == (3, 128, 224, 224)
    assert input_shape(card_of(tiny)) == (3, 8, 32, 32)
    assert input_shape(card_of(digits)) == (1, 28, 28)  # pictures
    assert cost(digits, (1, 28, 28))[-1].shape == (10,)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("i3d_resnet34",), "there are c2d_tiny, .*tsm_resnet101"),
        (("i3d_resnet50", 400, 3), "0, 1, 5, 10 non-local blocks, not 3"),
        (("i3d_tiny", 4, "res5"), "has the stages res2, res3, res4"),
        (("i3d_tiny", 4, ("layer2.7",)), "ResNet3d.layer2 has 0"),
    ],
)
def test_wrong_names_and_numbers_are_told(args: tuple[object, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        create_model(*args)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no option pairwize"):  # also without a block to take it
        create_model("c2d_tiny", 2, pairwize="gaussian")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="'3x1x1' or '3x3x3'"):
        create_model("i3d_resnet18", inflate_style="3x3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'half' or 'all'"):
        create_model("i3d_resnet18", inflate_blocks="some")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("c2d_resnet18", {"inflate_style": "3x3x3"}, "c2d_resnet18 has no inflate_style.*'3x3x3'"),
        ("c2d_resnet18", {"inflate_blocks": "all"}, "has no inflate_blocks"),
        ("c2d_resnet18", {"shift": "past"}, "has no shift"),
        ("i3d_resnet18", {"shift": "past"}, "has no shift"),
        ("slowonly_resnet50", {"inflate_blocks": "all"}, "has no inflate_blocks"),
        ("tsm_resnet18", {"inflate_style": "3x3x3"}, "has no inflate_style"),
        ("tsm_mobilenetv2", {"stem": "slowfast"}, "has no stem"),
        ("tsm_mobilenetv2", {"head": "7x7-softmax"}, "has no head"),
        ("tsm_mobilenetv2", {"backbone_norm": "affine"}, "has no backbone_norm"),
        ("tsm_mobilenetv2", {"non_local": 5}, "non-local blocks, not 5"),
        ("tsm_mobilenetv2", {"preset": "slowfast"}, "has no head|has no stem"),
        ("c2d_tiny", {"non_local": "tsm"}, "no module 'tsm'"),
        ("i3d_resnet18", {"stride_on": "1x1"}, "stride is on the 3x3"),
        ("i3d_resnet50", {"preset": "caffe2"}, "no preset 'caffe2'; there are paper, caffe2-8x8"),
    ],
)
def test_options_that_a_network_has_not_are_refused(
    name: str, options: dict[str, Any], says: str
) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=says):
        create_model(name, **options)

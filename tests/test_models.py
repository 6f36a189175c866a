from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nonlocalnet import create_model
from nonlocalnet.card import card_of
from nonlocalnet.cost import cost
from nonlocalnet.layers import Conv3d
from nonlocalnet.models import MODELS
from nonlocalnet.sizes import SIZES, block_positions
from nonlocalnet.surgery import blocks

# Parameters (M) and multiply-adds (G) for 32 x 224 x 224 and 400 classes in the paper's geometry,
# from a layer-by-layer calculation by hand, independent of this code: C2D's 43.2 M and the
# ratios 1.2x/1.5x (I3D 3x1x1), 1.5x/1.8x (3x3x3) and 1.2x/1.2x (NL C2D) of the paper's Table 2e.
TABLE = [
    ("c2d_resnet50", 0, "3x1x1", 24.328, 20.437),
    ("i3d_resnet50", 0, "3x3x3", 33.434, 39.088),
    ("i3d_resnet50", 0, "3x1x1", 28.043, 33.128),
    ("c2d_resnet50", 1, "3x1x1", 26.429, 21.622),
    ("c2d_resnet50", 5, "3x1x1", 31.686, 28.565),
    ("c2d_resnet50", 10, "3x1x1", 39.045, 36.693),
    ("i3d_resnet50", 5, "3x1x1", 35.402, 41.256),
    ("c2d_resnet101", 0, "3x1x1", 43.320, 35.286),
    ("i3d_resnet101", 0, "3x3x3", 63.043, 62.261),
    ("i3d_resnet101", 0, "3x1x1", 51.754, 51.676),
    ("c2d_resnet101", 1, "3x1x1", 45.422, 36.471),
    ("c2d_resnet101", 5, "3x1x1", 50.678, 43.414),
    ("c2d_resnet101", 10, "3x1x1", 58.037, 51.542),
    ("i3d_resnet101", 5, "3x1x1", 59.113, 59.804),
]
# The same with Caffe2's unpadded pools (55 x 55 in res2), "released geometry".
RELEASED = [("c2d_resnet50", 0, 24.328, 20.234), ("i3d_resnet50", 5, 35.402, 40.958)]


@pytest.mark.parametrize(("name", "non_local", "style", "parameters", "multiply_adds"), TABLE)
def test_size_and_cost_of_the_papers_networks(
    name: str, non_local: int, style: str, parameters: float, multiply_adds: float
) -> None:
    with torch.device("meta"):
        model = create_model(name, non_local=non_local, inflate_style=style)  # type: ignore[arg-type]
    total = cost(model, (3, 32, 224, 224))[-1]
    assert round(total.parameters / 1e6, 3) == parameters
    assert round(total.multiply_adds / 1e9, 3) == multiply_adds


@pytest.mark.parametrize(("name", "non_local", "parameters", "multiply_adds"), RELEASED)
def test_size_and_cost_in_caffe2s_geometry(
    name: str, non_local: int, parameters: float, multiply_adds: float
) -> None:
    with torch.device("meta"):
        model = create_model(name, non_local=non_local, stem="caffe2-32")
    total = cost(model, (3, 32, 224, 224))[-1]
    assert round(total.parameters / 1e6, 3) == parameters
    assert round(total.multiply_adds / 1e9, 3) == multiply_adds


def test_cost_of_tsm() -> None:
    # 32.70 G at 8 x 224 x 224 and 24.33 M with 400 classes: an image ResNet-50 on 8 frames
    with torch.device("meta"):
        total = cost(create_model("tsm_resnet50"), (3, 8, 224, 224))[-1]
    assert round(total.multiply_adds / 1e9, 2) == 32.70
    assert round(total.parameters / 1e6, 2) == 24.33


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

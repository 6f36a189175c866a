from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from nonlocalnet import create_model, describe, inflate, insert, shift
from nonlocalnet.block import NonLocalBlock
from nonlocalnet.ops import PAIRWISE
from nonlocalnet.surgery import blocks, without_blocks


class Plain(nn.Module):
    """A user's network on sequences (N, 3, L)."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Conv1d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encode(x).relu().mean(-1))


def mask_rcnn() -> nn.Module:
    return torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=64, max_size=64, box_score_thresh=0.0,
        box_detections_per_img=3,
    )  # fmt: skip


Host = tuple[Callable[[], nn.Module], tuple[str, ...], Any]
HOSTS: dict[str, Host] = {
    "torchvision": (torchvision.models.resnet50, ("layer2.1", "layer3.4"), (2, 3, 64, 64)),
    "sequential": (torchvision.models.resnet18, ("layer3",), (2, 3, 64, 64)),
    "timm": (lambda: timm.create_model("convnext_atto"), ("stages.1", "stages.2"), (2, 3, 64, 64)),
    "plain": (Plain, ("encode",), (2, 3, 20)),
    "mask_rcnn": (mask_rcnn, ("backbone.body.layer3.4",), None),
    "ours": (lambda: create_model("i3d_resnet18", 5), ("layer2.1",), (1, 3, 8, 32, 32)),
}
TENSOR_HOSTS = [name for name in HOSTS if name != "mask_rcnn"]


def build(name: str) -> tuple[nn.Module, tuple[str, ...], Any]:
    make, after, shape = HOSTS[name]
    torch.manual_seed(0)
    model = make().eval()
    return model, after, [torch.rand(3, 64, 64)] if shape is None else torch.randn(shape)


def run(model: nn.Module, x: Any) -> list[Tensor]:
    with torch.no_grad():
        y = model(x)
    return [y] if isinstance(y, Tensor) else [v for found in y for v in found.values()]


def wake(model: nn.Module) -> None:
    for block in blocks(model).values():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.1)


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("host", HOSTS)
def test_insert_is_the_identity_and_renames_nothing(host: str) -> None:
    model, after, x = build(host)
    plain, before = model.state_dict(), run(model, x)
    assert insert(model, after) is model
    assert same(run(model, x), before)
    assert list(blocks(model)) == list(after)
    loaded = model.load_state_dict(plain, strict=False)
    assert not loaded.unexpected_keys
    assert loaded.missing_keys
    assert all(any(f"{a}.non_local." in key for a in after) for key in loaded.missing_keys)


@pytest.mark.parametrize("host", HOSTS)
def test_an_edited_network_can_be_copied_and_pickled(host: str) -> None:
    model, after, x = build(host)
    before = run(model, x)
    wake(insert(model, after))
    awake = run(model, x)
    assert not same(awake, before)
    assert same(run(copy.deepcopy(model), x), awake)
    assert same(run(pickle.loads(pickle.dumps(model)), x), awake)


@pytest.mark.parametrize("host", HOSTS)
def test_without_its_blocks_it_is_the_host_again(host: str) -> None:
    model, after, x = build(host)
    plain, before = list(model.state_dict()), run(model, x)
    wake(insert(model, after))
    awake, weights = run(model, x), dict(model.state_dict(keep_vars=True))
    bare = without_blocks(model)
    assert same(run(bare, x), before)
    assert not blocks(bare)
    shared = bare.state_dict(keep_vars=True)
    assert list(shared) == plain
    assert all(shared[key] is weights[key] for key in plain)  # no second copy of any weight
    assert same(run(model, x), awake)  # nothing of the network given has changed
    assert list(blocks(model)) == list(after)


def test_only_the_named_blocks_are_left_out_and_other_hooks_stay() -> None:
    model, (first, second), x = build("torchvision")
    wake(insert(model, (first, second)))
    other = insert(build("torchvision")[0], second)
    other.load_state_dict(model.state_dict(), strict=False)
    calls: list[str] = []
    model.get_submodule(first).register_forward_hook(lambda *_: calls.append(first))
    bare = without_blocks(model, [first])
    assert list(blocks(bare)) == [second]
    assert same(run(bare, x), run(other, x))
    assert calls == [first]
    with pytest.raises(ValueError, match=r"no block follows 'layer1.0'.*layer2.1, layer3.4 has"):
        without_blocks(model, ["layer1.0"])


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("host", TENSOR_HOSTS)
def test_an_edited_network_compiles_whole_and_exports(host: str, pairwise: str) -> None:
    """backend="eager" checks that the graph has no break; code generation is torch's matter."""
    model, after, x = build(host)
    wake(insert(model, after, pairwise=pairwise))
    want = run(model, x)[0]
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    # a graph may take another form of the softmax: a rounding, which grows with the logits
    close = {"rtol": 1.3e-6, "atol": 1e-5 * float(want.std())}
    torch.testing.assert_close(run(compiled, x)[0], want, **close)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(run(exported, x)[0], want, **close)


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_large_features_train_under_compile(pairwise: str) -> None:
    """Past the size where rows are formed a few at a time, with gradients through the graph."""
    torch.manual_seed(0)
    block = NonLocalBlock(4, pairwise=pairwise, norm="none", zero_init="none", subsample="none")
    x = torch.randn(1, 4, 1500, requires_grad=True)
    want = block(x)
    got = torch.compile(block, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(
        torch.autograd.grad(got.square().sum(), [x, *block.parameters()]),
        torch.autograd.grad(want.square().sum(), [x, *block.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)  # float32 sums of 1500^2


def test_width_comes_from_the_module_the_example_or_the_caller() -> None:
    class Join(nn.Module):
        """Gives out more channels than its last layer."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, self.conv(x)], dim=1)

    x = torch.randn(1, 3, 6, 6)
    host = nn.Sequential(Join(), nn.Flatten())
    assert blocks(insert(copy.deepcopy(host), "0", example=x))["0"].channels == 8
    assert blocks(insert(copy.deepcopy(host), "0", channels=8))["0"].channels == 8
    wrong = insert(copy.deepcopy(host), "0")  # told by the last layer: 5
    with pytest.raises(ValueError, match=r"\(N, 5, \*positions\)"):
        wrong(x)
    with pytest.raises(ValueError, match="pass channels or example"):
        insert(nn.Sequential(nn.ReLU()), "0")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("layer5.0",), "no module 'layer5.0' in ResNet; ResNet has conv1, .*layer4"),
        (("layer3.9",), "ResNet.layer3 has 0, 1"),
        (("layer3.0", "layer3.0"), "are one module"),
        (("layer3.0", "maxpool"), "pass channels or example"),
    ],
)
def test_wrong_names_are_told_with_the_right_ones(names: tuple[str, ...], says: str) -> None:
    model = torchvision.models.resnet18()
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=says):
        insert(model, names)
    assert list(model.state_dict()) == keys  # nothing was half done


def test_insert_refuses_what_cannot_work() -> None:
    model = insert(torchvision.models.resnet18(), "layer3.0")
    with pytest.raises(ValueError, match="has a non-local block already"):
        insert(model, "layer3.0")
    with pytest.raises(ValueError, match="inside it, such as 'features.denseblock1.denselayer6'"):
        insert(torchvision.models.densenet121(), "features.denseblock1")
    with pytest.raises(TypeError, match="pairwize"):
        insert(torchvision.models.resnet18(), "layer3.0", pairwize="gaussian")  # type: ignore[call-arg]


def test_insert_follows_dtype_and_mode() -> None:
    block = blocks(insert(torchvision.models.resnet18().double().eval(), "layer3.0"))["layer3.0"]
    assert block.g.weight.dtype == torch.float64
    assert not block.training


def test_inflate_on_a_still_clip_gives_the_image() -> None:
    """The 1/t rule: away from the clip's ends, t equal frames sum to the image's response."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    keys, x = list(model.state_dict()), torch.randn(1, 3, 40, 40)
    feature = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool, model.layer1)
    want = feature(x)
    whole = model(x)
    assert inflate(copy.deepcopy(model))(x.unsqueeze(2)).allclose(whole, atol=1e-5)
    inflate(model, {"conv1": 5, "layer1.0.conv1": 3, "layer1.1.conv2": 3})
    assert list(model.state_dict()) == keys
    assert model.conv1.weight.shape == (64, 3, 5, 7, 7)
    feature = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool, model.layer1)
    video = feature(x.unsqueeze(2).expand(-1, -1, 11, -1, -1))
    torch.testing.assert_close(video[:, :, 5], want, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(video[:, :, 0], want, atol=1e-2)  # zeros come in at the ends


def test_inflate_copies_norms_and_keeps_edits() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1))
    model(torch.randn(8, 3, 6, 6))  # statistics that are not the initial ones
    model.eval()
    x = torch.randn(2, 3, 6, 6)
    want = model(x)
    wake(insert(model, "0", mode="spacetime"))
    edited = model(x)
    inflate(model)
    torch.testing.assert_close(model(x.unsqueeze(2)).squeeze(2), edited)
    assert not torch.allclose(edited, want)
    assert list(blocks(model)) == ["0"]


def test_inflate_keeps_what_is_frozen_and_what_is_shared() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False))
    model.double().requires_grad_(False)
    inflate(model)
    assert not any(p.requires_grad for p in model.parameters())
    assert {t.dtype for t in model.state_dict().values()} == {torch.float64, torch.int64}
    conv = nn.Conv2d(3, 3, 1)
    twice = nn.ModuleDict({"a": conv, "b": conv})
    inflate(twice, {"b": 3})
    assert twice["a"] is twice["b"]
    assert twice["a"].weight.shape == (3, 3, 3, 1, 1)
    tied = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="'0' and '1' share a weight"):
        inflate(tied)


def test_a_module_with_two_names_is_edited_once_or_refused() -> None:
    conv = nn.Conv2d(8, 8, 1)
    model = nn.ModuleDict({"a": conv, "b": conv})
    for edit in (insert, shift):
        with pytest.raises(ValueError, match="'a' and 'b' are one module"):
            edit(model, ("a", "b"))


def test_an_example_leaves_the_network_as_it_was() -> None:
    model = torchvision.models.resnet18().train()
    model.bn1.eval()  # a frozen norm
    insert(model, "layer1.0", example=torch.zeros(1, 3, 32, 32))
    assert model.training
    assert not model.bn1.training
    side = nn.ModuleDict({"used": nn.Conv2d(3, 3, 1), "unused": nn.Conv2d(3, 3, 1)})
    side.forward = lambda x: side["used"](x)
    with pytest.raises(ValueError, match="never came through 'unused'"):
        insert(side, "unused", example=torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="gives out a tuple"):
        insert(nn.Sequential(nn.LSTM(3, 3)), "0", example=torch.zeros(2, 4, 3))


def test_a_module_without_parameters_takes_the_networks_type() -> None:
    model = insert(torchvision.models.resnet18().double(), "maxpool", channels=64)
    assert model(torch.zeros(2, 3, 32, 32, dtype=torch.float64)).dtype == torch.float64


def test_a_subclass_of_sequential_runs_its_block_once() -> None:
    model = torchvision.models.mobilenet_v2().eval()
    x = torch.randn(1, 3, 32, 32)
    wake(insert(model, "features.18", channels=1280))
    calls = []
    blocks(model)["features.18"].register_forward_hook(lambda *_: calls.append(1))
    model(x)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ({"conv9": 3}, "no module 'conv9'"),
        ({"bn1": 3}, "only convolutions inflate"),
        ({"conv1": 4}, "odd and at least 1"),
    ],
)
def test_inflate_refuses_what_cannot_work(at: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        inflate(torchvision.models.resnet18(), at)


def test_inflate_refuses_layers_it_has_no_twin_for() -> None:
    with pytest.raises(ValueError, match="'0' cannot be inflated: a InstanceNorm2d has no"):
        inflate(nn.Sequential(nn.InstanceNorm2d(3)))
    with pytest.raises(ValueError, match="a StdConv2d has no 3-D twin"):  # not a plain convolution
        inflate(nn.Sequential(timm.layers.StdConv2d(3, 4, 3)))
    with pytest.raises(ValueError, match="'0' cannot be inflated: a max pooling with"):
        inflate(nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)))
    with pytest.raises(ValueError, match=r"wrap this one in nn\.Sequential"):
        inflate(nn.Conv2d(3, 4, 1))
    with pytest.raises(ValueError, match="time kernel of 5 already"):
        inflate(create_model("i3d_resnet18"), {"conv1": 3})


def test_shift_is_on_the_branch_and_not_on_the_identity() -> None:
    torch.manual_seed(0)
    model = create_model("c2d_tiny", 2).eval()
    block = model.layer1[0]
    nn.init.ones_(block.bn2.weight)
    x = torch.rand(1, 16, 8, 8, 8)
    plain = block(x)
    shift(model, "layer1.0.conv1")
    moved = torch.zeros_like(x)
    moved[:, :2, :-1], moved[:, 2:4, 1:], moved[:, 4:] = x[:, :2, 1:], x[:, 2:4, :-1], x[:, 4:]
    conv = block.conv1
    branch = nn.functional.conv3d(moved, conv.weight, padding=(0, 1, 1))
    want = torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(branch)))) + x)
    torch.testing.assert_close(block(x), want)
    assert not torch.allclose(plain, want)
    with pytest.raises(ValueError, match="shifted already"):
        shift(model, "layer1.0.conv1")


def test_shift_on_a_foreign_network_with_frames_in_the_batch() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    keys = list(model.state_dict())
    shift(model, [f"layer{s}.{i}.conv1" for s in (1, 2, 3, 4) for i in (0, 1)], frames=4)
    assert list(model.state_dict()) == keys
    x = torch.randn(8, 3, 32, 32)
    first = model(x)
    x[4:] = 0  # the second clip has no way into the first
    assert torch.equal(model(x)[:4], first[:4])
    x[3] = 0  # but neighbouring frames do
    assert not torch.equal(model(x)[2], first[2])


def test_describe_names_every_edit() -> None:
    model = create_model("tsm_tiny", 2, non_local=1)
    told = describe(model)
    assert "non-local block after layer2.0: 32, inner=16, embedded_gaussian" in told
    assert "still the identity" in told
    assert "3 of 3 blocks: 1/8 from the future, 1/8 from the past; before layer1.0.conv1" in told
    assert "inflated layer2.0.conv1: 3x3x3" in describe(create_model("i3d_tiny"))

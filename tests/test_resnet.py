from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nonlocalnet.layers import Affine3d, BatchNorm3d, Conv3d, MaxPool3d
from nonlocalnet.resnet import STEMS, BasicBlock, Bottleneck, ResNet3d, StrideOn

KERNELS = [  # kernel, stride, padding: those of the networks, and some that fall through
    ((1, 7, 7), (2, 2, 2), (0, 3, 3)),
    ((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    ((1, 1, 1), (1, 2, 2), (0, 0, 0)),
    ((3, 1, 1), (1, 1, 1), (1, 0, 0)),
    ((3, 1, 1), (2, 1, 1), (1, 0, 0)),
    ((5, 7, 7), (2, 2, 2), (2, 3, 3)),
    ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((1, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((3, 1, 1), (1, 2, 2), (1, 0, 0)),
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), KERNELS)
@pytest.mark.parametrize("last", [True, False])
def test_conv_equals_torch(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], last: bool
) -> None:
    torch.manual_seed(0)
    conv = Conv3d(4, 6, kernel, stride, padding, groups=2).double()
    x = torch.randn(2, 4, 6, 9, 8, dtype=torch.float64)
    if last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    want = F.conv3d(x, conv.weight, conv.bias, stride, padding, groups=2)
    torch.testing.assert_close(conv(x), want)


def test_conv_leaves_other_paddings_to_torch() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 5, 6, 6)
    for options in ({"padding": "same"}, {"padding": (0, 1, 1), "padding_mode": "circular"}):
        conv = Conv3d(2, 3, (1, 3, 3), **options)
        plain = nn.Conv3d(2, 3, (1, 3, 3), **options)
        plain.load_state_dict(conv.state_dict())
        torch.testing.assert_close(conv(x), plain(x))


@pytest.mark.parametrize("stem", STEMS)
def test_pools_equal_torch(stem: str) -> None:
    x = torch.randn(2, 4, 8, 13, 12).contiguous(memory_format=torch.channels_last_3d)
    for pool in (STEMS[stem].pool1, STEMS[stem].pool2):
        if pool is not None:
            want = F.max_pool3d(x, pool.kernel, pool.stride, pool.padding)
            assert torch.equal(pool.layer()(x), want)


def test_features_are_channels_last_all_the_way() -> None:
    model = ResNet3d(Bottleneck, (1, 1, 1, 1), "paper", width=4, num_classes=3).eval()
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, Conv3d | MaxPool3d | nn.BatchNorm3d):
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    model(torch.randn(1, 3, 32, 64, 64))
    last = torch.channels_last_3d
    wrong = [n for n, y in seen.items() if not y.is_contiguous(memory_format=last)]
    assert len(seen) > 15
    assert not wrong


@pytest.mark.parametrize("shape", [(2, 6, 3, 5, 4), (1, 6, 2, 3, 3)])
@pytest.mark.parametrize("last", [True, False])
def test_norm_equals_torch_in_every_mode(shape: tuple[int, ...], last: bool) -> None:
    torch.manual_seed(0)
    norm, plain = BatchNorm3d(6), nn.BatchNorm3d(6)
    for name, tensor in norm.state_dict().items():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
            plain.state_dict()[name].copy_(tensor)
    x = torch.randn(shape)
    if last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    for training in (True, False):
        for grad in (True, False):
            norm.train(training), plain.train(training)
            with torch.set_grad_enabled(grad):
                want, got = plain(x.clone()), norm(x.clone())
            torch.testing.assert_close(got, want)
            assert got.stride() == want.stride()
            for name, tensor in plain.state_dict().items():
                assert torch.equal(tensor, norm.state_dict()[name])


def test_inference_equals_the_pass_with_gradients() -> None:
    torch.manual_seed(0)
    for block in (Bottleneck, BasicBlock):
        model = ResNet3d(block, (2, 2), "paper", width=4, num_classes=3).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
        x = torch.randn(2, 3, 8, 32, 32)
        before = x.clone()
        with torch.no_grad():
            got = model(x)
        torch.testing.assert_close(got, model(x))
        assert torch.equal(x, before)


def test_table_1_of_the_paper() -> None:
    """Feature maps of C2D ResNet-50 for 32 frames of 224 x 224 (paper Table 1), shapes only."""
    model = ResNet3d(Bottleneck, (3, 4, 6, 3)).to("meta")
    seen = {}
    for name in ("conv1", "maxpool", "layer1", "pool2", "layer2", "layer3", "layer4"):
        model.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: seen.update({name: tuple(o.shape[1:])})
        )
    assert model(torch.empty(1, 3, 32, 224, 224, device="meta")).shape == (1, 400)
    assert seen == {
        "conv1": (64, 16, 112, 112),
        "maxpool": (64, 8, 56, 56),
        "layer1": (256, 8, 56, 56),
        "pool2": (256, 4, 56, 56),
        "layer2": (512, 4, 28, 28),
        "layer3": (1024, 4, 14, 14),
        "layer4": (2048, 4, 7, 7),
    }


def test_pool1_without_padding_is_caffe2s_55() -> None:
    shapes: list[tuple[int, ...]] = []
    for stem, frames in (("caffe2-32", 32), ("caffe2-8", 8)):
        model = ResNet3d(Bottleneck, (1, 1, 1, 1), stem, width=4).to("meta")
        model.pool2.register_forward_hook(lambda m, i, o: shapes.append(tuple(o.shape[2:])))
        model(torch.empty(1, 3, frames, 224, 224, device="meta"))
    assert shapes == [(4, 55, 55)] * 2


@pytest.mark.parametrize("stride_on", ["3x3", "1x1"])
@pytest.mark.parametrize("stem", STEMS)
def test_grid_is_where_the_gradient_lies(stem: str, stride_on: StrideOn) -> None:
    """A cell's centre by `grid` is the middle of the clip's part it depends on.

    With all-one kernels and no norm the support of the gradient is the receptive field, which is
    symmetric around the centre wherever it does not touch the border.
    """
    sizes = {"width": 1, "num_classes": 2, "stride_on": stride_on}
    model = ResNet3d(Bottleneck, (1, 1, 1), stem, **sizes).double()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm3d):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent) if parent else model, child, nn.Identity())
        if isinstance(module, Conv3d):
            nn.init.ones_(module.weight)
    # a pooling passes its gradient to one place: replace it by the mean over the same window
    for name in ("maxpool", "pool2"):
        pool = model.get_submodule(name)
        if isinstance(pool, MaxPool3d):
            setattr(model, name, _Mean(pool))
    x = torch.ones(1, 3, 16, 96, 96, dtype=torch.float64, requires_grad=True)
    y = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    y = model.layer2(model.pool2(model.layer1(y)))
    cell = [s // 2 for s in y.shape[2:]]
    (gradient,) = torch.autograd.grad(y[(0, slice(None), *cell)].sum(), x)
    plain = ResNet3d(Bottleneck, (1, 1, 1), stem, **sizes)
    for axis, ((stride, offset), i) in enumerate(zip(plain.grid("layer2.0"), cell, strict=True)):
        others = [a for a in range(5) if a != axis + 2]
        support = gradient.abs().sum(others).nonzero().flatten()
        assert int(support[0]) > 0 or axis == 0
        assert offset + stride * i == (int(support[0]) + int(support[-1])) / 2


def test_the_stride_may_be_on_either_convolution() -> None:
    """Same weights, shapes and grid, and another network: the 1x1 drops three of four places."""
    nets = {
        on: ResNet3d(Bottleneck, (2, 2, 2), "paper", width=4, stride_on=on).eval()
        for on in ("3x3", "1x1")
    }
    kept, early = nets["3x3"], nets["1x1"]
    early.load_state_dict(kept.state_dict())
    for stage in ("layer2", "layer3"):
        first, second = (getattr(early.get_submodule(f"{stage}.0"), n) for n in ("conv1", "conv2"))
        assert (first.stride, second.stride) == ((1, 2, 2), (1, 1, 1))
        first, second = (getattr(kept.get_submodule(f"{stage}.0"), n) for n in ("conv1", "conv2"))
        assert (first.stride, second.stride) == ((1, 1, 1), (1, 2, 2))
        for i in range(2):
            assert early.grid(f"{stage}.{i}") == kept.grid(f"{stage}.{i}")
    shapes: dict[str, list[tuple[int, ...]]] = {"3x3": [], "1x1": []}
    for on, model in nets.items():
        for name in ("layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1"):
            model.get_submodule(name).register_forward_hook(
                lambda m, i, o, on=on: shapes[on].append(tuple(o.shape))
            )
    for side in (64, 50):  # odd maps too
        x = torch.randn(1, 3, 8, side, side)
        for module in (*kept.modules(), *early.modules()):
            if isinstance(module, Bottleneck):
                nn.init.ones_(module.bn3.weight)
        with torch.no_grad():
            assert not torch.allclose(kept(x), early(x), atol=1e-6)
    assert shapes["3x3"] == shapes["1x1"]
    with pytest.raises(ValueError, match="its stride is on the 3x3"):
        ResNet3d(BasicBlock, (1, 1), width=4, stride_on="1x1")
    with pytest.raises(ValueError, match="'3x3' or '1x1', not '7x7'"):
        ResNet3d(Bottleneck, (1, 1), width=4, stride_on="7x7")  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [Bottleneck, BasicBlock])
def test_constants_for_norms_are_not_trained(block: type[BasicBlock | Bottleneck]) -> None:
    torch.manual_seed(0)
    model = ResNet3d(block, (2, 2), "tiny", width=4, num_classes=3, dropout=0.0, norm="affine")
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    learned = {n.rpartition(".")[0] for n, _ in model.named_parameters()}
    kinds = {type(model.get_submodule(name)) for name in learned}
    assert kinds == {Conv3d, nn.Linear}
    norms = {n: m for n, m in model.named_modules() if isinstance(m, Affine3d)}
    twin = ResNet3d(block, (2, 2), "tiny", width=4, num_classes=3, norm="batch")
    assert list(norms) == [n for n, m in twin.named_modules() if isinstance(m, nn.BatchNorm3d)]
    for name, buffer in model.named_buffers():
        nn.init.uniform_(buffer, 0.5, 1.0)
        assert name.rpartition(".")[0] in norms
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    x = torch.randn(2, 3, 2, 16, 16)
    with torch.no_grad():
        still = model.eval()(x)
    torch.testing.assert_close(model.train()(x), still)  # no statistics of the batch
    optimiser = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
    model(x).square().sum().backward()
    optimiser.step()
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    assert not torch.allclose(model(x), still)


class _Mean(nn.Module):
    def __init__(self, pool: MaxPool3d) -> None:
        super().__init__()
        self.pool = nn.AvgPool3d(pool.kernel_size, pool.stride, pool.padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(x)


def test_unusual_pools_are_left_to_torch() -> None:
    x = torch.randn(1, 2, 5, 5, 5)
    for options in ({"ceil_mode": True}, {"dilation": 2}):
        plain = nn.MaxPool3d(2, 2, **options)  # type: ignore[arg-type]
        assert torch.equal(MaxPool3d(2, 2, **options)(x), plain(x))  # type: ignore[arg-type]


def test_wrong_input_is_told() -> None:
    model = ResNet3d(Bottleneck, (1, 2), width=2)
    assert model.grid("layer2") == model.grid("layer2.1")
    for name in ("layer9.0", "layer2.2", "layer2.", "bn1"):
        with pytest.raises(
            ValueError, match="there are layer1.0 to layer1.0, layer2.0 to layer2.1"
        ):
            model.grid(name)
    with pytest.raises(ValueError, match="there are paper, caffe2-32"):
        ResNet3d(Bottleneck, (1,), "vgg")
    with pytest.raises(ValueError, match="norm is one of batch, affine, not 'group'"):
        ResNet3d(Bottleneck, (1,), norm="group")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="head is one of global, 7x7-softmax"):
        ResNet3d(Bottleneck, (1,), head="8x8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(N, 3, T, H, W\)"):
        ResNet3d(Bottleneck, (1,), width=2)(torch.zeros(1, 3, 8, 8))

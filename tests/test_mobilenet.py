"""MobileNetV2 on clips: torchvision's, frame by frame, and where TSM shifts it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from nonlocalnet import create_model
from nonlocalnet.layers import Conv3d
from nonlocalnet.mobilenet import InvertedResidual, MobileNet3d
from nonlocalnet.placement import places
from nonlocalnet.shift import TemporalShift


def twins() -> tuple[MobileNet3d, nn.Module]:
    """Ours and torchvision's with the same random weights and statistics, in float64."""
    torch.manual_seed(0)
    theirs = mobilenet_v2(weights=None, num_classes=7).double().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours = MobileNet3d(7).double().eval()
    state = {k: v.unsqueeze(2) if v.dim() == 4 else v for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)  # strict: every name and shape is torchvision's
    return ours, theirs


def test_each_frame_equals_torchvisions_picture() -> None:
    ours, theirs = twins()
    x = torch.randn(2, 3, 4, 64, 48, dtype=torch.float64)
    with torch.no_grad():
        want = torch.stack([theirs(x[:, :, t]) for t in range(4)], dim=1)  # (2, 4, 7)
        torch.testing.assert_close(ours.frames(x), want)
        torch.testing.assert_close(ours(x), want.mean(1))
    torch.testing.assert_close(ours(x.requires_grad_()), want.mean(1))


def test_features_are_channels_last_all_the_way() -> None:
    model = MobileNet3d(3).eval()
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, Conv3d | nn.BatchNorm3d | InvertedResidual):
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    model(torch.randn(2, 3, 4, 64, 64))
    last = torch.channels_last_3d
    assert not [n for n, y in seen.items() if not y.is_contiguous(memory_format=last)]
    assert len(seen) == 2 * 52 + 17


@pytest.mark.parametrize("name", ["features.0", "features.1", "features.3", "features.6"])
def test_grid_is_where_the_gradient_lies(name: str) -> None:
    """With all-one kernels the support of a cell's gradient is symmetric around its centre."""
    model = MobileNet3d(2).double()
    grid = model.grid(name)
    layers = model.features[: int(name.partition(".")[2]) + 1]
    for part, module in list(layers.named_modules()):
        if isinstance(module, nn.BatchNorm3d | nn.ReLU6):
            parent, _, child = part.rpartition(".")
            setattr(layers.get_submodule(parent), child, nn.Identity())
        if isinstance(module, Conv3d):
            nn.init.ones_(module.weight)
    x = torch.ones(1, 3, 3, 128, 160, dtype=torch.float64, requires_grad=True)
    y = layers(x)
    cell = [s // 2 for s in y.shape[2:]]
    (gradient,) = torch.autograd.grad(y[(0, slice(None), *cell)].sum(), x)
    for axis, ((stride, offset), i) in enumerate(zip(grid, cell, strict=True)):
        others = [a for a in range(5) if a != axis + 2]
        support = gradient.abs().sum(others).nonzero().flatten()
        assert axis == 0 or 0 < int(support[0]) < int(support[-1]) < x.shape[axis + 2] - 1
        assert offset + stride * i == (int(support[0]) + int(support[-1])) / 2


def test_tsm_shifts_the_blocks_with_an_identity() -> None:
    """The ten of the online demo's caches, all with an expansion: blocks 2, 4, 5, 7, ... of 17."""
    blocks = [2, 4, 5, 7, 8, 9, 11, 12, 14, 15]
    want = [f"features.{block + 1}.conv.0.0" for block in blocks]
    assert list(places(MobileNet3d())) == want
    for direction in ("both", "past"):
        model = create_model("tsm_mobilenetv2", 4, shift=direction)
        found = {n: m for n, m in model.named_modules() if isinstance(m, TemporalShift)}
        assert list(found) == [f"{name}.temporal_shift" for name in want]
        assert {m.direction for m in found.values()} == {direction}


def test_online_frames_do_not_see_the_future() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 6, 32, 32)
    later = x.clone()
    later[:, :, 4:] = torch.randn(1, 3, 2, 32, 32)
    for direction, blind in (("past", True), ("both", False)):
        model = create_model("tsm_mobilenetv2", 4, shift=direction).eval()
        with torch.no_grad():
            a, b = model.frames(x), model.frames(later)
        assert torch.equal(a[:, :4], b[:, :4]) == blind
        assert not torch.equal(a[:, 4:], b[:, 4:])


def test_wrong_names_and_clips_are_told() -> None:
    model = MobileNet3d(2)
    for name in ("features.19", "layer1.0", "features", "features.x"):
        with pytest.raises(ValueError, match="there are features.0 to features.18"):
            model.grid(name)
    for shape in ((1, 3, 8, 8), (1, 1, 2, 8, 8)):
        with pytest.raises(ValueError, match=r"\(N, 3, T, H, W\)"):
            model(torch.zeros(shape))

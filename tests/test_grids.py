"""Grids of features in networks of any kind: against the centres of what cells see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nonlocalnet.grids import tracing

PLAIN = ("BatchNorm2d", "BatchNorm3d", "ReLU", "ReLU6", "LayerNorm2d", "GELU", "SiLU")
PLAIN += ("SqueezeExcitation", "StochasticDepth")


def linear(model: nn.Module) -> nn.Module:
    """A twin whose cells see each input with weights that are symmetric about their centres."""
    model = model.eval().double()
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d | nn.Conv3d):
                nn.init.ones_(child.weight)
            elif isinstance(child, nn.MaxPool2d | nn.MaxPool3d):
                kind = nn.AvgPool2d if isinstance(child, nn.MaxPool2d) else nn.AvgPool3d
                twin = kind(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(parent, name, twin)
            elif type(child).__name__ in PLAIN:
                setattr(parent, name, nn.Identity())
            elif type(child).__name__ == "CNBlock":  # along the channels only, but for its first
                setattr(parent, name, child.block[0])
    return model


def torchvision(name: str, **options: object) -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    made: nn.Module = getattr(models, name)(**options)
    return made


def video(name: str) -> nn.Module:
    models = pytest.importorskip("torchvision.models.video")
    made: nn.Module = getattr(models, name)()
    return made


CASES = {
    "resnet18": (lambda: torchvision("resnet18"), "layer2.0", (112, 128)),
    "mobilenet_v2": (lambda: torchvision("mobilenet_v2"), "features.5", (96, 112)),
    "efficientnet_b0": (lambda: torchvision("efficientnet_b0"), "features.2", (64, 80)),
    "convnext_tiny": (lambda: torchvision("convnext_tiny"), "features.2", (128, 112)),
    "squeezenet1_1": (lambda: torchvision("squeezenet1_1"), "features.6", (65, 66)),
    "r2plus1d_18": (lambda: video("r2plus1d_18"), "layer2.0", (20, 48, 48)),
}


@pytest.mark.parametrize("case", CASES)
def test_cells_are_centred_where_the_gradient_says(case: str) -> None:
    make, at, size = CASES[case]
    torch.manual_seed(0)
    model, features = linear(make()), []
    stop = model.get_submodule(at).register_forward_hook(lambda *args: features.append(args[2]))
    x = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True)
    with tracing(model, size) as known:
        model(x)
    stop.remove()
    grid = known[tuple(features[0].shape[2:])]
    assert grid is not None
    middle = tuple(s // 2 for s in features[0].shape[2:])
    (gradient,) = torch.autograd.grad(features[0][(0, slice(None), *middle)].sum(), x)
    mass = gradient[0].sum(0)
    for axis, (step, start) in enumerate(grid):
        along = mass.sum([i for i in range(len(size)) if i != axis])
        centre = float((along * torch.arange(len(along))).sum() / along.sum())
        assert centre == pytest.approx(start + step * middle[axis], abs=1e-6)


class Same(nn.Conv2d):
    """Pads by itself, after TensorFlow's manner: more on one side."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


def traced(model: nn.Module, *shapes: tuple[int, int]) -> list[object]:
    with tracing(model, (16, 16)) as known, torch.no_grad():
        model(torch.zeros(1, 3, 16, 16))
    return [known.get(shape, "not there") for shape in shapes]


def test_what_layers_do_not_say_is_not_known() -> None:
    assert traced(nn.Sequential(Same(3, 4, 3, stride=2)), (16, 16), (8, 8)) == [
        ((1, 0), (1, 0)),
        None,
    ]
    assert traced(nn.Upsample(scale_factor=2), (32, 32)) == ["not there"]


class TwoWays(nn.Module):
    """Two ways to features of one size, which do not lie alike."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x)


def test_ways_that_disagree_make_it_unknown() -> None:
    assert traced(TwoWays(), (8, 8)) == [None]
    assert traced(nn.Conv2d(3, 4, 3, padding="same", dilation=2), (16, 16)) == [((1, 0), (1, 0))]
    assert traced(nn.Conv2d(3, 4, 3, dilation=2), (12, 12)) == [((1, 2), (1, 2))]


def test_nothing_stays_on_the_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    traced(model, (14, 14))
    assert not model[0]._forward_hooks

from __future__ import annotations

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nonlocalnet import create_model, non_local
from nonlocalnet.meter import MULTIPLY_ADDS, SCRATCH, Meter, Tally, fake_copy, fake_mode


def test_bytes_are_counted_while_anything_refers_to_them() -> None:
    meter = Meter()
    with fake_mode(), meter:
        a = torch.empty(1000)
        view = a.view(10, 100)[3:]
        b = a + 1
        assert meter.alive == 8000
        b += 1
        del a
        assert meter.alive == 8000  # the view holds it
        del view
        assert meter.alive == 4000
        c = b.to(torch.float64)
        assert meter.alive == 12000
        del b, c
    assert meter.alive == 0


def test_autograd_holds_what_the_backward_needs() -> None:
    meter = Meter()
    with fake_mode(), meter:
        x = torch.empty(1000, requires_grad=True)
        y = x.exp()  # keeps its result
        z = y + 1  # keeps nothing
        assert meter.alive == 12000
        del y
        assert meter.alive == 12000
        z.sum().backward()
        del z
        gc.collect()
        assert meter.alive == 8000  # x and its gradient
        assert x.grad is not None
        assert x.grad.shape == (1000,)


def test_gradients_that_are_added_up_take_no_third_place() -> None:
    meter, tally = Meter(), Tally()
    with fake_mode(), meter:
        x = torch.empty(1000)
        x.requires_grad_()
        y = x * 1.0
        a, b = y.sin(), y.cos()  # keep y
        (a + b).sum()
        meter.begin(tally)
        torch.autograd.backward([a, b], [torch.empty(1000), torch.empty(1000)])
    # x, y, a, b and two gradients are there; then: both derivatives of y, beside the factor of one
    assert tally.peak == 4000 * (4 + 2 + 3)


def test_a_tally_counts_while_it_runs() -> None:
    meter, outer, inner = Meter(), Tally(), Tally()
    with fake_mode(), meter:
        x = torch.empty(100, 100)
        meter.begin(outer)
        y = x @ x
        meter.begin(inner)
        z = y @ x
        meter.begin(inner)  # it runs already
        meter.end(inner)
        z = z @ x
    assert (outer.multiply_adds, inner.multiply_adds) == (3 * 100**3, 100**3)
    assert (outer.adds, inner.adds) == (3 * 40000, 40000)
    assert (outer.peak, inner.peak) == (4 * 40000, 3 * 40000)


@pytest.mark.parametrize("name", ["i3d_tiny", "tsm_resnet18"])
def test_multiply_adds_are_half_of_torchs_operations(name: str) -> None:
    model = create_model(name, 4, non_local=1)
    x = torch.randn(1, 3, 8, 32, 32)
    with FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    mode, meter, tally = fake_mode(), Meter(), Tally()
    fake = fake_copy(model, mode, None)
    meter.begin(tally)
    with mode, meter:
        fake(torch.empty(1, 3, 8, 32, 32)).sum().backward()
    assert tally.multiply_adds == counter.get_total_flops() // 2


def test_a_fake_copy_takes_no_memory_and_keeps_layouts_and_ties() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    model[1].weight = model[0].weight
    model[2].to(memory_format=torch.channels_last).requires_grad_(False)
    fake = fake_copy(model, fake_mode(), torch.bfloat16)
    assert fake[0].weight is fake[1].weight
    assert fake[0].weight is not model[0].weight
    assert isinstance(fake[0].weight, nn.Parameter)
    assert fake[2].weight.stride() == model[2].weight.stride()
    assert not fake[2].weight.requires_grad
    assert fake[3].running_mean.dtype == torch.bfloat16
    assert fake[3].num_batches_tracked.dtype == torch.int64


def scratch(x: torch.Tensor, weight: torch.Tensor, stride: int = 1) -> int:
    """Bytes that a convolution takes beyond its result."""
    meter, tally = Meter(), Tally()
    mode = fake_mode()
    with mode:
        x, weight = (torch.empty_strided(t.shape, t.stride()) for t in (x, weight))
    meter.hold([x, weight])
    meter.begin(tally)
    with mode, meter, torch.no_grad():
        y = (F.conv2d if x.dim() == 4 else F.conv3d)(x, weight, stride=stride)
    return tally.adds - y.nbytes


def test_work_space_of_convolutions() -> None:
    last, last_3d = torch.channels_last, torch.channels_last_3d
    image = torch.empty(16, 8, 30, 30)
    weight = torch.empty(4, 8, 3, 3)
    ordered = image.to(memory_format=last), weight.to(memory_format=last)
    assert scratch(*ordered) == weight.nbytes
    assert scratch(image, weight) == weight.nbytes + image.nbytes
    assert scratch(image, torch.empty(4, 8, 1, 1)) == 0
    assert scratch(image.to(memory_format=last), torch.empty(4, 8, 1, 1), 2) == 4 * 4 * 8
    # one small video: every patch as a column
    clip, kernel = torch.empty(1, 8, 4, 10, 10), torch.empty(4, 8, 3, 3, 3)
    clip, kernel = (t.to(memory_format=last_3d) for t in (clip, kernel))
    columns = 4 * (8 * 27) * (2 * 8 * 8)
    assert scratch(clip, kernel) == kernel.nbytes + clip.nbytes + columns


def test_tables_name_operators_that_exist() -> None:
    for name in {*SCRATCH, *MULTIPLY_ADDS}:
        library, operator = name.split("::")
        assert hasattr(getattr(torch.ops, library), operator), name


@pytest.mark.parametrize(
    ("pairwise", "width", "forward", "both"),
    [  # products with theta's width 8 and with g's; keys sorted among queries
        ("gaussian", 6, 600 * 500 * 14, 600 * 500 * 14 + 600 * 500 * (3 * 8 + 2 * 6)),
        ("embedded_gaussian", 8, 600 * 500 * 16, 600 * 500 * (16 + 5 * 8)),
        ("concatenation", 6, 1100 * 6 + 1100 * 8, 4 * 1100 * 6 + 3 * 1100 * 8),
    ],
)
def test_multiply_adds_of_our_own_operators(
    pairwise: str, width: int, forward: int, both: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nonlocalnet.ops.PAIRS_AT_ONCE", 500 * 50)  # several rows at a time
    meter, tally = Meter(), Tally()
    meter.begin(tally)
    with fake_mode(), meter:
        shapes = (1, 600, 8), (1, 500, 8), (1, 500, width)
        theta, phi, g = (torch.empty(shape, requires_grad=True) for shape in shapes)
        weight = torch.empty(16, requires_grad=True) if pairwise == "concatenation" else None
        y = non_local(theta, phi, g, pairwise, weight=weight)
        assert tally.multiply_adds == forward
        y.backward(torch.empty_like(y))
    assert tally.multiply_adds == both


@pytest.mark.parametrize(
    ("kind", "forward"),
    [
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), 8 * 10 * 10 * 9),
        (nn.Conv2d(8, 12, 3, padding=1, groups=2), 12 * 10 * 10 * 4 * 9),
        (nn.Conv2d(8, 12, 3, padding=1), 12 * 10 * 10 * 8 * 9),
        (nn.ConvTranspose2d(8, 12, 3, padding=1, groups=2), 8 * 10 * 10 * 6 * 9),
    ],
)
def test_multiply_adds_of_convolutions_know_groups(kind: nn.Module, forward: int) -> None:
    mode, meter, tally = fake_mode(), Meter(), Tally()
    layer = fake_copy(kind, mode, None)
    meter.begin(tally)
    with mode, meter:
        y = layer(torch.empty(2, 8, 10, 10, requires_grad=True))
        assert tally.multiply_adds == 2 * forward
        y.sum().backward()
        assert tally.multiply_adds == 3 * 2 * forward  # and as many for each gradient
        layer(torch.empty(2, 8, 10, 10)).sum().backward()  # an input without gradient
        assert tally.multiply_adds == 5 * 2 * forward


def test_multiply_adds_of_products_in_place() -> None:
    meter, tally = Meter(), Tally()
    meter.begin(tally)
    with fake_mode(), meter:
        a, b, c = torch.empty(20, 30), torch.empty(30, 40), torch.empty(20, 40)
        c.addmm_(a, b)
        c.unsqueeze(0).baddbmm_(a.unsqueeze(0), b.unsqueeze(0))
    assert tally.multiply_adds == 2 * 20 * 30 * 40

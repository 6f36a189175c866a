"""Layers that have no twin in torch; those that have one are held to it in test_resnet.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nonlocalnet.layers import Affine3d, BatchNorm3d, Conv3d, MaxPool3d, grid_of
from nonlocalnet.linear import FrozenBatchNorm


def drawn(channels: int = 6) -> Affine3d:
    torch.manual_seed(0)
    layer = Affine3d(channels).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


def features(shape: tuple[int, ...] = (2, 6, 3, 5, 4), last: bool = True) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last_3d) if last else x


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_affine_is_a_frozen_norm_of_mean_0_and_variance_1_less_epsilon(
    last: bool, grad: bool
) -> None:
    affine, frozen = drawn(), FrozenBatchNorm(6).double()
    frozen.weight.copy_(affine.weight)
    frozen.bias.copy_(affine.bias)
    frozen.running_var.fill_(1 - frozen.eps)
    x = features(last=last)
    want = frozen(x.movedim(1, -1)).movedim(-1, 1)
    for training in (True, False):
        with torch.set_grad_enabled(grad):
            got = affine.train(training)(x.clone())
        torch.testing.assert_close(got, want)
        assert got.stride() == x.stride()


def test_affine_writes_over_its_input_only_without_gradients() -> None:
    affine, x = drawn(), features()
    before = x.clone()
    y = affine(x.requires_grad_())
    assert torch.equal(x, before)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, affine.weight.view(6, 1, 1, 1).expand_as(x))
    with torch.no_grad():
        over = x.detach().clone()
        assert affine(over).data_ptr() == over.data_ptr()
    torch.testing.assert_close(over, y.detach())
    with torch.inference_mode():
        torch.testing.assert_close(affine(before.clone()), y.detach())


def test_affine_holds_constants() -> None:
    affine = Affine3d(6)
    assert not list(affine.parameters())
    assert list(affine.state_dict()) == ["weight", "bias"]
    x = features().float()
    assert torch.equal(affine(x), x)  # until constants are loaded
    for dtype in (torch.bfloat16, torch.float16):
        assert affine(x.to(dtype)).dtype == dtype
        with torch.no_grad():
            assert affine(x.to(dtype)).dtype == dtype


def test_affine_compiles_to_the_same() -> None:
    affine, x = drawn(), features()
    with torch.no_grad():
        got = torch.compile(affine, backend="eager", fullgraph=True)(x.clone())
        torch.testing.assert_close(got, affine(x.clone()))


def test_the_grid_passes_over_what_has_no_kernel() -> None:
    path = [
        Conv3d(3, 4, (5, 7, 7), (2, 2, 2), (2, 3, 3)),  # centres at 0, 2, 4, ...
        BatchNorm3d(4),
        nn.ReLU(),
        MaxPool3d((2, 3, 3), (2, 2, 2), (0, 0, 0)),  # frames 0 and 2; cells 0, 2 and 4
        Affine3d(4),
    ]
    assert grid_of(path) == ((4.0, 1.0), (4.0, 2.0), (4.0, 2.0))
    assert grid_of([]) == ((1.0, 0.0),) * 3
    with pytest.raises(TypeError, match="'same'"):
        grid_of([Conv3d(3, 4, 3, padding="same")])


@pytest.mark.parametrize("channels", [1, 4, 7, 9])
@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2), (1, 2, 1)])
def test_few_channels_with_a_stride(channels: int, stride: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    layer = Conv3d(channels, 6, 1, stride=stride)
    plain = nn.Conv3d(channels, 6, 1, stride=stride).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, channels, 4, 7, 6).contiguous(memory_format=torch.channels_last_3d)
    mine, theirs = x.requires_grad_(), x.detach().double().requires_grad_()
    y, wanted = layer(mine), plain(theirs)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-6)
    y.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.weight.grad.double(), plain.weight.grad, rtol=1e-5, atol=1e-4)


CHECKED = Path("/lib/x86_64-linux-gnu/libc_malloc_debug.so.0")
NARROW = """
import torch
from nonlocalnet.layers import Conv3d
torch.set_num_threads(1)
for channels in range(1, 10):
    for batch in (2, 5):
        x = torch.randn(batch, channels, 2, 16, 16).contiguous(memory_format=torch.channels_last_3d)
        Conv3d(channels, 8, 1, stride=(1, 2, 2))(x.requires_grad_()).sum().backward()
"""


@pytest.mark.skipif(not CHECKED.exists(), reason="needs glibc's checks of the heap")
def test_no_gradient_writes_beyond_its_memory() -> None:
    """As torch's own did for these layers: later, anything might be broken."""
    checks = {"LD_PRELOAD": str(CHECKED), "GLIBC_TUNABLES": "glibc.malloc.check=3"}
    command = [sys.executable, "-c", NARROW]
    done = subprocess.run(command, env={**os.environ, **checks}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""Batch norms of several processes as one, and statistics over many batches as over one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nonlocalnet.models import create_model
from nonlocalnet.training.norms import SyncNorm, synchronize, true_statistics


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one; tests/test_scale.py has one of two."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3), (2, 5, 3, 4, 4)])
@pytest.mark.usefixtures("alone")
def test_one_process_synchronized_is_a_batch_norm(shape: tuple[int, ...]) -> None:
    plain: nn.Module = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 5: nn.BatchNorm3d}[len(shape)](5)
    torch.manual_seed(0)
    with torch.no_grad():
        for p in plain.parameters():
            p.normal_()
    network = nn.Sequential(plain)
    twin = nn.Sequential(type(plain)(5))  # type: ignore[call-arg]
    twin.load_state_dict(network.state_dict())
    synchronize(twin)
    assert isinstance(twin[0], SyncNorm)
    assert twin.state_dict().keys() == network.state_dict().keys()
    x = torch.randn(shape) * 3 + 7
    for _ in range(3):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        weight = torch.randn(shape)
        one, other = network(a), twin(b)
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)
        (one * weight).sum().backward()
        (other * weight).sum().backward()
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-5)
    for p, q in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-5)
    for p, q in zip(network.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(q, p)
    torch.testing.assert_close(twin.eval()(x), network.eval()(x))


@pytest.mark.usefixtures("alone")
def test_where_no_clip_of_any_process_counts_nothing_moves() -> None:
    """All files of a pass are broken: neither statistics nor gradients may become NaN."""
    network = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
    synchronize(network)
    norm = network[1]
    assert isinstance(norm, SyncNorm)
    network(torch.randn(2, 3, 2, 4, 4))
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    norm.counts = False
    (network(torch.zeros(1, 3, 2, 4, 4)).sum() * 0).backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())
    assert all(not p.grad.any() for p in network.parameters())  # type: ignore[union-attr]


def _sum(tensor: Tensor) -> Tensor:
    return tensor


def test_true_statistics_are_those_of_all_batches() -> None:
    """One norm behind nothing: mean and variance of all that came in, unequal batches too."""
    norm = nn.BatchNorm3d(3).train()
    norm(torch.randn(2, 3, 4, 5, 5))
    kept = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    batches = [torch.randn(n, 3, 4, 5, 5) * (i + 1) + i for i, n in enumerate((2, 5, 1))]
    network = nn.Sequential(norm)
    with true_statistics(network, (network(b) for b in batches), _sum):
        values = torch.cat(batches).double().transpose(0, 1).flatten(1)
        assert norm.running_mean is not None
        torch.testing.assert_close(norm.running_mean, values.mean(1).float())
        torch.testing.assert_close(norm.running_var, values.var(1, correction=0).float())
    assert all(torch.equal(b, kept[name]) for name, b in norm.named_buffers())


def test_true_statistics_leave_all_else_alone() -> None:
    torch.manual_seed(0)
    network = create_model("i3d_tiny", 3, 1, dropout=0.5).train()
    frozen = network.get_submodule("bn1").eval()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    state = torch.get_rng_state()
    passes = (network(torch.randn(2, 3, 4, 16, 16)) for _ in range(2))
    inside = {}
    with true_statistics(network, passes, _sum):
        inside = {name: t.clone() for name, t in network.state_dict().items()}
    moved = {name for name, t in inside.items() if not torch.equal(t, before[name])}
    assert {name.rpartition(".")[2] for name in moved} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert not any(name.startswith("bn1.") for name in moved)
    assert "layer2.0.non_local.norm.running_mean" in moved
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not frozen.training
    assert not network.get_submodule("layer1.0.bn1")._forward_pre_hooks


def test_without_a_readable_clip_the_running_statistics_hold() -> None:
    network = nn.Sequential(nn.BatchNorm3d(3)).train()
    with true_statistics(network, iter(()), _sum):
        assert torch.equal(network[0].running_var, torch.ones(3))  # type: ignore[arg-type]

"""Each cause that keeps a block the identity, made for real, and told in its own words."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from nonlocalnet import NonLocalBlock, insert, shares, why_asleep
from nonlocalnet.linear import FrozenBatchNorm
from nonlocalnet.waking import NEW, measured, why_stuck

NAME = "0.non_local"


def network(**options: object) -> nn.Sequential:
    """A net of the user's own, with a block after its first layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    return insert(model, after="0", **options)  # type: ignore[return-value, arg-type]


def block_of(model: nn.Module) -> NonLocalBlock:
    block = model.get_submodule(NAME)
    assert isinstance(block, NonLocalBlock)
    return block


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 2) -> None:
    """Some steps, the gradients of the last still there."""
    draw = torch.Generator().manual_seed(1)
    for _ in range(count):
        optimizer.zero_grad()
        x = torch.randn(4, 3, 8, 8, generator=draw)
        nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()


# --- shares


def test_shares_are_what_blocks_add() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert shares(network(), x) == {NAME: 0.0}
    model = network(zero_init="none").train()
    seen: list[Tensor] = []
    block_of(model).register_forward_hook(lambda _, inputs, z: seen.extend((inputs[0], z)))
    got = shares(model, x)[NAME]
    assert len(seen) == 2
    added = math.sqrt(float(((seen[1] - seen[0]).double() ** 2).sum()))
    assert got == pytest.approx(added / math.sqrt(float((seen[0].double() ** 2).sum())), rel=1e-5)
    assert got > 0


def test_shares_leave_all_as_it_was() -> None:
    model = network(zero_init="none").train()
    block_of(model).theta.eval()  # type: ignore[union-attr]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    shares(model, torch.randn(2, 3, 8, 8))
    assert [m.training for m in model.modules()] == modes
    for name, tensor in model.state_dict().items():  # running statistics among them
        assert torch.equal(tensor, before[name])
    assert not block_of(model)._forward_hooks
    assert all(p.grad is None for p in model.parameters())


def test_measuring_changes_no_bit_of_a_step() -> None:
    found = []
    for watch in (True, False):
        model, sums = network(zero_init="none"), {}  # type: ignore[var-annotated]
        with measured(model, sums) if watch else nullcontext():
            steps(model, sgd(model))
        assert len(sums) == watch
        assert not any(each.requires_grad for each in sums.values())
        found.append(model.state_dict())
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name


def test_shares_of_a_block_in_a_net_of_any_kind() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = NonLocalBlock(4, zero_init="none")
            self.unused = NonLocalBlock(4)

        def forward(self, x: Tensor, factor: float) -> Tensor:
            z: Tensor = self.used(factor * x)
            return z

    assert list(shares(Own(), torch.randn(2, 4, 5), 2.0)) == ["used"]
    assert shares(nn.Linear(2, 2), torch.randn(1, 2)) == {}
    assert list(shares(NonLocalBlock(4), torch.randn(2, 4, 5))) == [""]


def test_shares_of_a_network_that_was_compiled_before() -> None:
    model = network(zero_init="none").eval()
    x = torch.randn(2, 3, 8, 8)
    want = shares(model, x)[NAME]
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(x)
    assert shares(compiled, x) == {f"_orig_mod.{NAME}": want}  # type: ignore[arg-type]


# --- causes


def left_out(model: nn.Module) -> torch.optim.Optimizer:
    return sgd(model[3])  # type: ignore[index]


def frozen(model: nn.Module) -> torch.optim.Optimizer:
    block_of(model).requires_grad_(False)
    return sgd(model)


def partly_frozen(model: nn.Module) -> torch.optim.Optimizer:
    block_of(model).theta.requires_grad_(False)  # type: ignore[union-attr]
    return left_out(model)


def no_rate(model: nn.Module) -> torch.optim.Optimizer:
    head, block = model[3].parameters(), block_of(model).parameters()  # type: ignore[index]
    return torch.optim.SGD([{"params": head}, {"params": block, "lr": 0.0}], lr=0.1)


def constant_gain(model: nn.Module) -> torch.optim.Optimizer:
    norm = FrozenBatchNorm(8)  # which the block's own arguments refuse
    norm.weight.zero_()
    block_of(model).norm = norm
    return sgd(model)


def frozen_norms(model: nn.Module) -> torch.optim.Optimizer:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.requires_grad_(False)
    return sgd(model)


def weights_left_out(model: nn.Module) -> torch.optim.Optimizer:
    block = block_of(model)
    block.norm = None
    nn.init.zeros_(block.out.weight)
    return torch.optim.SGD([p for p in model.parameters() if p is not block.out.weight], lr=0.1)


def saddle(model: nn.Module) -> torch.optim.Optimizer:
    nn.init.zeros_(block_of(model).out.weight)  # the gain is 0 already
    return sgd(model)


def detached(model: nn.Module) -> torch.optim.Optimizer:
    model[1].register_forward_pre_hook(lambda _, x: (x[0].detach(),))  # type: ignore[index]
    return sgd(model)


def times_zero(model: nn.Module) -> torch.optim.Optimizer:
    model[1].register_forward_pre_hook(lambda _, x: (x[0] * 0,))  # type: ignore[index]
    return sgd(model)


CAUSES: dict[Callable[[nn.Module], torch.optim.Optimizer], str] = {
    left_out: "its parameters are not in the optimizer",
    frozen: "its parameters do not require gradients",
    partly_frozen: "of its 10 parameters 2 do not require gradients and 8 are not in the optimizer",
    no_rate: "its parameters have a learning rate of 0",
    constant_gain: "the gain of its norm is 0 and is a constant, so the gradient of W_z is 0",
    frozen_norms: "the gain of its norm is 0 and does not require gradients, so the gradient",
    weights_left_out: "W_z is 0 and is not in the optimizer, so the block stays the identity",
    saddle: "W_z and the gain of its norm are both 0, and the gradient of each is a multiple",
    detached: "no gradient comes to it, though other parts of the network have one: what the block"
    " after '0' gives out does not reach the loss",
    times_zero: "its gradient is exactly 0, though other parts of the network have one",
}


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_each_cause_has_its_words_and_is_one(
    cause: Callable[[nn.Module], torch.optim.Optimizer],
) -> None:
    model = network()
    optimizer = cause(model)
    steps(model, optimizer, 3)
    told = why_asleep(model, optimizer)
    assert list(told) == [NAME]
    assert told[NAME].startswith(CAUSES[cause])
    assert not block_of(model).is_awake()  # it is true, too


@pytest.mark.parametrize(
    "options", [{}, {"norm": "none"}, {"norm": "frozen"}, {"zero_init": "none"}]
)
def test_a_block_that_trains_needs_no_words(options: dict[str, str]) -> None:
    model = network(**options)
    optimizer = sgd(model)
    asleep = {} if options == {"zero_init": "none"} else {NAME: NEW}
    assert why_asleep(model, optimizer) == asleep
    assert why_stuck(model, optimizer) == {}
    steps(model, optimizer)
    assert why_asleep(model, optimizer) == why_asleep(model) == {}
    assert shares(model, torch.randn(2, 3, 8, 8))[NAME] > 0
    theta = block_of(model).theta
    assert theta is not None
    assert theta.weight.grad is not None
    assert theta.weight.grad.any()  # only from the second step on


def test_the_first_step_of_a_new_block_is_no_cause() -> None:
    model = network()
    optimizer = sgd(model)
    steps(model, optimizer, 1)  # only its gain and shift have a gradient
    assert why_asleep(model, optimizer) == {}
    optimizer.zero_grad()
    assert why_asleep(model, optimizer) == {}  # without any gradient nothing is said of them


def test_an_awake_block_that_cannot_learn_is_told() -> None:
    model = network(zero_init="none")
    assert why_asleep(model, left_out(model)) == {NAME: CAUSES[left_out]}
    assert why_asleep(model) == {}  # nothing is known of an optimizer
    assert why_asleep(model, torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1))) == {}


def test_weights_that_are_computed_are_no_constants() -> None:
    model = network(norm="none")
    nn.utils.parametrizations.weight_norm(block_of(model).out)
    assert why_stuck(model, sgd(model)) == {}

"""From uint8 views to scores: the same whatever the split, and the model left as it was."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from nonlocalnet.card import Card, card_of, set_card
from nonlocalnet.errors import UserError
from nonlocalnet.models import create_model
from nonlocalnet.scoring import aggregate, load, score


def views(count: int, seed: int = 0, frames: int = 8, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, frames, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def network(name: str = "i3d_tiny", non_local: int = 1) -> nn.Module:
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, non_local=non_local)
    for module in model.modules():  # statistics other than 0 and 1, so that the mode matters
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            module.running_mean.uniform_(-0.2, 0.2)
    return model


@pytest.mark.parametrize("name", ["c2d_tiny", "i3d_tiny", "tsm_tiny"])
def test_is_the_plain_forward_pass(name: str) -> None:
    model, clips = network(name), views(3)
    card = card_of(model)
    mean = torch.tensor(card.mean).view(3, 1, 1, 1)
    std = torch.tensor(card.std).view(3, 1, 1, 1)
    with torch.no_grad():
        expected = model.eval()((clips / 255 - mean) / std)
    got = score(model, clips)
    assert (got.shape, got.dtype, got.device.type) == ((3, 5), torch.float32, "cpu")
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 50])
def test_split_changes_only_rounding(batch: int) -> None:
    model, clips = network(), views(7)
    together = score(model, clips)
    assert together.std() > 1e-3
    torch.testing.assert_close(score(model, clips, batch=batch), together, rtol=1e-5, atol=1e-5)


def test_views_do_not_see_each_other() -> None:
    model, clips = network(), views(4)
    other = clips.clone()
    other[1:] = 255 - other[1:]
    torch.testing.assert_close(score(model, other)[0], score(model, clips)[0])


def test_leaves_every_module_in_its_mode() -> None:
    model = network().train()
    frozen = next(m for m in model.modules() if isinstance(m, nn.BatchNorm3d | nn.BatchNorm2d))
    frozen.eval()
    before = [m.training for m in model.modules()]
    assert len(set(before)) == 2
    state = {k: v.clone() for k, v in model.state_dict().items()}
    score(model, views(2))
    assert [m.training for m in model.modules()] == before
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_leaves_the_mode_after_an_error() -> None:
    model = nn.Sequential(network(), Failing()).train()
    set_card(model, Card())
    with pytest.raises(RuntimeError, match="broken"):
        score(model, views(1))
    assert all(m.training for m in model.modules())


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("broken")


def test_dropout_is_off_and_no_random_number_drawn() -> None:
    model = network().train()
    state = torch.get_rng_state()
    first, second = score(model, views(2)), score(model, views(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    (first * 2).requires_grad_().sum().backward()  # an ordinary tensor


class Counting(nn.Module):
    """Notes the size of every input; its logits are the means of the colours."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        set_card(self, Card(mean=(0.0,) * 3, std=(1.0,) * 3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x.mean((2, 3, 4))


def test_input_is_bounded() -> None:
    model = Counting()
    clips = torch.zeros(1, 3, 64, 256, 256, dtype=torch.uint8).expand(6, -1, -1, -1, -1)
    score(model, clips)
    assert sum(model.seen) == 6
    assert 1 < max(model.seen) <= 2  # two views are 100 MB of float32
    model.seen.clear()
    score(model, views(300, side=4))
    assert model.seen == [300]


@pytest.mark.parametrize(
    ("clips", "error"),
    [
        (torch.zeros(1, 3, 8, 32, 32), TypeError),
        (torch.zeros(3, 8, 32, 32, dtype=torch.uint8), ValueError),
        (torch.zeros(1, 4, 8, 32, 32, dtype=torch.uint8), ValueError),
        (torch.zeros(0, 3, 8, 32, 32, dtype=torch.uint8), ValueError),
    ],
)
def test_other_tensors(clips: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error, match="clips must be"):
        score(network(), clips)


def test_no_card_and_no_numbers() -> None:
    with pytest.raises(UserError, match="no card"):
        score(nn.Flatten(), views(1))
    model = network()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="not numbers"):
        score(model, views(1))


LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])


def test_aggregate_rules() -> None:
    e = LOGITS.double().exp()
    soft = e / e.sum(1, keepdim=True)
    mean = LOGITS.double().mean(0).exp()
    highest = torch.stack([soft[0, 0], soft[1, 1], soft[1, 2]])
    expected = {
        "softmax": (soft[0] + soft[1]) / 2,
        "logits": mean / mean.sum(),
        "max": highest / highest.sum(),
    }
    for rule, scores in expected.items():
        got = aggregate(LOGITS, Card(aggregate=rule))  # type: ignore[arg-type]
        torch.testing.assert_close(got, scores.float())
        assert float(got.sum()) == pytest.approx(1)
    for one, other in itertools.combinations(expected.values(), 2):
        assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("rule", ["softmax", "logits", "max"])
def test_aggregate_of_one_view_is_softmax(rule: str) -> None:
    card = Card(aggregate=rule)  # type: ignore[arg-type]
    torch.testing.assert_close(aggregate(LOGITS[:1], card), LOGITS[0].softmax(-1))
    card = dataclasses.replace(card, activation="sigmoid")
    torch.testing.assert_close(aggregate(LOGITS[:1], card), LOGITS[0].sigmoid())


def test_aggregate_of_several_labels() -> None:
    yes = 1 / (1 + (-LOGITS.double()).exp())
    expected = {
        "softmax": (yes[0] + yes[1]) / 2,
        "logits": 1 / (1 + (-LOGITS.double().mean(0)).exp()),
        "max": torch.stack([yes[0, 0], yes[1, 1], yes[1, 2]]),
    }
    for rule, scores in expected.items():
        card = Card(aggregate=rule, activation="sigmoid")  # type: ignore[arg-type]
        torch.testing.assert_close(aggregate(LOGITS, card), scores.float())


class Squares:
    def __init__(self, count: int, bad: Sequence[int] = ()) -> None:
        self.count, self.bad = count, bad

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, int]:
        if index in self.bad:
            import os

            os._exit(3)  # like a decoder that crashes
        return {"square": index * index}


@pytest.mark.parametrize("workers", [0, 2])
def test_load_keeps_order_and_kind(workers: int) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert list(load(Squares(7), workers)) == [{"square": i * i} for i in range(7)]
    assert torch.equal(torch.get_rng_state(), state)


def test_load_tells_a_dead_process() -> None:
    with pytest.raises(UserError, match="workers=0"):
        list(load(Squares(6, bad=[3]), workers=2))


def test_score_follows_the_card() -> None:
    model = Counting()
    clips = torch.full((1, 3, 2, 4, 4), 51, dtype=torch.uint8)
    assert score(model, clips).tolist() == [pytest.approx([0.2] * 3)]
    set_card(model, dataclasses.replace(card_of(model), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 0.5)))
    assert score(model, clips).tolist() == [pytest.approx([0.1, 0.0, -0.2], abs=1e-6)]

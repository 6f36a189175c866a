"""The head: windows against loops, and what joining the places means for the scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nonlocalnet.head import HEADS, Head, join, places
from nonlocalnet.resnet import BasicBlock, ResNet3d

WINDOWED: tuple[Head, ...] = ("7x7-softmax", "7x7-sigmoid", "7x7-logits")


def windows(x: Tensor) -> Tensor:
    """The mean over all frames and 7 x 7 cells, for each place by itself: (N, places, C)."""
    height, width = (min(7, size) for size in x.shape[3:])
    found = []
    for top in range(x.shape[3] - height + 1):
        for left in range(x.shape[4] - width + 1):
            part = x[:, :, :, top : top + height, left : left + width]
            found.append(part.sum((2, 3, 4)) / (x.shape[2] * height * width))
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("head", WINDOWED)
@pytest.mark.parametrize(
    ("grid", "count"),
    [((9, 8), 6), ((7, 7), 1), ((8, 8), 4), ((5, 6), 1), ((5, 9), 3), ((1, 1), 1)],
)
@pytest.mark.parametrize("last", [True, False])
def test_windows_equal_a_loop(head: Head, grid: tuple[int, int], count: int, last: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, *grid, dtype=torch.float64)
    if last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    got = places(x, head)
    assert got.shape == (2, count, 3)
    torch.testing.assert_close(got, windows(x))


def test_globally_all_positions_are_one_place() -> None:
    x = torch.randn(2, 3, 4, 9, 8, dtype=torch.float64)
    want = torch.stack([x[n].flatten(1).sum(1) / (4 * 9 * 8) for n in range(2)])
    torch.testing.assert_close(places(x, "global"), want)


def test_softmax_of_the_joined_logits_is_the_mean_of_the_softmaxes() -> None:
    torch.manual_seed(0)
    logits = 30 * torch.randn(2, 5, 7, dtype=torch.float64)
    want = sum(logits[:, place].softmax(1) for place in range(5)) / 5
    torch.testing.assert_close(join(logits, "7x7-softmax").softmax(1), want)
    torch.testing.assert_close(join(logits, "7x7-logits"), logits.sum(1) / 5)
    assert not torch.allclose(join(logits, "7x7-logits").softmax(1), want, atol=1e-2)
    far = torch.tensor([[[1e4, 0.0], [-1e4, 0.0]]])  # the exponentials of which overflow
    assert join(far, "7x7-softmax").isfinite().all()


def test_sigmoid_of_the_joined_logits_is_the_mean_of_the_sigmoids() -> None:
    torch.manual_seed(0)
    logits = 5 * torch.randn(2, 5, 7, dtype=torch.float64)
    want = sum(logits[:, place].sigmoid() for place in range(5)) / 5
    torch.testing.assert_close(join(logits, "7x7-sigmoid").sigmoid(), want)
    far = torch.tensor([[[1e4, 0.0], [-1e4, 0.0]]])
    assert join(far, "7x7-sigmoid").isfinite().all()


@pytest.mark.parametrize("head", HEADS)
def test_one_place_keeps_its_own_logits(head: Head) -> None:
    logits = torch.randn(2, 7)
    assert torch.equal(join(logits, head), logits)
    if head != "global":
        assert torch.equal(join(logits.unsqueeze(1), head), logits)


@pytest.mark.parametrize("head", HEADS)
def test_a_network_scores_every_place_of_a_larger_picture(head: Head) -> None:
    """At 7 x 7 cells all heads are one; at 9 x 8 the windowed ones score six places."""
    torch.manual_seed(0)
    model = ResNet3d(BasicBlock, (1, 1), "tiny", width=4, num_classes=5, head=head).eval().double()
    torch.nn.init.normal_(model.fc.weight, std=3.0)
    small, large = (torch.randn(2, 3, 2, *s, dtype=torch.float64) for s in ((28, 28), (34, 32)))
    with torch.no_grad():
        features = model.features(small)
        assert features.shape[3:] == (7, 7)
        torch.testing.assert_close(model(small), model.fc(features.mean((2, 3, 4))))
        features = model.features(large)
        assert features.shape[3:] == (9, 8)
        each = model.fc(windows(features))  # (2, 6, 5)
        want = {
            "global": model.fc(features.mean((2, 3, 4))).softmax(1),
            "7x7-softmax": each.softmax(2).mean(1),
            "7x7-sigmoid": each.sigmoid().mean(1),
            "7x7-logits": each.mean(1).softmax(1),
        }
        scores = model(large).sigmoid() if head == "7x7-sigmoid" else model(large).softmax(1)
        torch.testing.assert_close(scores, want[head])

from __future__ import annotations

import pytest
import torch

from nonlocalnet.shift import Direction, TemporalShift


def test_moves_the_channels_the_paper_moves() -> None:
    # 1 clip of 4 frames, 8 channels, one position: the value of channel c in frame t is 10 c + t
    x = (10 * torch.arange(8.0).view(1, 8, 1) + torch.arange(4.0)).view(1, 8, 4, 1, 1)
    y = TemporalShift(8)(x).flatten(2)[0]
    assert y[0].tolist() == [1, 2, 3, 0]  # from the future
    assert y[1].tolist() == [0, 10, 11, 12]  # from the past
    assert torch.equal(y[2:], x.flatten(2)[0, 2:])


@pytest.mark.parametrize("fraction", [2, 4, 8])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_online_the_past_alone_is_seen(fraction: int, frames: int) -> None:
    """Frame after frame, the first channels exchanged for those kept of the frame before."""
    x = torch.randn(2, 16, frames, 3, 2)
    kept = torch.zeros(2, 16 // fraction, 3, 2)
    shifted = TemporalShift(fraction, direction="past")
    y = shifted(x)
    for t in range(frames):
        frame = x[:, :, t]
        assert torch.equal(y[:, :, t], torch.cat([kept, frame[:, 16 // fraction :]], dim=1))
        kept = frame[:, : 16 // fraction]
    assert "future" not in repr(shifted)
    assert "future" in repr(TemporalShift(fraction))


@pytest.mark.parametrize("direction", ["both", "past"])
def test_frames_in_the_batch_are_the_same(direction: Direction) -> None:
    x = torch.randn(2, 16, 5, 3, 3)
    flat = x.transpose(1, 2).flatten(0, 1)  # (N T, C, H, W)
    want = TemporalShift(4, direction=direction)(x).transpose(1, 2).flatten(0, 1)
    assert torch.equal(TemporalShift(4, frames=5, direction=direction)(flat), want)


def test_input_is_left_alone_and_gradients_flow_back_shifted() -> None:
    x = torch.randn(1, 8, 4, 2, 2, requires_grad=True)
    before = x.detach().clone()
    y = TemporalShift(8)(x)
    assert torch.equal(x, before)
    (gradient,) = torch.autograd.grad(y[:, :, 0].sum(), x)
    # frame 0 reads channel 0 from frame 1, channel 1 from nowhere, the rest from itself
    assert gradient[0, 0, :, 0, 0].tolist() == [0, 1, 0, 0]
    assert gradient[0, 1, :, 0, 0].tolist() == [0, 0, 0, 0]
    assert gradient[0, 2, :, 0, 0].tolist() == [1, 0, 0, 0]


def test_wrong_features_are_told() -> None:
    with pytest.raises(ValueError, match="give frames=T"):
        TemporalShift()(torch.zeros(8, 8, 2, 2))
    with pytest.raises(ValueError, match="T = 3 frames"):
        TemporalShift(frames=3)(torch.zeros(8, 8, 2, 2))
    with pytest.raises(ValueError, match="fraction"):
        TemporalShift(1)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        TemporalShift(frames=0)
    with pytest.raises(ValueError, match="'both' or 'past', not 'future'"):
        TemporalShift(direction="future")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1/8 of 4 channels is none"):
        TemporalShift(8)(torch.zeros(1, 4, 2, 2, 2))


@pytest.mark.parametrize("direction", ["both", "past"])
def test_a_graph_shifts_without_scatters(direction: Direction) -> None:
    """What is exported is another form, of the same values."""
    layer = TemporalShift(direction=direction)
    x = torch.randn(2, 17, 5, 3, 4)
    graph = torch.export.export(layer, (x,)).module()
    assert torch.equal(graph(x), layer(x))
    assert not [n for n in graph.graph.nodes if "copy" in str(n.target)]

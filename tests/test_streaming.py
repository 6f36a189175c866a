"""Frame by frame and the clip at once are one network."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from rebuilt import peer
from torch import Tensor, nn

from nonlocalnet import create_model, insert, load, shift
from nonlocalnet.errors import UserError
from nonlocalnet.head import HEADS
from nonlocalnet.ops import PAIRWISE
from nonlocalnet.streaming import State, Streaming, restart

NETWORKS = [  # name, side of a frame, after what a causal block goes
    ("tsm_tiny", 32, ("layer2.0",)),
    ("tsm_resnet18", 64, ("layer2.1", "layer3.0")),
    ("tsm_resnet50", 64, ("layer2.1", "layer3.4")),
    ("tsm_mobilenetv2", 64, ("features.6", "features.13")),
]
WINDOW = 3


def online(name: str, after: tuple[str, ...] = (), **options: Any) -> nn.Module:
    """A network whose parts all count: norms as after training, blocks awake."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=7, shift="past")
    if after:
        # unscaled, softmax scores of these weights are so far apart that they magnify rounding
        scale = None if options.get("pairwise") == "concatenation" else "1/sqrt(d)"
        awake: Any = {"zero_init": "none", "init": "msra", "scale": scale}
        insert(model, after, causal=WINDOW, **awake, **options)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.3, 0.9)
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(draw(3, 4, 64))  # the norms' statistics
    return model.eval()


def draw(n: int, frames: int, side: int) -> Tensor:
    """Clips whose frames differ in more than noise, which the mean over positions takes away."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.randn(n, 3, frames, 1, 1, generator=generator)
    return colours + torch.randn(n, 3, frames, side, side, generator=generator)


def step_through(stream: Streaming, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    logits = []
    for frame in x.unbind(2):
        one, state = stream(frame, state)
        logits.append(one)
    assert state is not None
    return torch.stack(logits, 1), state


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference relative to the logits' deviation."""
    return float((ours - theirs).abs().max() / theirs.std())


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize(("name", "side", "after"), NETWORKS)
def test_streams_that_begin_at_different_times_equal_their_clips(
    name: str, side: int, after: tuple[str, ...], blocks: bool
) -> None:
    """Three streams of six frames, a window of three; two of them begin anew, at 2 and at 5."""
    model = online(name, after if blocks else ())
    stream, x = Streaming(model), draw(3, 6, side)
    begins = torch.zeros(6, 3, dtype=torch.bool)
    begins[2, 1] = begins[5, 2] = True
    with torch.inference_mode():
        state, logits = stream.start(x[:, :, 0]), []
        for frame, begin in zip(x.unbind(2), begins, strict=True):
            one, state = stream(frame, restart(state, begin))
            logits.append(one)
        ours = torch.stack(logits, 1)
        for i, first in enumerate((0, 2, 5)):
            parts = [x[i : i + 1, :, :first], x[i : i + 1, :, first:]]
            theirs = torch.cat([model.frames(p) for p in parts if p.shape[2]], 1)  # type: ignore[operator]
            assert apart(ours[i : i + 1], theirs) < 1e-4
        clip = model(x[:1])
        assert apart(ours[:1].mean(1), clip) < 1e-4
        forgetful = torch.cat([stream(x[:1, :, t])[0] for t in range(6)])
        assert apart(forgetful[1:], ours[0, 1:]) > 1e-2  # the state matters
    assert len(state) == len(stream.names) == len(set(stream.names))
    assert sum("keys" in n for n in stream.names) == blocks * len(after)


@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("mode", ["spacetime", "time"])
def test_every_pairwise_function_streams(pairwise: str, mode: str) -> None:
    model = online("tsm_tiny", ("layer2.0",), pairwise=pairwise, mode=mode)
    x = draw(2, 5, 32)
    with torch.inference_mode():
        assert apart(step_through(Streaming(model), x)[0], model.frames(x)) < 1e-4  # type: ignore[operator]


@pytest.mark.slow
def test_the_online_network_of_mit_stepped_through_eight_frames(tmp_path: Path) -> None:
    """Logits of each frame, and the ten caches after the last, are the original's."""
    golden = peer("tsm_online_mobilenetv2")
    golden.write(tmp_path / "online.pth")
    stream = Streaming(load(tmp_path / "online.pth"))
    with torch.inference_mode():
        logits, state = step_through(stream, golden.clip())
    assert apart(logits, golden.logits) < 1e-4
    for cache, stats, samples in zip(
        state, golden.arrays["cache_stats"], golden.arrays["cache_samples"], strict=True
    ):
        told = torch.stack([cache.mean(), cache.std(), cache.min(), cache.max()])
        torch.testing.assert_close(told, torch.from_numpy(stats), rtol=1e-4, atol=1e-4)
        flat = cache.flatten()
        few = flat[:: flat.numel() // 32][:32]
        torch.testing.assert_close(few, torch.from_numpy(samples), rtol=1e-4, atol=1e-4)


def test_an_image_network_streams_as_it_is() -> None:
    """A user's own 2-D network, whose batch holds the frames; its block sees one frame."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
    insert(model, "0.2", zero_init="none")
    x = draw(2, 4, 16)
    frames = x.transpose(1, 2).flatten(0, 1)
    offline = shift(copy.deepcopy(model), "0.2", frames=4, direction="past")
    with torch.inference_mode():
        ours, state = step_through(Streaming(offline), x)
        assert apart(ours, offline(frames).unflatten(0, (2, 4))) < 1e-4
    assert [tuple(t.shape) for t in state] == [(2, 2, 7, 7)]


def test_half_precision_and_doubles_carry_states_of_their_own() -> None:
    model, x = online("tsm_tiny", ("layer2.0",)), draw(2, 4, 32)
    with torch.inference_mode():
        for kind, bound in (
            (torch.float64, 1e-12),
            (torch.float32, 1e-5),
            (torch.float16, 1e-2),
            (torch.bfloat16, 5e-2),
        ):
            want = copy.deepcopy(model).to(kind).frames(x.to(kind))  # which rounds as often
            logits, state = step_through(Streaming(model).to(kind), x.to(kind))
            assert {t.dtype for t in state} == {kind, torch.int64}  # int64 counts frames
            assert apart(logits.double(), want.double()) < bound
    assert next(model.parameters()).dtype == torch.float32  # the copy was changed, not the network


def test_the_state_is_a_value() -> None:
    stream, x = Streaming(online("tsm_tiny", ("layer2.0",))), draw(1, 4, 32)
    with torch.inference_mode():
        _, state = step_through(stream, x[:, :, :2])
        before = [t.clone() for t in state]
        once, _ = stream(x[:, :, 2], state)
        stream(x[:, :, 3], None)  # another stream in between
        again, _ = stream(x[:, :, 2], state)
    assert torch.equal(once, again)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
    assert not any(t.any() for t in stream.start(x[:, :, 0]))


def test_exported_for_any_number_of_streams() -> None:
    """By the user's own torch.export; test_export has every pairwise function."""
    stream = Streaming(online("tsm_tiny", ("layer2.0",)))
    x = draw(2, 1, 32)[:, :, 0]
    many = {0: torch.export.Dim("streams", min=1, max=64)}
    state = stream.start(x)
    program = torch.export.export(
        stream, (x, state), dynamic_shapes=(many, tuple(many for _ in state))
    ).module()
    x, state = draw(5, 2, 32), stream.start(draw(5, 1, 32)[:, :, 0])
    with torch.inference_mode():
        for frame in x.unbind(2):
            ours, after = stream(frame, state)
            theirs, state = program(frame, state)
            assert apart(theirs, ours) < 1e-5
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(after, state, strict=True))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: create_model("tsm_tiny"),
            "conv1.temporal_shift is a shift from the next frame",
        ),
        (lambda: create_model("c2d_resnet18"), "conv1 has a stride of several frames"),
        (lambda: create_model("i3d_tiny"), "layer2.0.conv1 has a kernel of several frames"),
        (
            lambda: create_model("tsm_tiny", 4, ("layer2.0",), shift="past"),
            "layer2.0.non_local is a block that sees all frames",
        ),
        (
            lambda: create_model("tsm_tiny", 4, ("layer2.0",), shift="past", temporal_group=2),
            "is a block that sees all frames",
        ),
    ],
)
def test_networks_that_look_ahead_are_refused(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Streaming(make())


class Squeezed(nn.Module):
    """Squeeze and excitation, as `inflate` makes it of EfficientNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.gate = nn.AdaptiveAvgPool3d(1), nn.Conv3d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.pool(x)).sigmoid()


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (Squeezed(), "1.pool pools all frames"),
        (nn.AdaptiveMaxPool3d((1, 8, 8)), "1 pools all frames"),
        (nn.GroupNorm(2, 8), "1 is a norm over all frames"),
        (nn.InstanceNorm3d(8), "1 is a norm over all frames"),
        (nn.BatchNorm3d(8, track_running_stats=False), "1 is a norm over all frames"),
        (nn.ConvTranspose3d(8, 8, (3, 1, 1), padding=(1, 0, 0)), "1 has a kernel of several"),
        (nn.Conv3d(8, 8, 1, padding=(1, 0, 0)), "1 has a padding of several frames"),
        (nn.BatchNorm3d(8), None),
        (nn.AdaptiveAvgPool3d((None, 8, 8)), None),
    ],
)
def test_layers_that_mix_frames_are_refused(layer: nn.Module, says: str | None) -> None:
    """One layer between two convolutions: what goes through equals the clip, the rest is named."""
    torch.manual_seed(0)
    first, second = nn.Conv3d(3, 8, (1, 3, 3)), nn.Conv3d(8, 8, (1, 3, 3))
    end = nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 5)
    model = nn.Sequential(first, layer, second, *end).eval()
    if says is not None:
        with pytest.raises(UserError, match=says):
            Streaming(model)
        return
    x = draw(2, 4, 16)
    with torch.inference_mode():
        assert apart(step_through(Streaming(model), x)[0].mean(1), model(x)) < 1e-4


@pytest.mark.parametrize("head", HEADS)
def test_heads_whose_clip_is_not_the_mean_of_its_frames_are_refused(head: Any) -> None:
    model, x = create_model("tsm_tiny", 4, shift="past", head=head).eval(), draw(1, 4, 96)
    if head in ("7x7-softmax", "7x7-sigmoid"):
        with pytest.raises(UserError, match="its head joins places of all frames"):
            Streaming(model)
        return
    with torch.inference_mode():
        assert apart(step_through(Streaming(model), x)[0].mean(1), model(x)) < 1e-4


def test_blocks_that_see_their_own_frame_need_no_state() -> None:
    model = create_model("tsm_tiny", 4, ("layer2.0",), shift="past", mode="space", zero_init="none")
    stream, x = Streaming(model.eval()), draw(1, 3, 32)
    assert len(stream.names) == 3  # those of the shifts
    with torch.inference_mode():
        assert apart(step_through(stream, x)[0], model.frames(x)) < 1e-4  # type: ignore[operator]


def test_frames_and_states_that_do_not_fit_are_refused() -> None:
    stream, x = Streaming(online("tsm_tiny", ("layer2.0",))), draw(2, 1, 32)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        stream(x)
    state = stream.start(x[:, :, 0])
    for wrong in (state[:-1], stream.start(x[:1, :, 0])):
        with pytest.raises(ValueError, match="the state of 2 streams is 6 tensors"):
            stream(x[:, :, 0], wrong)
    with pytest.raises(ValueError, match="begin anew"):
        stream(draw(2, 1, 48)[:, :, 0], state)
    stream(x[:, :, 0], state)  # a failed call leaves nothing behind

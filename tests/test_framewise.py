from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18

from nonlocalnet import create_model, describe, libraries, load, shift
from nonlocalnet.card import card_of
from nonlocalnet.cost import cost
from nonlocalnet.errors import UserError
from nonlocalnet.framewise import Framewise
from nonlocalnet.head import head_of, is_head
from nonlocalnet.models import is_model
from nonlocalnet.streaming import Streaming, restart
from nonlocalnet.training.norms import synchronize
from nonlocalnet.weights import load_imagenet, save

SMALL = "tsm_torchvision:mobilenet_v3_small"
NAMES = (SMALL, "tsm_torchvision:efficientnet_b0", "tsm_timm:convnext_atto", "tsm_timm:resnet18")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def moved(x: NDArray[Any], fraction: int = 8, past: bool = False) -> NDArray[Any]:
    """The shift of features (T, C, H, W), channel by channel and frame by frame."""
    out = x.copy()
    fold = x.shape[1] // fraction
    for t in range(len(x)):
        for c in range(2 * fold):
            step = 1 if c < fold and not past else -1
            if past and c >= fold:
                continue
            there = t + step
            out[t, c] = x[there, c] if 0 <= there < len(x) else 0
    return out


class Residual(nn.Module):
    """y = x + conv1(x), as a network of one known block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(16, 16, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv1(x)


Residual.__name__ = "BasicBlock"


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("fraction", [4, 8])
def test_placements_differ_in_the_identity_alone(past: bool, fraction: int) -> None:
    x = torch.randn(5, 16, 3, 2)
    block = Residual()
    weight = block.conv1.weight.detach().numpy()[:, :, 0, 0]
    want = moved(x.numpy(), fraction, past)
    branch = np.einsum("oc,tchw->tohw", weight, want)
    options: dict[str, Any] = {"fraction": fraction, "frames": 5}
    options["direction"] = "past" if past else "both"
    residual = shift(nn.Sequential(copy.deepcopy(block)), **options)
    in_place = shift(nn.Sequential(copy.deepcopy(block)), "block", **options)
    with torch.no_grad():
        np.testing.assert_allclose(residual(x).numpy(), x.numpy() + branch, atol=1e-6)
        np.testing.assert_allclose(in_place(x).numpy(), want + branch, atol=1e-6)


def settled(model: nn.Module) -> nn.Module:
    """A network whose every branch and norm matters, as after training; in eval mode."""
    for name, parameter in model.named_parameters():
        if name.endswith(("gamma", "layer_scale")):  # of ConvNeXt, a millionth at first
            nn.init.constant_(parameter, 0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.ones_(module.weight)  # timm's last one of each branch is zero at first
    nn.init.normal_(head_of(model).weight, std=0.3)
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 2, 64, 64))
        logits = model.eval()(torch.randn(4, 3, 2, 64, 64))
    assert logits.std() > 0.1
    return model


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_of_any_length_is_its_frames_with_shifts_between(name: str) -> None:
    model = settled(create_model(name, 5, shift="past")).double()
    x = torch.randn(2, 3, 4, 64, 64, dtype=torch.float64)
    later = torch.cat([x[:, :, :3], torch.randn_like(x)], dim=2)
    with torch.no_grad():
        frames = model.frames(x)
        assert frames.shape == (2, 4, 5)
        torch.testing.assert_close(model(x), frames.mean(1))
        torch.testing.assert_close(model.frames(later)[:, :3], frames[:, :3])
        without = model.frames(x[:, :, 1:])[:, 0]  # the same frame with nothing before it
        assert (without - frames[:, 1]).abs().max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_frame_by_frame_it_is_the_clip(name: str) -> None:
    model = settled(create_model(name, 5, shift="past"))
    stream = Streaming(model)
    assert all(part.startswith("host.") and part.endswith(".cache") for part in stream.names)
    x = torch.randn(3, 3, 5, 64, 64)
    with torch.no_grad():
        want = torch.cat([model.frames(x[:, :, :2]), model.frames(x[:, :, 2:])], dim=1)
        found, state = [], None
        for t in range(5):
            if t == 2:
                assert state is not None
                state = restart(state, torch.ones(3, dtype=torch.bool))
            logits, state = stream(x[:, :, t], state)
            found.append(logits)
    assert (torch.stack(found, 1) - want).abs().max() <= 1e-4 * want.std()


def test_without_shifts_it_is_the_image_network() -> None:
    model = settled(create_model(SMALL, 1000, shift_at=()))
    image = mobilenet_v3_small().eval()
    image.load_state_dict(
        {**{k.removeprefix("host."): v for k, v in model.state_dict().items() if "host." in k},
         "classifier.3.weight": model.fc.weight, "classifier.3.bias": model.fc.bias}
    )  # fmt: skip
    x = torch.randn(2, 3, 3, 64, 64)
    with torch.no_grad():
        want = torch.stack([image(x[:, :, t]) for t in range(3)], dim=1)
        torch.testing.assert_close(model.frames(x), want, rtol=1e-4, atol=1e-5)


def test_keys_are_the_hosts_and_the_head_is_new() -> None:
    for name, host in ((SMALL, mobilenet_v3_small()), ("tsm_timm:resnet18", resnet18())):
        model = create_model(name, 7)
        keys = set(host.state_dict())
        kept = {f"host.{k}" for k in keys if not k.startswith(model.host_head)}
        assert set(model.state_dict()) == kept | {"fc.weight", "fc.bias"}
        assert [n for n, _ in model.named_parameters() if is_head(n)] == ["fc.weight", "fc.bias"]
        assert head_of(model) is model.fc
        assert [m for m in model.modules() if isinstance(m, nn.Dropout)] == [model.dropout]


def test_gradients_reach_neighbouring_frames() -> None:
    for direction, seen in (("both", [0, 1, 2]), ("past", [0, 1])):
        model = settled(create_model(SMALL, 3, shift=direction))
        x = torch.randn(1, 3, 3, 32, 32, requires_grad=True)
        (gradient,) = torch.autograd.grad(model.frames(x)[0, 1].sum(), x)
        assert gradient.abs().sum((0, 1, 3, 4)).nonzero().flatten().tolist() == seen


def test_copies_pickles_and_files_hold_it(tmp_path: Path) -> None:
    options = {"shift": "past", "shift_at": "block", "shift_fraction": 4}
    model = settled(create_model(SMALL, 6, **options))
    x = torch.randn(1, 3, 4, 32, 32)
    save(model, tmp_path / "model.safetensors", prove=True)
    loaded = load(tmp_path / "model.safetensors", verify=True)
    assert card_of(loaded) == card_of(model)
    assert "in-place placement, 6 of 11 blocks: 1/4 from the past" in describe(loaded)
    with torch.no_grad():
        want = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
            assert torch.equal(other(x), want)
    other = load(tmp_path / "model.safetensors", num_classes=3)
    assert head_of(other).out_features == 3


def test_constants_that_no_file_holds_come_from_the_library(tmp_path: Path) -> None:
    """timm's blurring pooling keeps its filter out of the state dict."""
    model = settled(create_model("tsm_timm:resnetblur18", 2))
    save(model, tmp_path / "model.safetensors")
    drawn = torch.get_rng_state()
    loaded = load(tmp_path / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), drawn)
    x = torch.randn(1, 3, 2, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_it_exports_and_compiles() -> None:
    host = nn.Sequential(
        nn.Conv2d(3, 16, 3), Residual(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 9)
    )
    model = Framewise(shift(host), 3).eval()
    x = torch.randn(5, 3, 4, 8, 8)
    batch = torch.export.Dim("batch", min=2, max=9)
    exported = torch.export.export(model, (x[:2],), dynamic_shapes=({0: batch},)).module()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        for clips in (x[:2], x):
            torch.testing.assert_close(exported(clips), model(clips))
        torch.testing.assert_close(compiled(x[:, :, :3]), model(x[:, :, :3]))


def test_imagenet_weights_are_the_librarys_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "tf_mobilenetv3_small_075"
    host = timm.create_model(name)
    trained = dataclasses.replace(
        libraries.LIBRARIES["timm"], trained=lambda timm, name: host.state_dict()
    )
    torch.save(host.state_dict(), tmp_path / "host.pth")
    model = create_model(f"tsm_timm:{name}", 4)
    assert card_of(model).mean == (0.5, 0.5, 0.5) == timm.get_pretrained_cfg(name).mean
    monkeypatch.setitem(libraries.LIBRARIES, "timm", trained)
    for path in (None, tmp_path / "host.pth"):
        with torch.no_grad():
            model.host.conv_stem.weight.zero_()
        assert load_imagenet(model, path) == ["fc.weight", "fc.bias"]
        assert torch.equal(model.host.conv_stem.weight, host.conv_stem.weight)
    assert card_of(model).mean == (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="no weights of an image timm:tf_mobilenetv3"):
        load_imagenet(model, _saved(tmp_path / "other.pth", resnet18()))


def _saved(path: Path, network: nn.Module) -> Path:
    torch.save(network.state_dict(), path)
    return path


def test_weights_that_cannot_be_had_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> Any:
        def trained(package: Any, name: str) -> Any:
            raise error

        return dataclasses.replace(libraries.LIBRARIES["timm"], trained=trained)

    model = create_model("tsm_timm:resnet18", 4)
    monkeypatch.setitem(libraries.LIBRARIES, "timm", fail(OSError("no internet\nat all")))
    with pytest.raises(UserError, match=r"weights of resnet18 \(no internet\); .*pretrained FILE"):
        load_imagenet(model)
    monkeypatch.setitem(libraries.LIBRARIES, "timm", fail(RuntimeError("none exist")))
    with pytest.raises(UserError, match="timm has no trained weights of 'resnet18': none exist"):
        load_imagenet(model)


def test_names() -> None:
    assert is_model(SMALL)
    assert is_model("tsm_tiny")
    for name in ("tsm_torchvision:", "tsm_keras:resnet50", "c2d_timm:resnet18", "runs/mine", ""):
        assert not is_model(name)
    for name, words in (
        (
            "tsm_timm:convnext_ato",
            "no image network 'convnext_ato'; near it .*convnext_atto",
        ),
        ("tsm_timm:resnet18.nobody", "timm cannot make 'resnet18.nobody'"),
        ("tsm_torchvision:raft_large", "torchvision has no image network 'raft_large'"),
        ("tsm_keras:resnet50", "there are c2d_tiny, .*tsm_torchvision:NAME, tsm_timm:NAME"),
        ("tsm_torchvision:vgg11", "where to shift VGG is not known"),
        ("tsm_torchvision:squeezenet1_0", "where to shift"),
    ):
        with pytest.raises(ValueError, match=words):
            create_model(name)
    with pytest.raises(ValueError, match="last layer .* is to be linear.* SqueezeNet is a Conv2d"):
        create_model("tsm_torchvision:squeezenet1_0", shift_at=("features.3",))
    with pytest.raises(ValueError, match="single frames"):
        create_model(SMALL, non_local=5)
    with pytest.raises(ValueError, match="has no stem"):
        create_model(SMALL, stem="paper")
    with pytest.raises(ValueError, match=r"clips are \(N, 3, T, H, W\)"):
        create_model(SMALL)(torch.zeros(2, 3, 32, 32))


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = dataclasses.replace(libraries.LIBRARIES["timm"], module="timm_is_not_here")
    monkeypatch.setitem(libraries.LIBRARIES, "timm", absent)
    with pytest.raises(ImportError, match=r'pip install "nonlocalnet\[timm\]"'):
        create_model("tsm_timm:resnet18")


def test_a_preset_gives_its_direction_and_cost_opens_the_host() -> None:
    model = create_model(SMALL, 3, preset="tsm-online")
    assert card_of(model).architecture["shift"] == "past"
    rows = {row.name: row for row in cost(model, (3, 4, 32, 32))}
    assert {"host.features", "host.classifier", "fc", "total"} <= set(rows)
    assert "host" not in rows
    assert rows["fc"].shape == (3,)


def test_norms_with_an_activation_are_not_synchronised() -> None:
    with pytest.raises(UserError, match="BatchNormAct2d is more than a batch norm"):
        synchronize(create_model("tsm_timm:mobilenetv3_small_050", 2))

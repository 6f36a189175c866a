from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from nonlocalnet import create_model, insert, load
from nonlocalnet.card import Card, card_of, set_card
from nonlocalnet.errors import UserError
from nonlocalnet.weights import load_imagenet, save


def test_a_checkpoint_gives_the_network_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("i3d_tiny", 3, non_local=1, pairwise="concatenation", scale=None).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    card = dataclasses.replace(card_of(model), classes=("a", "b", "ü <c>"), flip=False)
    set_card(model, card)
    save(model, tmp_path / "model.safetensors")
    x = torch.randn(2, 3, 8, 32, 32)
    for path in (tmp_path / "model.safetensors", tmp_path):  # the file, or the run's folder
        again = load(path)
        assert torch.equal(again(x), model(x))
        assert card_of(again) == card
        assert not again.training
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors"]
    (tmp_path / "plain").touch()
    rights = {p.stat().st_mode for p in tmp_path.iterdir()}
    assert len(rights) == 1  # readable for whom any new file is


def test_damage_and_strangers_are_told(tmp_path: Path) -> None:
    model = create_model("c2d_tiny", 2)
    good = tmp_path / "good.safetensors"
    save(model, good)
    (tmp_path / "half.safetensors").write_bytes(good.read_bytes()[:-100])
    save_file({"w": torch.zeros(1)}, tmp_path / "stranger.safetensors")
    renamed = {f"x.{k}": v.contiguous() for k, v in model.state_dict().items()}
    renamed["fc.bias"] = torch.zeros(5)
    metadata = {"format": "nonlocalnet-1", "card": card_of(model).to_json()}
    save_file(renamed, tmp_path / "renamed.safetensors", metadata)
    newer = json.loads(card_of(model).to_json()) | {"tempo": 3}
    metadata["card"] = json.dumps(newer)
    save_file(renamed, tmp_path / "newer.safetensors", metadata)
    (tmp_path / "empty").mkdir()
    for name, says in (
        ("absent.safetensors", "no such file"),
        ("empty", "run folder without model.safetensors"),
        ("half.safetensors", "damaged"),
        ("stranger.safetensors", "of no family known here .* called w$"),
        (
            "renamed.safetensors",
            r"(?s)shape +fc.bias +\(5,\) in .*missing +conv1.weight.*and \d+ more.*unexpected +x\.",
        ),
        ("newer.safetensors", "tempo"),
    ):
        with pytest.raises(UserError, match=says):
            load(tmp_path / name)


def test_saving_never_harms_what_is_there(tmp_path: Path) -> None:
    model = create_model("c2d_tiny", 2)
    save(model, tmp_path / "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()
    own = create_model("c2d_tiny", 2, 1, pairwise=lambda theta, phi: theta @ phi.mT)
    with pytest.raises(UserError, match="has no name here"):
        save(own, tmp_path / "m.safetensors")
    edited = insert(create_model("c2d_tiny", 2), "layer1.0")
    with pytest.raises(UserError, match=r"unexpected  layer1\.0\.non_local"):
        save(edited, tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="carries no card"):
        save(nn.Linear(1, 1), tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="cannot write"):
        save(model, tmp_path / "no folder" / "m.safetensors")
    # a full disk: the file system refuses more than 8 kB
    script = (
        "import resource, signal, sys; from nonlocalnet import create_model;"
        "from nonlocalnet.weights import save; from nonlocalnet.errors import UserError;"
        "m = create_model('c2d_tiny', 2); signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try: save(m, sys.argv[1])\nexcept UserError as e: print(e)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "m.safetensors")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "cannot write" in said
    assert (tmp_path / "m.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_card_survives_json() -> None:
    card = Card(classes=("a",), jitter=(20, 30), architecture={"name": "c2d_tiny"})
    assert Card.from_json(card.to_json()) == card
    assert card.class_name(0) == "a"
    assert card.class_name(7) == "class 7"


def test_imagenet_weights_by_the_inflation_rule(tmp_path: Path) -> None:
    torch.manual_seed(0)
    image = torchvision.models.resnet18().eval()
    for module in image.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    # torchvision's own files are older than num_batches_tracked
    published = {k: v for k, v in image.state_dict().items() if not k.endswith("batches_tracked")}
    torch.save(published, tmp_path / "r18.pth")
    save_file(image.state_dict(), tmp_path / "r18.safetensors")
    for file in ("r18.pth", "r18.safetensors"):
        model = create_model("tsm_resnet18", 5, non_local=1).eval()
        left = load_imagenet(model, tmp_path / file)
        assert {n.split(".")[0] for n in left} == {"fc", "layer3"}
        assert all("fc." in n or ".non_local." in n for n in left)
        torch.testing.assert_close(model.bn1.running_var, image.bn1.running_var)
    # every frame through the image network: on a still clip, one frame is the image
    plain = create_model("c2d_resnet18", 1000, stem="image", non_local=1).eval()
    load_imagenet(plain, tmp_path / "r18.pth")
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(
        plain(x.unsqueeze(2).expand(-1, -1, 3, -1, -1)), image(x), rtol=1e-4, atol=1e-4
    )
    assert card_of(plain).mean == (0.485, 0.456, 0.406)
    inflated = create_model("i3d_resnet18", 5)
    load_imagenet(inflated, tmp_path / "r18.pth")
    for i in range(5):
        torch.testing.assert_close(inflated.conv1.weight[:, :, i], image.conv1.weight / 5)


def test_imagenet_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "r18.pth")
    torch.save({"epoch": 3}, tmp_path / "odd.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    for name, file, says in (
        ("i3d_resnet50", "r18.pth", "no weights of an image resnet50"),
        ("i3d_resnet18", "absent.pth", "no such file"),
        ("i3d_resnet18", "odd.pth", "holds no tensors by name"),
        ("i3d_resnet18", "text.pth", "no checkpoint that can be read here"),
        ("i3d_resnet18", "text.safetensors", "no checkpoint that can be read here"),
        ("i3d_tiny", "r18.pth", "no ImageNet weights for i3d_tiny"),
    ):
        with pytest.raises(UserError, match=says):
            load_imagenet(create_model(name, 5), tmp_path / file)


def test_without_internet_the_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(UserError, match="give its path: --pretrained FILE"):
        load_imagenet(create_model("i3d_resnet18", 5))

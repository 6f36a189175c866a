"""`nonlocalnet convert`, and a converted file in the other commands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from test_loading import narrow, written

from nonlocalnet import cli, load
from nonlocalnet.card import card_of


@pytest.fixture(scope="module")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, tensors, _ = narrow("caffe2")
    return written(tensors, tmp_path_factory.mktemp("files") / "i3d.pkl")


def test_convert(pickled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tmp_path / "names.txt"
    names.write_text("run\n\njump\nswim\nride\nsleep\n")
    out = tmp_path / "i3d.safetensors"
    line = f"convert {pickled} {out} --preset caffe2-8x8 --classes {names} --licence CC-BY-NC-4.0"
    assert cli.main(line.split()) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"i3d\.pkl, read as caffe2-8x8: i3d_resnet50, 5 non-local blocks, [\d,]+ parameters\n", said
    )
    assert "its self-test holds" in said
    model = load(out, verify=True)
    card = card_of(model)
    assert card.classes == ("run", "jump", "swim", "ride", "sleep")
    assert (card.frames, card.stride, card.beyond, card.starts) == (8, 8, "wrap", "share")
    assert card.licence == "CC-BY-NC-4.0"
    again = load(pickled, preset="caffe2-8x8").state_dict()
    assert all(torch.equal(t, again[n]) for n, t in model.state_dict().items())
    # ours to ours: the card stays, what is said changes
    other = tmp_path / "16.safetensors"
    assert cli.main(["convert", str(out), str(other), "--frames", "16", "--no-verify"]) == 0
    assert "without a self-test" in capsys.readouterr().out
    told = card_of(load(other))
    assert (told.frames, told.stride, told.classes) == (16, 8, card.classes)


def test_convert_refuses(pickled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.safetensors"
    preset = "--preset caffe2-8x8"
    for words, code, says in (
        (f"{pickled} {out}", 1, "fits several networks"),
        (f"{pickled} {tmp_path / 'x.pth'} {preset}", 2, "a file ending in .safetensors"),
        (f"{pickled} {tmp_path / 'no' / 'x.safetensors'} {preset}", 1, "cannot write"),
        (f"{tmp_path / 'absent.pkl'} {out}", 1, "no such file"),
        (f"{pickled} {out} {preset} --classes jester", 2, "has 27 names, and the network has 5"),
        (f"{pickled} {out} {preset} --classes {tmp_path}", 2, "cannot be read"),
        (f"{pickled} {out} {preset} --frames 0", 2, "--frames is at least 1"),
        (f"{pickled} {out} --preset caffe2", 2, "caffe2"),
    ):
        try:
            status = cli.main(["convert", *words.split()])
        except SystemExit as stopped:  # a choice that the flags refuse by themselves
            status = int(stopped.code or 0)
        assert status == code, words
        assert says in capsys.readouterr().err
        assert not out.exists()
        assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_file_fails_the_self_test_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, tensors, _ = narrow("mmaction mobilenet")
    good = tmp_path / "good.safetensors"
    source = written(tensors, tmp_path / "x.pth")
    assert cli.main(["convert", str(source), str(good)]) == 0
    video = Path(shutil.copy(source, tmp_path / "no_video.mp4"))
    data = bytearray(good.read_bytes())
    for at in range(len(data) - 4000, len(data), 4):  # zeros in the middle of the numbers
        data[at : at + 4] = bytes(4)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(data)
    capsys.readouterr()
    assert cli.main(["predict", str(bad), str(video), "--verify"]) == 1
    assert "the self-test fails" in capsys.readouterr().err
    cli.main(["predict", str(good), str(video), "--verify"])
    assert "self-test" not in capsys.readouterr().err

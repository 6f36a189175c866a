"""The command line: what its words mean, what it prints, and how it ends."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nonlocalnet import __version__, cli, commands
from nonlocalnet.errors import UserError
from nonlocalnet.flags import Network, UsageError, parse_views
from nonlocalnet.listings.data import Data
from nonlocalnet.manner import Manner
from nonlocalnet.ops import PAIRWISE
from nonlocalnet.presets import PRESETS
from nonlocalnet.protocols import RECIPES
from nonlocalnet.recipes import Recipe
from nonlocalnet.synthetic import render_reunion

SMALL = ["--recipe", "reunion", "--accumulate-to", "8", "--workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_reunion(tmp_path_factory.mktemp("data") / "reunion", train=16, val=8)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mine"
    assert cli.main(["train", str(data), *SMALL, "--epochs", "1", "-o", str(out)]) == 0
    return out


@pytest.fixture
def video(data: Path) -> Path:
    return sorted((data / "val" / "same_left").glob("*.mp4"))[0]


def meant(line: str) -> tuple[str, dict[str, Any]]:
    """The command's name and its arguments, without running it."""
    call = cli.parse(line.split())
    assert isinstance(call, functools.partial)
    assert not call.args
    return call.func.__name__, call.keywords


@pytest.mark.parametrize(
    ("line", "name", "arguments"),
    [
        ("check-data DIR", "check_data", {"data": Data("DIR"), "json": False}),
        (
            "test runs/mine DIR --views 10x3",
            "run_test",
            {"run": Path("runs/mine"), "data": Data("DIR"), "views": "10x3"},
        ),
        (
            "predict runs/mine video.mp4 folder/",
            "predict",
            {"videos": ("video.mp4", "folder/"), "json": False, "top": 5},
        ),
        ("predict runs/mine --json a.mp4", "predict", {"videos": ("a.mp4",), "json": True}),
        (
            "stream run rtsp://camera/1 -o out -o a.mp4 --every 2 --unknown 0.6 --live",
            "stream",
            {
                "source": "rtsp://camera/1",
                "out": (Path("out"), Path("a.mp4")),
                "manner": Manner(every=2, unknown="0.6"),
                "live": True,
            },
        ),
        ("predict run a.mp4 --timeline", "predict", {"videos": ("a.mp4",), "timeline": True}),
        (
            "predict-many run s3://b/**/*.mp4 list.txt -o scores --workers 2",
            "predict_many",
            {"videos": ("s3://b/**/*.mp4", "list.txt"), "workers": 2, "address": "local"},
        ),
        (
            "attend runs/mine video.mp4 --at 1.2s:0.40,0.55 --at 3:0.1,0.2",
            "attend",
            {"video": Path("video.mp4"), "at": ("1.2s:0.40,0.55", "3:0.1,0.2")},
        ),
        (
            "show i3d_resnet50 --non-local 5",
            "show",
            {"model": "i3d_resnet50", "network": Network(non_local=5)},
        ),
        ("show c2d_resnet50 --non-local res4", "show", {"network": Network(non_local="res4")}),
        ("show tsm_resnet50 --non-local tsm", "show", {"network": Network(non_local="tsm")}),
        (
            "show i3d_resnet101 --preset slowfast --non-local slowfast",
            "show",
            {"network": Network(non_local="slowfast", preset="slowfast")},
        ),
        ("show --presets", "show", {"model": None, "presets": True, "network": Network()}),
        (
            "cost i3d_resnet50 --input 3x32x224x224 --train",
            "cost",
            {"model": "i3d_resnet50", "input": "3x32x224x224", "train": True, "batch": 1},
        ),
        ("cost runs/mine --dtype bfloat16", "cost", {"model": "runs/mine", "dtype": "bfloat16"}),
        (
            "export runs/mine OUT.onnx --stream --precision int8 --calibrate videos",
            "export",
            {"run": Path("runs/mine"), "stream": True, "precision": "int8", "batch": "1"},
        ),
        ("bench a.onnx runs/mine", "bench", {"networks": (Path("a.onnx"), Path("runs/mine"))}),
        ("doctor", "doctor", {}),
        ("demo", "demo", {"out": Path("demo"), "seed": 0}),
        ("demo -o here --seed 2", "demo", {"out": Path("here"), "seed": 2}),
        ("ablate --seeds 3", "ablate", {"out": Path("ablation"), "seeds": 3, "size": "small"}),
        (
            "ablate --table functions,axes --size medium --epochs 4 -o here",
            "ablate",
            {"table": "functions,axes", "size": "medium", "epochs": 4, "out": Path("here")},
        ),
    ],
)
def test_words_become_a_call(line: str, name: str, arguments: dict[str, Any]) -> None:
    command, found = meant(line)
    assert command == name
    assert {key: found[key] for key in arguments} == arguments


def test_train_of_the_issue() -> None:
    command, found = meant("train DIR --model i3d_resnet50 --non-local 5 -o runs/mine")
    assert command == "train"
    assert (found["data"], found["out"], found["resume"]) == (Data("DIR"), Path("runs/mine"), False)
    assert found["recipe"] == Recipe(model="i3d_resnet50", non_local=5)


@pytest.mark.parametrize(
    ("words", "blocks"),
    [
        ("--model tsm_tiny --shift online --causal 8", 1),
        ("--model=tsm_mobilenetv2", 0),
        ("--model tsm_timm:convnext_atto", 0),
        ("--model c2d_resnet101", 5),
        ("--model tsm_tiny --non-local 0", 0),
        ("--model tsm_tiny --non_local=layer1.0", ("layer1.0",)),
    ],
)
def test_a_network_has_the_blocks_it_has_places_for(words: str, blocks: object) -> None:
    """Nobody who names a network alone is told that it has not the five of the default."""
    _, found = meant(f"train DIR {words} -o out")
    assert found["recipe"].non_local == blocks


@pytest.mark.parametrize("command", ["show {}", "export {} out.onnx", "attend {} film.mp4"])
def test_what_needs_layers_takes_no_exported_file(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(b"")
    assert cli.main(command.format(file).split()) == 1
    assert "is an exported network, whose layers are gone" in capsys.readouterr().err


def test_only_a_new_run_needs_its_first_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", str(tmp_path), "--model", "gone.safetensors", "-o", str(tmp_path / "run")]
    assert cli.main(line) == 2
    assert "--model is one of" in capsys.readouterr().err
    cli.main([*line, "--resume"])
    assert "--model is one of" not in capsys.readouterr().err  # there is no run; that is told


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("form", ["--recipe {}", "--recipe={}"])
def test_a_recipe_gives_the_defaults(name: str, form: str) -> None:
    _, found = meant(f"train DIR -o out {form.format(name)} --epochs 3")
    assert found["recipe"] == dataclasses.replace(RECIPES[name], epochs=3)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("0", 0),
        ("10", 10),
        ("res2", "res2"),
        ("tsm", "tsm"),
        ("slowfast", "slowfast"),
        ("layer3.4", ("layer3.4",)),
        ("layer2.1,layer3.4", ("layer2.1", "layer3.4")),
    ],
)
def test_non_local_is_one_word_wherever_it_stands(word: str, value: object) -> None:
    _, found = meant(f"train --non-local {word} DIR -o out")
    assert (found["recipe"].non_local, found["data"]) == (value, Data("DIR"))


def test_every_field_of_the_recipe_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for field in dataclasses.fields(Recipe):
        assert f"--{field.name.replace('_', '-')}" in printed
    assert "--recipe." not in printed


def test_version_and_bare_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"nonlocalnet {__version__}\n"
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("trian DIR -o out", "train"),
        ("train DIR -o out --modle x", "--mode"),
        ("train DIR -o out --recipe reunin", "reunion"),
        ("train DIR -o out --lr fast", "--lr"),
        ("train DIR", "--out"),
        ("predict", "PATH"),
        ("attend run video.mp4 --att 1s:0,0", "--at"),
    ],
)
def test_usage_errors_exit_with_2_and_a_hint(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(line.split())
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("test run data --views 10", 2, "10x3"),
        ("test run data --views 10x2", 2, "1, 3, 5, 6 or 10 crops"),
        ("predict run v.mp4 --views 0x1", 2, "10x3"),
        ("predict run v.mp4 --top 0", 2, "--top"),
        ("predict-many run v.mp4 -o out --views 2", 2, "10x3"),
        ("predict-many run v.mp4 -o out --seconds 0", 2, "--seconds above 0"),
        ("predict-many run v.mp4 -o out --gpus-per-worker 1.5", 2, "part of a GPU"),
        ("attend run v.mp4 --at here", 2, "1.2s:0.40,0.55"),
        ("show resnet50", 2, "c2d_resnet50"),
        ("show c2d_tiny --non-local 7", 2, "not 7"),
        ("show c2d_resnet18 --non-local res9", 2, "res5"),
        ("show c2d_tiny --non-local layer9.0", 2, "layer1"),
        ("show c2d_tiny --non-local 7", 2, "a stage or layout (res2, res3, res4) or"),
        ("show i3d_resnet50 --non-local -1", 2, "a count (0, 1, 5, 10)"),
        ("show i3d_resnet50 --non-local=", 2, "layer3.0 to .5"),
        ("show i3d_resnet50 --non-local layer2.1,layer9.1", 2, "not 'layer2.1,layer9.1'"),
        ("show i3d_resnet50 --num-classes -3", 2, "--num-classes is at least 1"),
        ("show i3d_resnet50 --num-classes 0", 2, "--num-classes is at least 1"),
        ("predict run v.mp4 --views 1001x3", 2, "1000 clips of a video at most"),
        ("test run data --views 99999999999999999999x1", 2, "1000 clips of a video at most"),
        ("attend run v.mp4 -o /dev/full", 2, "ending in .png"),
        ("attend run v.mp4 -o picture.jpg", 2, "ending in .png or .mp4"),
        ("attend run v.mp4 --html page.png", 2, "ending in .html"),
        ("attend run v.mp4 --count 0", 2, "at least 1"),
        ("test run data -o /dev/full", 2, "ending in .html"),
        ("train . --model foo -o out", 2, "i3d_resnet50"),
        ("train . --non-local 7 -o out", 2, "not 7"),
        ("train . --epochs 0 -o out", 2, "--epochs"),
        ("show c2d_tiny --stem none", 2, "slowfast"),
        ("show c2d_tiny --frames 0", 2, "--frames"),
        ("show c2d_tiny --non-local tsm", 2, "not 'tsm'"),
        ("show i3d_resnet18 --non-local slowfast", 2, "a stage or layout (res2, "),
        ("show c2d_resnet18 --inflate-style 3x3x3", 2, "c2d_resnet18 has no inflate_style"),
        ("show tsm_mobilenetv2 --stem paper", 2, "tsm_mobilenetv2 has no stem"),
        ("show tsm_mobilenetv2 --non-local 5", 2, "not 5"),
        ("show", 2, "--presets lists"),
        ("show --presets i3d_resnet50", 2, "leave out the network"),
        ("show --presets --non-local 5", 2, "leave out the network"),
        ("show --presets --frames 8", 2, "leave out the network"),
        ("cost resnet50", 2, "c2d_resnet50"),
        ("cost c2d_tiny --input 32x224x224", 2, "such as 3x32x224x224"),
        ("cost c2d_tiny --input 3x0x32x32", 2, "it came as '3x0x32x32'"),
        ("cost c2d_tiny --input 3x32x99999x99999", 2, "1000000000 numbers at most"),
        ("cost c2d_tiny --input 3x32x224x99999999999999999999", 2, "numbers at most"),
        ("cost c2d_tiny --input 4x8x32x32", 2, "clips are (N, 3, T, H, W)"),
        ("cost c2d_resnet18 --stem caffe2-32 --input 3x1x1x1", 2, "cannot take a clip of (3, 1,"),
        ("cost c2d_tiny --batch 0", 2, "--batch"),
        ("check-data no/such/folder", 1, "no/such/folder"),
        ("train no/such/folder -o out", 1, "no/such/folder"),
        ("train . -o out --lr 0", 2, "--lr"),
        ("predict no/such/run v.mp4", 1, "no/such/run"),
        ("test no/such/run .", 1, "no/such/run"),
    ],
)
def test_bad_values_are_one_sentence(
    line: str,
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == code
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("nonlocalnet: ")
    assert err.count("\n") == 1
    assert told in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "views"),
    [("10x3", (10, 3)), ("1x1", (1, 1)), (" 2×3 ", (2, 3)), (None, (None, None))],
)
def test_views(text: str | None, views: tuple[int | None, int | None]) -> None:
    assert parse_views(text) == views


# facts.md 6.3: parameters in millions, multiply-adds in billions for 32 x 224 x 224, 400 classes
ROWS = [
    ("c2d", "", (24.328, 20.437, 20.234), (43.320, 35.286, 35.083)),
    ("i3d", "--inflate-style 3x3x3", (33.434, 39.088, 38.688), (63.043, 62.261, 61.861)),
    ("i3d", "", (28.043, 33.128, 32.830), (51.754, 51.676, 51.378)),
    ("c2d", "--non-local 1", (26.429, 21.622, 21.419), (45.422, 36.471, 36.267)),
    ("c2d", "--non-local 5", (31.686, 28.565, 28.361), (50.678, 43.414, 43.210)),
    ("c2d", "--non-local 10", (39.045, 36.693, 36.489), (58.037, 51.542, 51.338)),
    ("i3d", "--non-local 5", (35.402, 41.256, 40.958), (59.113, 59.804, 59.506)),
]
CASES = [
    (f"{kind}_{size} {flags} --stem {stem}", figures[0], figures[1 + i])
    for kind, flags, *both in ROWS
    for size, figures in zip(("resnet50", "resnet101"), both, strict=True)
    for i, stem in enumerate(("paper", "caffe2-32"))
    if stem == "paper" or (size, flags) == ("resnet50", "--non-local 5")
]


@pytest.mark.parametrize(("words", "millions", "billions"), CASES)
def test_show_prints_the_figures_of_the_papers_networks(
    words: str, millions: float, billions: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["show", *words.split()]) == 0
    out = capsys.readouterr().out
    assert "one clip of 3 x 32 x 224 x 224" in out
    total = next(line for line in out.splitlines() if line.startswith("total"))
    assert f" {millions:.3f} M " in total
    assert total.endswith(f" {billions:.3f} G")


@pytest.mark.slow
def test_show_lists_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "--presets"]) == 0
    out, err = capsys.readouterr()
    assert not err
    lines = out.splitlines()
    for name, preset in PRESETS.items():
        first, figures = [line.split(maxsplit=1)[1] for line in lines if line.split()[:1] == [name]]
        assert first.split(maxsplit=1) == [preset.networks[0], preset.text]
        assert re.match(r"\d+\.\d{3} M +\d+\.\d{3} G", figures)
    # as the table of the docs has them
    found = {line.split()[0]: line for line in lines if line.endswith(" G")}
    assert max(map(len, found.values())) <= 80
    assert re.search(r" 28.043 M +28.408 G +35.402 M +36.535 G", found["slowfast"])
    assert re.search(r" 27.990 M +131.317 G", found["caffe2-128x1-affine"])
    assert re.search(r" 33.024 M +126.782 G", found["mmaction-i3d-heavy"])
    assert re.search(r" 2.736 M +2.400 G$", found["tsm-online"])
    assert re.search(r" 0.491 M", found["alexhex7"])


@pytest.mark.parametrize("name", PRESETS)
def test_show_of_a_preset(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its main network, with as many blocks as it may have."""
    network = PRESETS[name].networks[0]
    count = {"digits": 2, "tsm_mobilenetv2": 0}.get(network, 5)
    assert cli.main(["show", network, "--preset", name, "--non-local", str(count)]) == 0
    out = capsys.readouterr().out
    assert out.count("non-local block after") == count
    assert re.search(r"^total +\w+ +400 +\d+\.\d{3} M +\d+\.\d{3} G$", out, re.MULTILINE)


def test_show_of_a_codebases_layout(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "i3d_resnet101", "--non-local", "slowfast"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"non-local block after (\S+):", out) == [
        "layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5",
    ]  # fmt: skip


def test_show_other_sizes_and_edits(capsys: pytest.CaptureFixture[str]) -> None:
    line = "show tsm_tiny --non-local 1 --pairwise concatenation --frames 4 --size 16"
    assert cli.main([*line.split(), "--num-classes", "7"]) == 0
    out = capsys.readouterr().out
    assert "3 x 4 x 16 x 16" in out
    assert "concatenation" in out
    assert "residual placement, 3 of 3 blocks" in out
    assert re.search(r"^fc +Linear +7 ", out, re.MULTILINE)


def test_cost(capsys: pytest.CaptureFixture[str]) -> None:
    line = "cost i3d_tiny --non-local 1 --input 3x8x64x64 --batch 2"
    assert cli.main(line.split()) == 0
    out = capsys.readouterr().out
    assert out.startswith("i3d_tiny, 2 clips of 3 x 8 x 64 x 64, float32, inference\n")
    assert re.search(r"^layer2\.0\.non_local +32 x 8 x 16 x 16 +0\.0\d\d M", out, re.MULTILINE)
    assert "momentum" not in out
    functions = re.findall(r"^(\w+) +\d\.\d{3} M +\d\.\d{3} G +(\S+) MB +(\S+) MB$", out, re.M)
    assert [name for name, _, _ in functions] == list(PAIRWISE)
    assert cli.main([*line.split(), "--train"]) == 0
    out = capsys.readouterr().out
    assert "float32, a training step" in out
    assert "SGD's momentum" in out
    peaks = dict(re.findall(r"^(total) .* (\S+) MB +\S+ MB +\S+ MB$", out, re.MULTILINE))
    assert peaks["total"] == {name: peak for name, _, peak in functions}["embedded_gaussian"]
    assert cli.main(["cost", "i3d_tiny"]) == 0
    out = capsys.readouterr().out
    assert "one clip of 3 x 8 x 32 x 32" in out
    assert "concatenation" not in out  # there is no block to choose a function for


def test_cost_as_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cost", str(run), "--train", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["input"], found["batch"], found["train"]) == ([3, 8, 32, 32], 1, True)
    assert found["momentum"] == 4 * found["parts"][-1]["parameters"]
    own = found["network"].get("pairwise", "embedded_gaussian")
    (function,) = (f for f in found["functions"] if f["pairwise"] == own)
    assert function["training"] == found["parts"][-1]["peak"]


def test_train_leaves_a_run_with_its_report(run: Path) -> None:
    there = {path.name for path in run.iterdir()}
    assert {"model.safetensors", "last.ckpt", "split.json", "recipe.json"} <= there
    assert {"report.html", "report.json"} <= there
    result = json.loads((run / "report.json").read_text())["runs"][0]["result"]
    assert result["summary"]["videos"] == 8


def test_check_data(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-data", str(data), "--workers", "1"]) == 0
    assert re.search(r"^same_left +4 +2 +0", capsys.readouterr().out, re.MULTILINE)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i, file in enumerate(sorted((data / "val" / "same_left").glob("*.mp4"))):
            (tmp_path / name / f"{name}{i}.mp4").write_bytes(file.read_bytes())
    (tmp_path / "a" / "broken.mp4").write_text("no video")
    assert cli.main(["check-data", str(tmp_path), "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"a/broken.mp4: cannot be used: .+", out)
    assert "the same file" in out
    assert cli.main(["check-data", str(tmp_path), "--workers", "1", "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(row["path"]).name for row in rows if not row["usable"]] == ["broken.mp4"]


def test_check_data_asks_a_network(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check-data", str(data), "--workers", "1", "-o", str(tmp_path / "check")]
    assert cli.main([*words, "--run", str(run), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "the network was asked about 24 videos" in out
    assert f"written: {tmp_path / 'check' / 'report.html'}" in out
    assert cli.main([*words, "--fail-on", "remark", "--shortest", "99"]) == 1
    assert cli.main([*words, "--fail-on", "unusable", "--shortest", "99"]) == 0


def test_test_writes_a_report(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "result.html"
    words = ["test", str(run), str(data), "--views", "3x1", "--workers", "0", "-o", str(out)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^1 clip +\d+\.\d %", printed, re.MULTILINE)
    assert re.search(r"^3 clips +\d+\.\d %", printed, re.MULTILINE)
    assert str(out) in printed
    assert out.read_text().startswith("<!doctype html>")
    assert out.with_suffix(".json").exists()


def test_predict(run: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", str(run), str(video), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(video)
    table = [line.split() for line in lines[1:]]
    assert len(table) == 2
    assert cli.main(["predict", str(run), str(video), "--top", "2", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert row["path"] == str(video)
    assert [[f"{s:.4f}", n] for s, n in zip(row["scores"], row["labels"], strict=True)] == table


def test_predict_goes_on_after_a_broken_file(
    run: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_text("no video")
    words = ["predict", str(run), str(tmp_path), str(video), "--json", "--workers", "0"]
    assert cli.main(words) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["error"]
    assert not first["labels"]
    assert second["error"] is None
    assert len(second["labels"]) == 4
    assert cli.main(["predict", str(run), str(tmp_path / "broken.mp4")]) == 1
    assert "broken.mp4: " in capsys.readouterr().out


def test_attend(run: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "picture.png"
    words = ["attend", str(run), str(video), "--at", "0.3s:0.40,0.55", "-o", str(out)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "top-20 hold" in printed
    assert "uniform" in printed
    assert out.read_bytes().startswith(b"\x89PNG")
    assert cli.main(["attend", str(run), str(video), "--at", "99s:0.4,0.5"]) == 1


def test_attend_in_other_ways(
    run: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["attend", str(run), str(video), "--at", "0.3s:0.40,0.55", "-o"]
    film, page = tmp_path / "film.mp4", tmp_path / "explorer.html"
    assert cli.main([*plain, str(film), "--html", str(page)]) == 0
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert film.stat().st_size > 1000
    assert re.search(r"explorer: .*explorer.html \(\d\.\d MB\)", capsys.readouterr().out)
    assert cli.main([*plain, str(tmp_path / "c.png"), "--columns", "--block", "all"]) == 0
    told = capsys.readouterr().out
    assert "layer2.0: top-20 hold" in told
    assert "times an equal share" in told
    assert cli.main([*plain, str(film), "--block", "all"]) == 2
    assert "a film is of one place in one block" in capsys.readouterr().err


def test_show_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(run)]) == 0
    assert "i3d_tiny, one clip of 3 x 8 x 32 x 32" in capsys.readouterr().out
    assert cli.main(["show", str(run), "--non-local", "5"]) == 2
    assert "leave out" in capsys.readouterr().err


def test_a_run_is_not_overwritten(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "model.safetensors").read_bytes()
    assert cli.main(["train", str(data), *SMALL, "--epochs", "1", "-o", str(run)]) == 1
    assert "--resume" in capsys.readouterr().err
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("a sentence"), 1, "a sentence"),
        (UsageError("a sentence"), 2, "a sentence"),
        (KeyboardInterrupt(), 130, "stopped"),
        (ImportError('pip install "nonlocalnet[train]"'), 1, 'pip install "nonlocalnet[train]"'),
    ],
)
def test_how_commands_end(
    error: BaseException,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails() -> int:
        """Fail."""
        raise error

    monkeypatch.setitem(cli.COMMANDS, "doctor", fails)
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == f"nonlocalnet: {told}\n"


@pytest.mark.parametrize("error", [ValueError("a bug"), ImportError("a bug"), KeyError("a bug")])
def test_errors_of_ours_are_not_taken_for_the_users(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> int:
        """Fail."""
        raise error

    monkeypatch.setitem(cli.COMMANDS, "doctor", fails)
    with pytest.raises(type(error), match="a bug"):
        cli.main(["doctor"])


@pytest.mark.parametrize("resumable", [False, True])
def test_second_ctrl_c_in_training_tells_how_to_go_on(
    resumable: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stops(*_: object) -> None:
        if resumable:
            (tmp_path / "last.ckpt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("nonlocalnet.train.train", stops)
    assert cli.main(["train", str(tmp_path), "-o", str(tmp_path)]) == 130
    again = f"nonlocalnet train {tmp_path} --resume -o {tmp_path}"
    told = f"; go on with: {again}" if resumable else ""
    assert capsys.readouterr().err == f"nonlocalnet: stopped{told}\n"


def environment() -> dict[str, str]:
    """Of a user without wishes about colours; this very package is the one imported."""
    hidden = ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "COLUMNS")
    kept = {k: v for k, v in os.environ.items() if k not in hidden}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(cli.__file__).parents[1])}


@pytest.mark.parametrize("kind", ["device", "folder"])
@pytest.mark.parametrize(("line", "name"), [("attend", "x.png"), ("test", "x.html")])
def test_what_is_no_file_is_not_replaced(
    line: str, name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / name
    if kind == "device":
        target.symlink_to("/dev/full")
    else:
        target.mkdir()
    assert cli.main([line, "run", "v.mp4", "-o", str(target)]) == 2
    assert capsys.readouterr().err.endswith(f"replace {target}, which is no regular file\n")
    assert target.is_symlink() or target.is_dir()


def test_an_empty_name_is_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", ""]) == 2
    assert "there is no network and no run ''" in capsys.readouterr().err


def test_a_missing_folder_is_told_before_training_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nonlocalnet.train", None)  # importing it now fails
    assert cli.main(["train", "no/such/folder", "-o", "out"]) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_names_that_the_locale_cannot_write() -> None:
    code = r"""
import sys
from nonlocalnet import cli, terminal
def command() -> int:
    'Say.'
    terminal.say("vid\u00e9o \u4e2d")
    terminal.say_json('{"path": "vid\u00e9o"}')
    return 0
cli.COMMANDS["doctor"] = command
sys.exit(cli.main(["doctor"]))
"""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment() | ascii_only,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [r"vid\xe9o \u4e2d", r'{"path": "vid\u00e9o"}']


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is Linux's")
@pytest.mark.parametrize(
    "printing", ["terminal.say('x' * 100_000)", "print('x')", "raise SystemExit(print('x'))"]
)
def test_a_full_standard_output_is_one_sentence(printing: str) -> None:
    code = f"""
import sys
from nonlocalnet import cli, terminal
def command() -> int:
    'Say.'
    {printing}
    return 0
cli.COMMANDS["doctor"] = command
sys.exit(cli.main(["doctor"]))
"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    assert done.returncode == 1
    told = f"standard output cannot be written: {os.strerror(errno.ENOSPC)}"
    assert done.stderr == f"nonlocalnet: {told}\n"


def start(*words: str) -> subprocess.Popen[str]:
    """The program as users start it, without a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "nonlocalnet", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


@pytest.mark.slow
def test_pipes_get_plain_whole_lines() -> None:
    out, err = start("show", "i3d_tiny", "--non-local", "1").communicate(timeout=120)
    assert not err
    assert "\x1b" not in out
    block = next(line for line in out.splitlines() if line.startswith("non-local block after"))
    assert block.endswith("(still the identity)")


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(data: Path) -> None:
    process = start("check-data", str(data), "--workers", "1", "--json")
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.wait(120) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.slow
def test_without_extras_the_rest_works_and_the_extra_is_named(tmp_path: Path) -> None:
    code = """
import sys
for name in ("lightning", "tensorboard", "matplotlib", "torchvision"):
    sys.modules[name] = None  # as if it were not installed
from nonlocalnet.cli import main
print([main(["train", ".", "-o", "y"]), main(["attend", "x", "y"]), main(["show", "c2d_tiny"])])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment(),
    )
    assert done.stdout.splitlines()[-1] == "[1, 1, 0]"
    assert len(done.stderr.splitlines()) == 2
    assert all('pip install "nonlocalnet[train]"' in line for line in done.stderr.splitlines())


@pytest.mark.slow
def test_ctrl_c_leaves_a_resumable_run(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start("train", str(data), *SMALL, "--epochs", "2000", "-o", str(out))
    assert process.stdout
    for line in process.stdout:
        if line.startswith("epoch 1 "):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.startswith("nonlocalnet: stopped by Ctrl-C")
    assert f"--resume -o {out}" in err
    assert {"last.ckpt", "model.safetensors"} <= {path.name for path in out.iterdir()}


def test_commands_are_those_of_the_readme() -> None:
    names = [
        "check-data",
        "prepare",
        "train",
        "test",
        "fuse",
        "calibrate",
        "predict",
        "stream",
        "predict-many",
        "attend",
        "serve",
        "denoise",
        "show",
    ]
    names += ["cost", "recipes", "weights", "convert"]
    names += ["export", "bench", "doctor", "demo", "ablate"]
    assert list(cli.COMMANDS) == names
    assert all(command.__doc__ for command in cli.COMMANDS.values())
    assert commands.run_test is cli.COMMANDS["test"]

"""A network on a feed, and the command that puts it there."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feeds_nearby import piping
from torch import nn
from video_files import encode

from nonlocalnet import answers, cli
from nonlocalnet.card import card_of, set_card
from nonlocalnet.errors import UserError
from nonlocalnet.feeds import open_feed
from nonlocalnet.head import head_of
from nonlocalnet.manner import Manner
from nonlocalnet.models import create_model
from nonlocalnet.moments import ready
from nonlocalnet.prediction import predict
from nonlocalnet.timeline import Outputs
from nonlocalnet.watching import Tally, tell, watch
from nonlocalnet.weights import save


def network(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = create_model("tsm_tiny", num_classes=3, **options).eval()
    nn.init.normal_(head_of(model).weight)
    set_card(model, dataclasses.replace(card_of(model), classes=("walk", "run", "sit"), gap=1 / 25))
    return model


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "online.safetensors"
    save(network(shift="past"), path)
    return path


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "offline.safetensors"
    save(network(), path)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    encode(path)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_everything_is_written(
    online: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["stream", str(online), str(video), "-o", str(out), "-o", str(out / "seen.mp4")]
    assert cli.main([*words, "-o", str(out / "seen.npy")]) == 0
    assert {path.name for path in out.iterdir()} == {
        *("timeline.csv", "timeline.json", "timeline.srt"),
        *("seen.mp4", "seen.npy", "seen.seconds.npy"),
    }
    assert len(rows(out / "timeline.csv")) == 60
    found = json.loads((out / "timeline.json").read_text())
    assert (found["source"], found["moments"]) == (str(video), 60)
    assert found["ended"] == "where the feed ended"
    assert found["segments"][-1]["end"] == pytest.approx(59 / 25, abs=0.001)
    assert np.load(out / "seen.npy").shape == (3, 64)
    with open_feed(str(out / "seen.mp4")) as feed:
        assert len(list(feed)) == 60
    said = capsys.readouterr().out
    assert "trained on a frame every 0.040 s; the feed gives one every 0.040 s" in said
    assert "60 answers in" in said
    assert "latency" not in said
    assert f"written: {out / 'timeline.csv'}" in said


def test_the_timeline_of_a_folder_says_where_each_file_begins(
    online: Path, video: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(video.read_bytes())
    found = tmp_path / "out.json"
    assert cli.main(["stream", str(online), str(folder), "-o", str(found)]) == 0
    cuts = json.loads(found.read_text())["cuts"]
    assert cuts == [{"seconds": 2.4, "why": f"{folder / 'b.mp4'} begins"}]  # 60 frames at 25


def test_the_annotated_film_has_every_frame(online: Path, video: Path, tmp_path: Path) -> None:
    film, table = tmp_path / "a.mp4", tmp_path / "a.csv"
    words = ["stream", str(online), str(video), "--every", "5", "-o", str(film)]
    assert cli.main([*words, "-o", str(table)]) == 0
    assert len(rows(table)) == 12
    with open_feed(str(film)) as feed:
        assert len(list(feed)) == 60


def test_a_timeline_of_clips_says_what_predict_says(
    offline: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file as long as one clip, so that there is one answer."""
    encode(tmp_path / "short.mp4", frames=8)
    monkeypatch.chdir(tmp_path)
    files = ["short.mp4", str(video), "none.mp4"]
    assert cli.main(["predict", str(offline), "--timeline", *files]) == 1
    (row,) = rows(tmp_path / "short.csv")
    (same,) = predict(network(), tmp_path / "short.mp4", clips=1, crops=1, top=3)
    assert [float(row[name]) for name in same.labels] == pytest.approx(same.scores, rel=1e-5)
    assert row["label"] == same.labels[0]
    assert len(rows(tmp_path / "film.csv")) == 14
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize("source", ["a.mp4", "films", "list.txt", "here.mp4"])
def test_what_it_is_made_from_is_not_replaced(
    source: str, online: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    film = tmp_path / "films" / "a.mp4"
    film.parent.mkdir()
    encode(film, frames=2)
    encode(film.with_name("b.mp4"), frames=2)
    Path("a.mp4").symlink_to(film)
    Path("here.mp4").hardlink_to(film)
    Path("list.txt").write_text("films/a.mp4\nfilms/b.mp4\n")
    before = film.read_bytes()
    assert cli.main(["stream", str(online), source, "-o", "films/../films/a.mp4"]) == 1
    assert film.read_bytes() == before


def test_the_network_is_not_replaced(online: Path, video: Path, tmp_path: Path) -> None:
    run = tmp_path / "net.onnx"
    run.with_suffix(".json").write_text("its sidecar")
    net, out = ready(network(shift="past")), Outputs(json=run.with_suffix(".json"))
    with open_feed(str(video)) as feed, pytest.raises(UserError, match="is made from"):
        answers._watched(net, run, feed, out, Manner(unknown="off"))
    assert run.with_suffix(".json").read_text() == "its sidecar"


def test_a_timeline_replaces_no_other_file(
    online: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("film.srt").write_text("what they say")
    words = ["predict", str(online), "--timeline", str(video)]
    assert cli.main(words) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["film.srt"]
    assert Path("film.srt").read_text() == "what they say"
    Path("film.srt").unlink()
    assert cli.main(words) == cli.main(words) == 0  # an earlier timeline
    assert cli.main([*words, "--json"]) == 2


def test_it_ends_after_so_many_seconds(online: Path, video: Path, tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    assert cli.main(["stream", str(online), str(video), "--seconds", "1", "-o", str(table)]) == 0
    assert len(rows(table)) == 25


def test_standard_input(online: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (12, 24, 32, 3), np.uint8)
    words = ["stream", str(online), "-", "--size", "32x24", "--fps", "25"]
    with piping(frames.tobytes()) as pipe:
        monkeypatch.setattr("sys.stdin", pipe)
        assert cli.main([*words, "-o", str(tmp_path / "a.csv")]) == 0
    assert len(rows(tmp_path / "a.csv")) == 12


class Sleepy(nn.Module):
    """Takes a tenth of a second for a frame."""

    def __init__(self) -> None:
        super().__init__()
        set_card(self, card_of(network()))

    def start(self, frame: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return ()

    def forward(self, frame: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        time.sleep(0.1)
        return torch.zeros(len(frame), 3), ()


def seen(video: Path, live: bool) -> Tally:
    net, manner = ready(Sleepy()), Manner()
    with open_feed(str(video)) as feed:
        return watch(net, feed, tell(net, video, manner)[0], Outputs(), manner, live=live)


def test_a_slow_network_skips_frames_of_what_is_live(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", frames=20)
    tally = seen(tmp_path / "a.mp4", live=True)
    assert tally.moments + tally.dropped == 20
    assert 4 <= tally.moments <= 14
    # an answer is late by its own work and by that of the frames that waited, never by more
    assert 0.1 <= tally.latency.quantile(0.5) <= 0.45
    assert f"{tally.dropped} dropped" in tally.words()
    tally = seen(tmp_path / "a.mp4", live=False)
    assert (tally.moments, tally.dropped) == (20, 0)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_has_whole_files(
    how: signal.Signals,
    online: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextmanager
    def asking(_: object) -> Iterator[Callable[[float, str], None]]:
        yield lambda done, words: os.kill(os.getpid(), how)  # at the first answer

    monkeypatch.setattr("nonlocalnet.answers.live_line", asking)
    assert cli.main(["stream", str(online), str(video), "-o", str(tmp_path / "out")]) == 130
    assert "stopped by" in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "timeline.json").read_text())
    assert found["ended"] == "stopped"
    assert 0 < found["moments"] == len(rows(tmp_path / "out" / "timeline.csv")) < 60
    assert (tmp_path / "out" / "timeline.srt").exists()


@pytest.mark.slow
def test_what_is_killed_leaves_whole_lines(online: Path, video: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "nonlocalnet", "stream", str(online), str(video), "--live"]
    words += ["-o", str(tmp_path / "out")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        answered = any(line.startswith("0:") for line in process.stdout)
        process.kill()
    assert answered
    (left,) = (tmp_path / "out").glob(f".timeline.csv.{process.pid}")
    assert left.read_bytes().endswith(b"\n")
    assert rows(left)
    assert not (tmp_path / "out" / "timeline.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.mp4", "-o", "a.txt"], "-o is a folder or a file ending in .csv, .json"),
        (["a.mp4", "-o", "a.csv", "-o", "b.csv"], "-o names two files for csv"),
        (["a.mp4", "--hop", "2"], "--hop is a part of a clip"),
        (["a.mp4", "--every", "0"], "--every is a number of frames"),
        (["a.mp4", "--seconds", "0"], "--seconds is above 0"),
        (["-", "--size", "32"], "--size is WIDTHxHEIGHT"),
        (["a.mp4", "--smooth", "much"], "smoothing is none, mean:N"),
        (["none.mp4"], "none.mp4: cannot be opened"),
        (["a.mp4", "--size", "32x32"], "only standard input, -, has raw frames"),
    ],
)
def test_what_makes_no_sense(
    words: list[str],
    message: str,
    online: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "a.mp4", frames=2)
    assert cli.main(["stream", str(online), *words]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == ["a.mp4"]  # noqa: PTH208


def test_what_fails_on_the_way_leaves_what_came_before(
    online: Path, video: Path, tmp_path: Path
) -> None:
    net, manner = ready(network(shift="past")), Manner()
    telling, outputs = tell(net, online, manner)[0], Outputs(csv=tmp_path / "a.csv")

    def breaks(*_: object) -> None:
        raise KeyError("a bug")

    with open_feed(str(video)) as feed, pytest.raises(KeyError, match="a bug"):
        watch(net, feed, telling, outputs, manner, report=breaks)
    assert len(rows(tmp_path / "a.csv")) == 1

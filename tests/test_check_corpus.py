"""check-data over a folder of bad files: none hangs, crashes or passes for what it is not."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from bad_files import FRAMES, make
from video_files import RATE, number_of

from nonlocalnet import cli
from nonlocalnet.check import FileReport, check_files
from nonlocalnet.samples import Sample, Split
from nonlocalnet.video import Video

EARLIER = {"cut_in_player.mp4": 13}  # pictures that are cut off at the start
PLACES = {"hidden.webm": [i for i in range(FRAMES) if i != 20]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def due(root: Path) -> dict[str, str]:
    return make(root)


@pytest.fixture(scope="module")
def reports(root: Path, due: dict[str, str]) -> dict[str, FileReport]:
    found = check_files(root, workers=2, seconds=20.0)
    assert not multiprocessing.active_children()
    return {Path(r.path).relative_to(root).as_posix(): r for r in found}


def test_every_file_gets_its_verdict(
    due: dict[str, str], reports: dict[str, FileReport], root: Path
) -> None:
    harmless = {"alike", "copy", "short", "leak", "two"}
    for name, kind in due.items():
        said = {remark.kind for remark in reports[name].remarks}
        assert kind in said if kind else said <= harmless, (name, said)
        assert reports[name].usable == (kind != "unusable")
        assert reports[name].found.seconds < 20
    others = {name for name in reports if name not in due}
    assert {reports[name].usable for name in others} == {True}


def test_frames_are_right_or_damage_is_told(
    due: dict[str, str], reports: dict[str, FileReport], root: Path
) -> None:
    checked = 0
    for name in due:
        found = reports[name].found
        if found.reason:
            continue
        assert found.info
        with Video(root / name) as video:
            frames, times = video.frames(range(len(video))).numpy(), video.timestamps
        if found.info.rotation:
            frames = np.rot90(frames, k=found.info.rotation // 90, axes=(1, 2))
        short = Path(name).name
        shown = [number_of(frame) for frame in frames]
        places = PLACES.get(short, range(EARLIER.get(short, 0), 1000))
        if found.came < 1:  # the last pictures may lack those between them
            places = (times * RATE).round().astype(int).tolist()
        right = [place % 256 for place, _ in zip(places, shown, strict=False)]
        if found.corrupt:
            assert "damaged" in {remark.kind for remark in reports[name].remarks}
        else:
            assert shown == right, name
            checked += 1
    assert checked > 20


def test_how_much_came(reports: dict[str, FileReport]) -> None:
    shares = [reports[f"train/bad/front_{p}.mp4"].found.came for p in (40, 70, 95)]
    assert shares == sorted(shares)
    assert 0.1 < shares[0] < shares[2] < 1
    for name in ("front.mp4", "whole.mkv", "whole.ts", "fragments.mp4", "b_frames.avi"):
        assert reports[f"train/bad/{name}"].found.came == 1.0


def test_the_same_pictures_in_other_codecs_look_alike(reports: dict[str, FileReport]) -> None:
    for name in ("ten_bit.mp4", "b_frames.avi", "vp8.webm", "whole.ts"):
        text = {r.kind: r.text for r in reports[f"train/bad/{name}"].remarks}["alike"]
        assert "on the other side of the split" in text
    assert "alike" not in {r.kind for r in reports["train/good/a.mp4"].remarks}


def test_a_name_that_no_list_can_hold(root: Path, due: dict[str, str], tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / name).write_bytes((root / "train/bad/plain.mp4").read_bytes())
    split = Split(("a",), (Sample(str(tmp_path / name), 0, "x"),), ())
    report = check_files(split, workers=1)[0]
    assert report.found.reason == "this name is not valid UTF-8; rename it"
    assert report.path == str(tmp_path / name)


def test_the_command_writes_what_can_be_used(
    root: Path, due: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check-data", str(root), "--workers", "1", "-o", str(tmp_path / "out")]) == 1
    out = capsys.readouterr().out
    assert "problem" in out
    assert "cannot be used: is not a regular file" in out
    listed = (tmp_path / "out" / "clean.csv").read_text().splitlines()
    assert listed[0] == "path,label,split"
    names = {line.split(",")[0].split("train/bad/")[-1] for line in listed if "/bad/" in line}
    usable = {n.removeprefix("train/bad/") for n, kind in due.items() if kind != "unusable"}
    assert usable - {"val/good/leak.mp4"} <= names
    assert not names & {"zero.mp4", "random.mp4", "pipe.mp4", "folder.mp4"}
    for line in listed[1:]:
        path, label, split = line.split(",")
        assert (tmp_path / "out" / path).resolve().is_file()
        assert (label, split) == (Path(path).parts[-2], Path(path).parts[-3])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "huge_box.mp4" in page
    assert len(page) < 100_000
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "clean.csv", "report.html", "files.jsonl"}  # fmt: skip

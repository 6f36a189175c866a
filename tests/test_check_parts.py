"""The parts of a check: journal, fingerprints, classes, the clean list, a network's doubts."""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from test_check import kinds, video

from nonlocalnet.card import card_of
from nonlocalnet.check import FILES, Checked, Journal, Summary, checking, reports, write_outputs
from nonlocalnet.check.clean import write_clean
from nonlocalnet.check.copies import Entry
from nonlocalnet.check.doubts import contradict
from nonlocalnet.check.fingerprint import NEAREST, alike, fingerprint, look_of, places, to_row
from nonlocalnet.check.labels import Tally
from nonlocalnet.check.probe import Finding
from nonlocalnet.check.remarks import about_file
from nonlocalnet.errors import UserError
from nonlocalnet.folders import read_folder
from nonlocalnet.models import create_model
from nonlocalnet.samples import Action, Sample, Split
from nonlocalnet.synthetic import render_reunion
from nonlocalnet.video import Video, VideoInfo, write_video


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("train/a/1", "train/b/1", "val/a/1", "val/b/1")):
        video(folder / f"{name}.mp4", seed=seed)
    return folder


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the samples that are decoded, as they are taken."""
    names: list[str] = []
    examine = reports.examine

    def noted(samples: Iterable[Sample], workers: int, seconds: float) -> Iterator[object]:
        def each() -> Iterator[Sample]:
            for sample in samples:
                names.append(Path(sample.path).name)
                yield sample

        yield from examine(each(), workers, seconds)

    monkeypatch.setattr(reports, "examine", noted)
    return names


def check(split: Split, path: Path | None = None, **options: float) -> list[object]:
    with Journal(path) as journal:
        return [(r.path, r.found, r.remarks) for r in checking(split, journal, **options)]  # type: ignore[arg-type]


def test_what_was_found_is_not_looked_for_again(
    root: Path, tmp_path: Path, looked_at: list[str]
) -> None:
    folder = tmp_path / "data"
    for seed, name in enumerate(("a/1", "a/2", "b/1", "b/2")):
        video(folder / f"{name}.mp4", seed=seed)
    split, journal = read_folder(folder), tmp_path / FILES
    first = check(split, journal)
    assert len(looked_at) == 4
    assert check(split, journal) == first
    assert len(looked_at) == 4
    video(folder / "a" / "2.mp4", frames=15, seed=77)
    os.utime(folder / "b" / "1.mp4", ns=(0, 12345))
    check(split, journal)
    assert sorted(looked_at[4:]) == ["1.mp4", "2.mp4"]
    (folder / "b" / "2.mp4").unlink()  # what is not there any more
    assert any("No such file" in found.reason for _, found, _ in check(split, journal))  # type: ignore[attr-defined]
    assert looked_at[6:] == ["2.mp4"]
    check(split, journal)  # ... is looked for each time
    assert looked_at[7:] == ["2.mp4"]


def test_a_longer_time_limit_is_a_new_chance(
    root: Path, tmp_path: Path, looked_at: list[str]
) -> None:
    split, journal = read_folder(root), tmp_path / FILES
    check(split, journal, seconds=5.0)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[1] |= {"complete": False, "limit": 5.0}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    del looked_at[:]
    check(split, journal, seconds=5.0)
    assert not looked_at
    check(split, journal, seconds=50.0)
    assert looked_at == [Path(lines[1]["key"]).name]


def test_a_line_cut_off_is_left_out(root: Path, tmp_path: Path, looked_at: list[str]) -> None:
    split, journal = read_folder(root), tmp_path / FILES
    first = check(split, journal, workers=1)
    content = journal.read_bytes()
    journal.write_bytes(b"[1]\nno json\n" + content[:-20])
    del looked_at[:]
    again = check(split, journal)
    assert len(looked_at) == 1
    assert [found.digest for _, found, _ in again] == [found.digest for _, found, _ in first]  # type: ignore[attr-defined]
    rows = [line for line in journal.read_text().splitlines() if line.startswith('{"key"')]
    assert len({json.loads(row)["key"] for row in rows}) == 4


def test_a_journal_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"files.jsonl cannot be written: No such file"):
        Journal(tmp_path / "no" / FILES)


@pytest.mark.slow
def test_a_killed_check_loses_the_files_at_work_only(tmp_path: Path, looked_at: list[str]) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    render_reunion(data, train=40, val=8)
    words = [sys.executable, "-m", "nonlocalnet", "check-data", str(data), "-o", str(out)]
    process = subprocess.Popen([*words, "--workers", "1"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        journal = out / FILES
        if journal.exists() and journal.read_bytes().count(b"\n") > 4:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert {path.name for path in out.iterdir()} == {FILES}
    done = (out / FILES).read_bytes().count(b"\n")
    assert 4 < done < 48
    check(read_folder(data), out / FILES)
    assert len(looked_at) == 48 - done
    assert len((out / FILES).read_text().splitlines()) == 48


def test_memory_does_not_grow_with_what_is_found(tmp_path: Path) -> None:
    def taken(count: int) -> int:
        samples = [Sample(f"{tmp_path}/{i}.mp4", i % 2, str(i % 9)) for i in range(count)]
        split = Split(("a", "b"), tuple(samples), ())
        tracemalloc.start()
        with Journal(None) as journal:
            for i, sample in enumerate(samples):
                found = Finding(1, 1, digest=f"{i:032x}", look=f"{i * 7919**5:080x}"[-80:])
                journal.add(sample.path, found)
            checked = Checked(split, [Entry(s, "train") for s in samples], journal, 1.0)
            Summary(checked)
            held = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
        return held

    each = (taken(4000) - taken(1000)) / 3000
    assert each < 500, each


def noise(frames: int = 20, seed: int = 0, size: int = 64) -> torch.Tensor:
    """Blurred noise that drifts: the large shapes that videos have. (T, H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(frames // 12 + 1, 3, 12, 12, generator=generator)
    shapes = torch.nn.functional.interpolate(
        small.transpose(0, 1)[None], (frames, size, size), mode="trilinear"
    )
    return (shapes[0] * 255).byte().permute(1, 2, 3, 0)


def print_of(path: Path) -> list[int]:
    with Video(path) as film:
        looks = {i: look_of(film.frames([i])[0]) for i in places(len(film))}
        return to_row(fingerprint(looks, len(film)))


def test_another_encoder_size_and_rate_keep_the_looks(tmp_path: Path) -> None:
    rows = []
    for seed in range(4):
        frames = noise(48, seed)
        write_video(tmp_path / "a.mp4", frames, fps=24)
        smaller = torch.nn.functional.interpolate(
            frames[::2].permute(0, 3, 1, 2).float(), scale_factor=0.75, mode="bilinear"
        )
        again = smaller.byte().permute(0, 2, 3, 1)
        write_video(tmp_path / "b.mp4", again, fps=12, crf=35)
        rows += [print_of(tmp_path / "a.mp4"), print_of(tmp_path / "b.mp4")]
    prints = np.array(rows, np.uint64)
    pairs = alike(prints, np.full(8, 2.0, np.float32)).tolist()
    assert pairs == [[0, 1], [2, 3], [4, 5], [6, 7]]
    longer = np.array([2, 3] * 4, np.float32)
    assert alike(prints, longer).tolist() == []


def test_flat_pictures_have_no_looks() -> None:
    assert look_of(torch.full((8, 8, 3), 7, dtype=torch.uint8)) is None
    assert fingerprint(dict.fromkeys(places(9)), 9) == ""
    mixed = dict(zip(places(9), (1, None, 2, None, 3), strict=True))
    assert to_row(fingerprint(mixed, 9)) == [1, 0, 2, 0, 3]
    assert to_row("") == [0] * 5
    assert alike(np.zeros((3, 5), np.uint64), np.ones(3, np.float32)).tolist() == []


def test_alike_finds_what_comparing_all_finds() -> None:
    draw = np.random.default_rng(1)
    prints = draw.integers(2**63, size=(600, 5), dtype=np.uint64)
    for i in range(0, 200, 2):  # a copy with up to 12 bits changed
        prints[i + 1] = prints[i]
        for bit in draw.integers(320, size=i % 13):
            prints[i + 1, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    apart = np.bitwise_count(prints[:, None] ^ prints[None]).sum(-1, dtype=int)
    expected = np.argwhere(np.triu(apart <= NEAREST, 1)).tolist()
    assert len(expected) == 100
    assert alike(prints, np.ones(600, np.float32)).tolist() == expected


def tallied(classes: tuple[str, ...], rows: list[tuple[int, str, str, bool]]) -> dict[str, str]:
    tally = Tally(classes)
    for label, side, source, usable in rows:
        tally.add(Entry(Sample(f"{source}.mp4", label, source), side), usable, 2.0)
    return {remark.kind: remark.text for remark in tally.remarks()}


INFO = VideoInfo(8, 8.0, 0.5, 32, 32, "h264", "mov,mp4", 0, False, 1, "")


@pytest.mark.parametrize(
    ("path", "values", "told"),
    [
        ("a.mp4", {}, []),
        ("a.mp4", {"reason": "no frame", "corrupt": 3}, ["cannot be used: no frame"]),
        ("a.mp4", {"corrupt": 3000}, ["3,000 pictures or packets are damaged"]),
        ("a.mp4", {"corrupt": 1, "came": 0.999}, ["1 picture or packet is", "99 % of what"]),
        ("a.mp4", {"complete": False}, ["too slow"]),
        ("a.mp4", {"gop": 300}, []),
        ("a.mp4", {"gop": 301}, ["301 frames from one key frame"]),
        ("a.mp4", {"info": replace(INFO, duration=0.3)}, ["0.3 seconds"]),
        ("a.mp4", {"info": replace(INFO, duration=0.3, frames=1)}, ["it is one picture"]),
        ("a.MKV", {}, ["holds is mov, not .mkv"]),
        ("a.mov", {}, []),
        ("a.webm", {"info": replace(INFO, container="matroska,webm")}, []),
        ("a", {"info": replace(INFO, container="matroska,webm")}, []),
        ("a.mpg", {"info": replace(INFO, container="mpegvideo")}, []),
        ("img_{:05d}.png", {"info": replace(INFO, container="pictures")}, []),
    ],
)
def test_remarks_about_a_file(path: str, values: dict[str, Any], told: list[str]) -> None:
    found = about_file(path, Finding(**{"complete": True, "info": INFO, **values}), 0.4)
    assert len(found) == len(told)
    assert all(part in remark.text for part, remark in zip(told, found, strict=True))


def test_classes_are_remarked_on() -> None:
    good = [(i, side, f"{i}{side}{n}", True) for i in (0, 1) for side in ("train", "val") for n in "xy"]  # fmt: skip  # noqa: E501
    assert tallied(("run", "jump"), good) == {}
    said = tallied(("High Jump", "high_jump"), good)
    assert said == {"names": "these classes may be one: 'High Jump', 'high_jump'"}
    assert set(tallied(("+", "-"), good)) == set()  # signs only are names too
    said = tallied(("a", "b", "c"), [*good, (2, "val", "z1", True), (2, "val", "z2", True)])
    assert said["untrained"].endswith("to test: c")
    said = tallied(("a", "b", "c"), [*good, (2, "train", "z", True), (2, "train", "z", True)])
    assert said["single"].startswith("one recording only: c")
    assert said["untested"].endswith(": c")
    broken = [*good, (2, "train", "z1", True), (2, "train", "z2", True), (2, "val", "z3", False)]
    assert "untested" in tallied(("a", "b", "c"), broken)
    said = tallied(("a", "b"), [*good, (5, "train", "odd", True), (-2, "val", "even", True)])
    assert said == {"label": "2 files have labels that are no class: odd.mp4, even.mp4"}
    many = [(0, "train", f"m{n}", True) for n in range(20)]
    assert tallied(("a", "b"), [*good, *many])["uneven"] == "a has 22 training videos, b has 2"


def test_parts_and_pictures(root: Path, tmp_path: Path) -> None:
    path = str(root / "train/a/1.mp4")  # 12 frames, 10 a second
    for number in range(1, 6):
        pixels = noise(5)[number - 1].numpy()
        Image.fromarray(pixels).save(tmp_path / f"img_{number:05d}.png")
    parts = (
        Sample(path, 0, "x", 0.2, 0.8),
        Sample(path, 1, "x", 0.6),
        Sample(path, 0, "x", 5.0, 6.0),
        Sample(path, 0, "x", 0.6, 9.0),
        Sample(str(tmp_path / "img_{:05d}.png"), 1, "y", pictures=5, rate=5.0),
        Sample(str(tmp_path / "img_{:05d}.png"), 1, "y", pictures=6),
    )
    split = Split(("a", "b"), parts, (Sample(path, 0, "x", 0.2, 0.8),), root="")
    with Journal(None) as journal:
        checked = checking(split, journal, shortest=0.1)
        reports = list(checked)
        assert write_clean(tmp_path / "clean.csv", checked) == 5
    infos = [report.found.info for report in reports]
    assert [info and (info.frames, round(info.duration, 3)) for info in infos[:2]] == [
        (6, 0.6), (6, 0.6)]  # fmt: skip
    assert "no frame from 5 to 6 s" in reports[2].found.reason
    assert [r.text for r in reports[3].remarks] == [
        "usable, but cut off: 7 % of what it promises can be read",
        f"looks like {path}#t=0.6,inf (in another class)"]  # fmt: skip
    assert reports[4].usable
    assert infos[4] is not None
    assert (infos[4].container, infos[4].fps) == ("pictures", 5.0)
    assert "no such picture, of 6" in reports[5].found.reason
    assert kinds(reports[0]) == ["leak"]  # the same part on both sides
    with (tmp_path / "clean.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["start"], row["end"]) for row in rows[:3]] == [("0.2", "0.8"), ("0.6", ""), ("0.6", "9")]  # fmt: skip  # noqa: E501
    assert (rows[3]["path"], rows[3]["pictures"], rows[3]["rate"]) == ("img_{:05d}.png", "5", "5")
    assert [row["split"] for row in rows] == ["train"] * 4 + ["val"]


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="its memory travels by fork"
)
def test_addresses(root: Path, tmp_path: Path, looked_at: list[str]) -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/clips/1.mp4", (root / "train/a/1.mp4").read_bytes())
    system.pipe("/clips/cut.mp4", (root / "train/a/1.mp4").read_bytes()[:5000])
    names = ("1.mp4", "cut.mp4", "none.mp4")
    samples = tuple(Sample(f"memory://clips/{name}", 0, name) for name in names)
    here = Sample(str(root / "train/a/1.mp4"), 0, "x")
    split = Split(("a",), samples, (here,), root="memory://clips")
    with Journal(tmp_path / FILES) as journal:
        checked = checking(split, journal)
        whole, cut, none, _ = checked
        assert write_clean(tmp_path / "clean.csv", checked) == 2
    assert whole.found.complete
    assert "without its index" in cut.found.reason
    assert "no such file" in none.found.reason
    assert kinds(whole) == ["leak"]
    assert (tmp_path / "clean.csv").read_text().splitlines()[1] == "memory://clips/1.mp4,a,train"
    check(split, tmp_path / FILES)  # neither asked for again, nor the others taken for good
    assert looked_at[4:] == ["cut.mp4", "none.mp4"]


def test_several_labels_a_video(root: Path, tmp_path: Path) -> None:
    path = str(root / "train/a/1.mp4")
    several = Sample(path, -1, "x", actions=(Action(1, 0.0, 0.5), Action(0)))
    none = Sample(str(root / "val/a/1.mp4"), -1, "y")
    split = Split(("sit, down", "run"), (several,), (none,))
    with Journal(None) as journal:
        checked = checking(split, journal)
        assert [report.class_name for report in checked] == ["sit, down, run", ""]
        assert "label" not in {remark.kind for remark in checked.remarks}
        write_clean(tmp_path / "clean.csv", checked)
    with (tmp_path / "clean.csv").open() as file:
        assert [row["labels"] for row in csv.DictReader(file)] == ["run 0 0.5;sit, down", ""]


def test_a_network_contradicts(root: Path, tmp_path: Path) -> None:
    model = create_model("c2d_tiny", num_classes=2)
    model.card = replace(card_of(model), classes=("b", "a"))  # type: ignore[assignment]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and parameter.shape == (2,):
                parameter.copy_(torch.tensor([30.0, -30.0]))  # always "b"
    (tmp_path / "split.json").write_text(
        Split(("a", "b"), (Sample(str(root / "train/a/1.mp4"), 0, "x"),), ()).to_json()
    )
    with Journal(None) as journal:
        checked = checking(read_folder(root), journal)
        words = contradict(checked, model, tmp_path)
        said = {r.path: r.remarks[-1].text for r in checked if "contradicted" in kinds(r)}
        summary = Summary(checked)
    assert said == {
        str(
            root / "train/a/1.mp4"
        ): "the network says b (100 %), though it was trained on this label",
        str(root / "val/a/1.mp4"): "the network says b (100 %)",
    }
    assert summary.kinds["contradicted"] == 2
    assert "asked about 4 videos" in words[0]
    assert "trained on 1 of them" in words[1]
    assert not summary.fails("problem")
    assert summary.fails("remark")


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    for seed, name in enumerate(("<b>&/1", "<b>&/2", "b/1", "b/2")):
        video(tmp_path / "data" / f"{name}.mp4", frames=3, seed=seed)
    with Journal(None) as journal:
        checked = checking(read_folder(tmp_path / "data"), journal)
        paths = write_outputs(tmp_path, "<u>", checked, Summary(checked), ["a < b"])
    page = paths[1].read_text()
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "<u>" not in page


def test_outputs_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    (tmp_path / "clean.csv").mkdir()
    with Journal(None) as journal:
        checked = checking(read_folder(root), journal)
        with pytest.raises(UserError, match="cannot be written"):
            write_clean(tmp_path / "clean.csv", checked)
    assert [path.name for path in tmp_path.iterdir()] == ["clean.csv"]
    assert math.isfinite(sum(checked.tally.seconds.values()))

"""check_files: what each file is, what cannot be used and why, and that nothing makes it hang."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nonlocalnet.check import FileReport, check_files, workers
from nonlocalnet.check.probe import Finding, probe
from nonlocalnet.errors import UserError
from nonlocalnet.folders import read_folder
from nonlocalnet.samples import Sample, Split
from nonlocalnet.video import write_video


def video(path: Path, frames: int = 12, seed: int = 0, size: tuple[int, int] = (32, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (frames, *size, 3), generator=generator, dtype=torch.uint8)
    write_video(path, pixels, fps=10)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("train/a/1", "train/b/1", "val/a/1", "val/b/1")):
        video(tmp_path / f"{name}.mp4", seed=seed)
    return tmp_path


def by_name(reports: list[FileReport], root: Path) -> dict[str, FileReport]:
    return {Path(r.path).relative_to(root).as_posix(): r for r in reports}


def kinds(report: FileReport) -> list[str]:
    return [remark.kind for remark in report.remarks]


def test_good_files_are_described(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    reports = check_files(root, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert [r.path for r in reports] == [str(root / f"{s}/{c}/1.mp4") for s in ("train", "val") for c in "ab"]  # fmt: skip  # noqa: E501
    assert [(r.side, r.class_name) for r in reports] == [
        ("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")]  # fmt: skip
    for report in reports:
        assert report.usable
        found = report.found
        assert found.complete
        assert (found.reason, found.corrupt, found.came, found.gop) == ("", 0, 1.0, 12)
        assert report.remarks == ()
        status = Path(report.path).stat()
        assert (found.bytes, found.time) == (status.st_size, status.st_mtime_ns)
        assert 0 < found.seconds < 60
        info = found.info
        assert info is not None
        assert (info.frames, info.width, info.height, info.codec) == (12, 48, 32, "h264")
        assert info.fps == pytest.approx(10)
        assert info.duration == pytest.approx(1.2)
        assert (info.rotation, info.variable_rate) == (0, False)


def test_what_cannot_be_used_is_told_with_its_reason(root: Path) -> None:
    whole = (root / "train/a/1.mp4").read_bytes()
    (root / "train/a/empty.mp4").write_bytes(b"")
    (root / "train/a/page.mp4").write_text("<html>not found</html>" * 100)
    (root / "train/a/random.mp4").write_bytes(os.urandom(5000))
    (root / "train/a/cut.mp4").write_bytes(whole[: len(whole) // 2])
    video(root / "train/b/brief.mp4", frames=3, seed=9)
    reports = by_name(check_files(root, workers=2), root)
    for name in ("empty", "page", "random", "cut"):
        report = reports[f"train/a/{name}.mp4"]
        assert not report.usable
        assert report.found.reason
        assert str(root) not in report.found.reason
    assert "index" in reports["train/a/cut.mp4"].found.reason
    assert reports["train/b/brief.mp4"].usable
    assert kinds(reports["train/b/brief.mp4"]) == ["short"]
    assert not by_name(check_files(root, shortest=0.2), root)["train/b/brief.mp4"].remarks
    assert sum(r.usable for r in reports.values()) == 5


def test_damaged_pictures_are_counted(root: Path) -> None:
    path = video(root / "train/a/damaged.mp4", frames=60, seed=5, size=(64, 64))
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat")
    for place in range(start + 2000, start + 40000, 500):
        content[place] ^= 0xFF
    path.write_bytes(content)
    report = by_name(check_files(root), root)["train/a/damaged.mp4"]
    assert report.usable
    assert report.found.corrupt > 0
    assert "damaged" in kinds(report)


def test_the_same_content_on_both_sides_is_a_leak(root: Path) -> None:
    content = (root / "train/a/1.mp4").read_bytes()
    (root / "val/b/copy.mp4").write_bytes(content)
    (root / "train/b/2.mp4").write_bytes((root / "train/b/1.mp4").read_bytes())
    changed = bytearray(content)
    changed[-1] ^= 1  # of the same size, but another file
    (root / "val/a/other.mp4").write_bytes(changed)
    said = {
        name: {r.kind: r.text for r in report.remarks}
        for name, report in by_name(check_files(root), root).items()
    }
    across = "the same file is on the other side of the split: "
    assert said["train/a/1.mp4"]["leak"] == across + "val/b/copy.mp4"
    assert said["val/b/copy.mp4"]["leak"] == across + "train/a/1.mp4"
    assert said["train/a/1.mp4"]["two"] == "the same file is also of class b: val/b/copy.mp4"
    assert said["train/b/1.mp4"]["copy"] == "the same file again: train/b/2.mp4"
    assert {name for name in said if "leak" in said[name]} == {"train/a/1.mp4", "val/b/copy.mp4"}
    assert {name for name in said if "copy" in said[name]} == {"train/b/1.mp4", "train/b/2.mp4"}
    assert "looks like" in said["val/a/other.mp4"]["alike"]


def test_a_split_is_taken_as_it_is(root: Path) -> None:
    split = read_folder(root)
    whole = [(r.path, r.class_name, r.found.digest) for r in check_files(root)]
    assert whole == [(r.path, r.class_name, r.found.digest) for r in check_files(split)]
    with pytest.raises(UserError, match="no such folder"):
        check_files(root / "nowhere")


def strange(sample: Sample) -> Iterator[Finding]:
    """Some files hang before or after they were opened, or end the process."""
    if "never" in sample.path:
        time.sleep(60)
    if "crash" in sample.path:
        os._exit(1)
    for found in probe(sample):
        yield found
        if "stuck" in sample.path:
            time.sleep(60)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the stand-in travels by fork"
)
def test_a_file_that_hangs_or_crashes_costs_its_time_and_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "probe", strange)
    for seed, name in enumerate(("a/never", "a/stuck", "a/crash", "b/never", "b/5", "b/6"), 20):
        video(root / f"train/{name}.mp4", seed=seed)
    began = time.monotonic()
    reports = by_name(check_files(root, workers=2, seconds=1.5), root)
    assert time.monotonic() - began < 15
    assert reports["train/a/never.mp4"].found.reason == "it could not be opened within 1.5 seconds"
    assert reports["train/b/never.mp4"].found.reason == "it could not be opened within 1.5 seconds"
    assert reports["train/a/crash.mp4"].found.reason == "the decoder crashed on this file"
    stuck = reports["train/a/stuck.mp4"]
    assert stuck.usable
    assert stuck.found.info is not None
    assert not stuck.found.complete
    assert kinds(stuck) == ["slow"]
    others = [r for name, r in reports.items() if not name.startswith(("train/a/", "train/b/n"))]
    assert len(others) == 5
    assert all(r.usable and r.found.complete for r in others)
    assert not multiprocessing.active_children()


def test_stopping_in_the_middle_leaves_no_process_behind(root: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_files(root, progress=stop)
    deadline = time.monotonic() + 5
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_no_processes_or_no_time() -> None:
    split = Split(("a", "b"), (), ())
    for number in (0, -1):
        with pytest.raises(UserError, match=f"not by {number}"):
            check_files(split, workers=number)
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="above 0 seconds"):
            check_files(split, seconds=seconds)

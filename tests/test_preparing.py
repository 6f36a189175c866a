"""A data set written anew: the same frames at the same times, once each, whatever happens."""

from __future__ import annotations

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import video_files as made

from nonlocalnet import cli, preparing
from nonlocalnet.errors import UserError
from nonlocalnet.folders import read_folder
from nonlocalnet.preparing import Prepared, new_paths, prepare
from nonlocalnet.reencoding import Form, Written, new_size, reencode
from nonlocalnet.samples import Sample, Split
from nonlocalnet.video import Video, VideoError, write_video

UNEVEN = np.cumsum(np.random.default_rng(0).integers(900, 9000, 60)).tolist()
SMALL = Form(short_side=48, gop=6)


def sample(path: Path) -> Sample:
    return Sample(str(path), 0, "")


# one video

KINDS = {
    "plain.mp4": {},
    "variable.mp4": {"ticks": UNEVEN, "base": Fraction(1, 90000)},
    "variable.mkv": {"ticks": UNEVEN, "base": Fraction(1, 90000), "container": "matroska"},
    "film.avi": {"codec": "mpeg4", "container": "avi", "bframes": 2},
    "sound.mp4": {"sound_first": True},
    "odd.mp4": {"pixels": "yuv444p", "size": (63, 95)},
    "ten_bit.mp4": {"pixels": "yuv420p10le"},
    "one.mp4": {"frames": 1},
}


@pytest.mark.parametrize("name", KINDS)
def test_frames_keep_their_numbers_and_times(name: str, tmp_path: Path) -> None:
    made.encode(tmp_path / name, **KINDS[name])
    target = tmp_path / "new.mp4"
    written = reencode(sample(tmp_path / name), target, SMALL)
    with Video(tmp_path / name) as old, Video(target) as new:
        assert (len(new), written.frames) == (len(old), len(old))
        assert written.bytes == target.stat().st_size
        assert min(new.info.height, new.info.width) == 48
        assert new.info.fps == pytest.approx(old.info.fps, rel=1e-3)
        np.testing.assert_allclose(new.timestamps, old.timestamps, atol=1.1e-3)
        assert new.info.counted == ""
        shown = [made.number_of(image) for image in new.frames(range(len(new))).numpy()]
        assert shown == list(range(len(old)))
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        packets = [p for p in container.demux(video=0) if p.size]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        assert max(np.diff([*keys, len(packets)])) <= 6


def test_pictures_look_the_same(tmp_path: Path) -> None:
    """Within what crf 23 loses; the colours too, whatever matrix the file was written with."""
    y = torch.linspace(0, 255, 96)
    still = torch.stack((*torch.meshgrid(y, y, indexing="ij"), y.flip(0).expand(96, 96)), -1)
    frames = torch.stack([still, 255 - still, still / 2]).round().to(torch.uint8)
    write_video(tmp_path / "old.mp4", frames, crf=1)
    reencode(sample(tmp_path / "old.mp4"), tmp_path / "new.mp4", Form(short_side=96))
    with Video(tmp_path / "old.mp4") as old, Video(tmp_path / "new.mp4") as new:
        apart = old.frames(range(3)).float() - new.frames(range(3)).float()
    assert apart.abs().mean() < 3


def test_rotation_is_in_the_pictures(tmp_path: Path) -> None:
    made.encode(tmp_path / "old.mp4")
    made.turn(tmp_path / "old.mp4", tmp_path / "turned.mp4", (0, 1, -1, 0))
    reencode(sample(tmp_path / "turned.mp4"), tmp_path / "new.mp4", Form())
    with Video(tmp_path / "turned.mp4") as old, Video(tmp_path / "new.mp4") as new:
        assert (new.info.height, new.info.width) == (old.info.height, old.info.width) == (96, 64)
        assert (old.info.rotation, new.info.rotation) == (90, 0)
        apart = old.frames([3, 40]).float() - new.frames([3, 40]).float()
    assert apart.abs().mean() < 6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((720, 1280), (256, 454)),  # 455.1
        ((1280, 720), (454, 256)),
        ((256, 340), (256, 340)),
        ((240, 320), (240, 320)),  # never enlarged
        ((63, 95), (62, 94)),
        ((257, 257), (256, 256)),
        ((1, 7), (1, 6)),
        ((300, 1), (300, 1)),
    ],
)
def test_new_size(old: tuple[int, int], new: tuple[int, int]) -> None:
    assert new_size(*old, 256) == new


def test_a_damaged_video_is_written_and_said(tmp_path: Path) -> None:
    made.encode(tmp_path / "old.mov", codec="mjpeg", container="mov", pixels="yuvj420p")
    data = bytearray((tmp_path / "old.mov").read_bytes())
    with av.open(str(tmp_path / "old.mov")) as container:
        packet = [p for p in container.demux(video=0) if p.size][7]
    data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    (tmp_path / "old.mov").write_bytes(data)
    written = reencode(sample(tmp_path / "old.mov"), tmp_path / "new.mp4", Form())
    assert written.corrupt == 1
    with Video(tmp_path / "new.mp4") as new:
        shown = [made.number_of(image) for image in new.frames(range(60)).numpy()]
    assert shown == [*range(7), 6, *range(8, 60)]


def test_a_size_that_changes_is_an_error(tmp_path: Path) -> None:
    made.encode(tmp_path / "a.h264", container="h264", frames=20)
    made.encode(tmp_path / "b.h264", container="h264", size=(48, 64), frames=20)
    both = (tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes()
    (tmp_path / "both.h264").write_bytes(both)
    with pytest.raises(VideoError, match="the picture size changes from 96x64 to 64x48"):
        reencode(sample(tmp_path / "both.h264"), tmp_path / "new.mp4", Form())
    assert not list(tmp_path.glob("*new*"))


def test_numbered_pictures_become_a_video(tmp_path: Path) -> None:
    for number in range(12):
        image = av.VideoFrame.from_ndarray(made.picture(number)).to_image()
        image.save(tmp_path / f"img_{number + 1:05d}.png")
    given = Sample(str(tmp_path / "img_{:05d}.png"), 0, "", pictures=12, rate=12.0)
    reencode(given, tmp_path / "new.mp4", Form())
    with Video(tmp_path / "new.mp4") as new:
        assert new.info.fps == pytest.approx(12)
        shown = [made.number_of(image) for image in new.frames(range(12)).numpy()]
    assert shown == list(range(12))


# where the new files lie


def test_new_paths() -> None:
    names = ["a/b.avi", "a/b.mkv", "a/c.mp4", "a/d.webm", "/else/e.mov", "s3://bucket/f.mp4"]
    given = [Sample(f"/data/{n}" if n[0] == "a" else n, 0, "") for n in names]
    given += [given[2], dataclasses.replace(given[2], start=3.0)]  # the same file
    given += [Sample("/data/a/g/img_{:05d}.jpg", 0, "", pictures=5)]
    found = [str(path) for _, path in new_paths(given, "/data", Path("out")).values()]
    assert found == [
        "out/a/b.avi.mp4",
        "out/a/b.mkv.mp4",
        "out/a/c.mp4",
        "out/a/d.mp4",
        "out/else/e.mp4",
        "out/bucket/f.mp4",
        "out/a/g.mp4",
    ]


# a data set


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of two good videos in train and one in val, one broken and one cut off."""
    root = tmp_path / "data"
    for side, count in (("train", 2), ("val", 1)):
        for name in ("ball", "walk"):
            (root / side / name).mkdir(parents=True)
            for number in range(count):
                made.encode(root / side / name / f"{number}.avi", container="avi", frames=12)
    (root / "train/ball/page.mp4").write_text("<html></html>" * 100)
    return root


def run(data: Path, out: Path, workers: int = 1, form: Form = SMALL) -> Prepared:
    return prepare(read_folder(data), out, form, workers)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_data_set(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    steps: list[tuple[int, int]] = []
    split = read_folder(data)
    found = prepare(split, out, SMALL, 2, progress=lambda *step: steps.append(step))
    ((path, reason),) = found.broken
    assert path.endswith("page.mp4")
    assert "not a video" in reason
    assert (found.written, found.kept, found.damaged) == (6, 0, [])
    assert steps[-1] == (7, 7)
    assert found.bytes == sum(p.stat().st_size for p in out.rglob("*.mp4"))
    listed = rows(found.listing)
    assert {(row["path"], row["label"], row["split"]) for row in listed} == {
        (f"{side}/{name}/{number}.mp4", name, side)
        for side, count in (("train", 2), ("val", 1))
        for name in ("ball", "walk")
        for number in range(count)
    }
    for row in listed:
        with Video(out / row["path"]) as video:
            assert len(video) == 12


def test_what_is_done_is_not_done_again(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(data, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    again = run(data, out)
    assert (again.written, again.kept, len(again.broken)) == (0, 6, 1)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    made.encode(data / "val/walk/0.avi", container="avi", frames=15)
    (out / "train/walk/0.mp4").unlink()
    with (out / "train/walk/1.mp4").open("ab") as file:
        file.write(b"more")
    third = run(data, out)
    assert (third.written, third.kept) == (3, 3)
    with Video(out / "val/walk/0.mp4") as video:
        assert len(video) == 15
    assert run(data, out, form=Form(short_side=32)).written == 6  # another form


KILLED = """
import os, sys
from pathlib import Path
from nonlocalnet import preparing
from nonlocalnet.folders import read_folder
from nonlocalnet.ledger import Ledger
from nonlocalnet.reencoding import Form
add, done = Ledger.add, []

def dying(self, key, stamp, found):
    add(self, key, stamp, found)
    done.append(key)
    if len(done) == 3:
        self._file.write('["cut')
        self._file.flush()
        os.kill(os.getpid(), 9)

Ledger.add = dying
preparing.prepare(read_folder(sys.argv[1]), Path(sys.argv[2]), Form(48, 6), 2)
"""


def test_killed_at_any_moment_it_goes_on(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(data), str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "data.csv").exists()
    time.sleep(0.3)  # its processes see that it is gone
    found = run(data, out)
    assert (found.written, found.kept) == (3, 3)
    assert len(rows(found.listing)) == 6
    assert not list(out.rglob(".*"))


def test_a_file_that_crashes_or_hangs_the_decoder_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(given: Sample, target: Path, form: Form) -> Written:
        if given.path.endswith("ball/1.avi"):
            os.kill(os.getpid(), signal.SIGKILL)
        if given.path.endswith("walk/1.avi"):
            time.sleep(60)
        return reencode(given, target, form)

    monkeypatch.setattr(preparing, "reencode", act)
    started = time.monotonic()
    found = prepare(read_folder(data), tmp_path / "out", SMALL, 2, seconds=5.0)
    assert time.monotonic() - started < 40
    reasons = {Path(path).parent.name + "/" + Path(path).name: why for path, why in found.broken}
    assert reasons["ball/1.avi"] == "the process that read it ended unexpectedly"
    assert reasons["walk/1.avi"] == "it took more than 5 seconds"
    assert found.written == 4


def test_parts_and_several_labels_stay(tmp_path: Path) -> None:
    made.encode(tmp_path / "film.mp4")
    parts = tuple(
        Sample(str(tmp_path / "film.mp4"), label, "film", start, start + 1.0)
        for label, start in ((0, 0.0), (1, 1.0))
    )
    split = Split(("a", "b"), parts, (), root=str(tmp_path))
    found = prepare(split, tmp_path.parent / f"{tmp_path.name}_out", SMALL, 1)
    assert found.written == 1
    assert [(r["path"], r["label"], r["start"], r["end"]) for r in rows(found.listing)] == [
        ("film.mp4", "a", "", "1"),
        ("film.mp4", "b", "1", "2"),
    ]


def test_folders_that_cannot_be_used(data: Path, tmp_path: Path) -> None:
    for out in (data, data / "train" / "new"):
        with pytest.raises(UserError, match="lies in the data themselves"):
            run(data, out)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        run(data, other)
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        run(data, other / "thesis.tex" / "out")
    with pytest.raises(UserError, match="by 1 process or more, not by 0"):
        run(data, tmp_path / "out", workers=0)


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["prepare", str(data), "-o", str(out), "--workers", "1", "--short-side", "48"]
    assert cli.main(words) == 1
    text = capsys.readouterr().out
    assert "page.mp4: is not a video file" in text
    assert "6 videos written, 1 could not be read; " in text
    assert f"list: {out / 'data.csv'}" in text
    (data / "train/ball/page.mp4").unlink()
    assert cli.main(words) == 0
    assert "0 videos written, 6 were there already; " in capsys.readouterr().out
    assert cli.main([*words, "--crf", "52"]) == 2
    assert "--crf is 0 to 51" in capsys.readouterr().err

"""A data folder with every kind of bad file: `python tests/bad_files.py FOLDER` makes one and
prints what `check-data` finds in it.

Every picture shows its number (see `video_files`), so that a wrong one does not pass for the right.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from video_files import change, copy, encode, picture, turn, write_silence

from nonlocalnet.check import Remark, check_files
from nonlocalnet.samples import inside

FRAMES = 60
AWKWARD = {  # usable, however hard: name -> how it is encoded
    "plain.mp4": {},
    "odd_size.mp4": {"size": (63, 97), "pixels": "yuv444p"},
    "ten_bit.mp4": {"pixels": "yuv420p10le"},
    "variable_rate.mp4": {
        "ticks": [i + 3 * (i // 5) for i in range(FRAMES)], "base": Fraction(1, 1000) * 20
    },
    "one_frame.mp4": {"frames": 1},
    "long_gop.mp4": {
        "frames": 400, "options": {"g": "999", "sc_threshold": "0", "x264-params": "threads=1"}
    },
    "b_frames.avi": {"codec": "mpeg4", "container": "avi", "bframes": 2},
    "program.mpg": {"codec": "mpeg2video", "container": "mpeg", "bframes": 2},
    "fragments.mp4": {"muxing": {"movflags": "frag_keyframe+empty_moov"}},
    "sound_first.mkv": {"sound_first": True, "container": "matroska"},
}  # fmt: skip


def make(root: Path) -> dict[str, str]:
    """Fill a folder with train/ and val/ of two classes; file -> the kind of remark due, or ""."""
    bad, val = root / "train" / "bad", root / "val" / "good"
    for folder in (bad, val, root / "train" / "good", root / "val" / "bad"):
        folder.mkdir(parents=True)
    for number, name in enumerate(("train/good/a", "train/good/b", "val/good/c", "val/bad/d")):
        # of other sizes, and of other pictures than the bad ones
        encode(root / f"{name}.mp4", frames=30 + number, size=(48, 64 + 8 * number))
    for name, options in AWKWARD.items():
        encode(bad / name, **{"frames": FRAMES, **options})
    due = dict.fromkeys(AWKWARD, "") | {"one_frame.mp4": "still", "long_gop.mp4": "gop"}
    for part in (_cut, _inside, _others, _names):
        due |= part(bad)
    shutil.copy(bad / "plain.mp4", val / "leak.mp4")
    return {f"train/bad/{name}": kind for name, kind in due.items()} | {"val/good/leak.mp4": "leak"}


def _cut(bad: Path) -> dict[str, str]:
    """Files that end too soon."""
    encode(bad / "front.mp4", frames=FRAMES, muxing={"movflags": "faststart"})
    encode(bad / "whole.mkv", frames=FRAMES, container="matroska")
    encode(bad / "whole.ts", frames=FRAMES, container="mpegts")
    due = {"front.mp4": "", "whole.mkv": "", "whole.ts": "", "zero.mp4": "unusable"}
    (bad / "zero.mp4").touch()
    for name, percent, kind in (
        ("plain.mp4", 10, "unusable"), ("plain.mp4", 50, "unusable"), ("plain.mp4", 90, "unusable"),
        ("front.mp4", 40, "cut"), ("front.mp4", 70, "cut"), ("front.mp4", 95, "cut"),
        ("whole.mkv", 50, "cut"), ("b_frames.avi", 50, "cut"), ("whole.ts", 50, ""),
    ):  # fmt: skip
        content = (bad / name).read_bytes()
        cut = Path(name).with_stem(f"{Path(name).stem}_{percent}")
        (bad / cut).write_bytes(content[: len(content) * percent // 100])
        due[str(cut)] = kind
    content = (bad / "front.mp4").read_bytes()
    (bad / "header.mp4").write_bytes(content[: content.index(b"mdat") + 4])
    return due | {"header.mp4": "unusable"}


def _inside(bad: Path) -> dict[str, str]:
    """Files whose bytes were changed."""
    draw = np.random.default_rng(0)
    (bad / "random.mp4").write_bytes(draw.bytes(20000))
    content = bytearray((bad / "front.mp4").read_bytes())
    for place in draw.integers(content.index(b"mdat") + 200, len(content), 40):
        content[place] ^= 0xFF
    (bad / "flipped.mp4").write_bytes(content)
    content = bytearray((bad / "plain.mp4").read_bytes())
    place = content.index(b"mdat") - 4
    content[place : place + 4] = struct.pack(">I", 2**31)
    (bad / "huge_box.mp4").write_bytes(content)
    content = bytearray((bad / "plain.mp4").read_bytes())
    place = content.index(b"avc1", content.index(b"stsd")) + 28
    content[place : place + 4] = struct.pack(">HH", 65535, 65535)
    (bad / "huge_header.mp4").write_bytes(content)
    encode(bad / "huge.avi", frames=2, codec="mjpeg", container="avi", pixels="yuvj420p")
    content = bytearray((bad / "huge.avi").read_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 60000, 60000)
    (bad / "huge.avi").write_bytes(content)
    turn(bad / "plain.mp4", bad / "turned.mp4", (0, 1, -1, 0))
    return {
        "random.mp4": "unusable",
        "flipped.mp4": "damaged",
        "huge_box.mp4": "unusable",
        "huge_header.mp4": "",
        "huge.avi": "damaged",
        "turned.mp4": "",
    }


def _others(bad: Path) -> dict[str, str]:
    """Files that are something else."""
    with av.open(str(bad / "sound.mp4"), "w") as out:
        write_silence(out, out.add_stream("aac", rate=16000, layout="mono"))
    Image.fromarray(picture(1)).save(bad / "jpeg.mp4", "JPEG")
    Image.fromarray(picture(1)).save(bad / "png.mp4", "PNG")
    (bad / "page.mp4").write_text("<!doctype html><title>404</title>" * 200)
    encode(bad / "whole.webm", frames=FRAMES, codec="libvpx", container="webm")
    (bad / "whole.webm").rename(bad / "webm.mp4")
    copy(bad / "plain.mp4", bad / "cut_in_player.mp4", "mp4", start=0.5)
    encode(bad / "vp8.webm", frames=FRAMES, codec="libvpx", container="webm")
    change(bad / "vp8.webm", bad / "hidden.webm", 20, hide_vp8=True)
    due = {"cut_in_player.mp4": "", "vp8.webm": "", "hidden.webm": "", "webm.mp4": "suffix"}
    return due | dict.fromkeys(("sound.mp4", "jpeg.mp4", "png.mp4", "page.mp4"), "unusable")


def _names(bad: Path) -> dict[str, str]:
    """Names of what is no file, or may not be read."""
    (bad / "folder.mp4").mkdir()
    os.mkfifo(bad / "pipe.mp4")
    (bad / "nowhere.mp4").symlink_to("gone.mp4")
    (bad / "circle.mp4").symlink_to("circle.mp4")
    shutil.copy(bad / "front.mp4", bad / "locked.mp4")
    (bad / "locked.mp4").chmod(0)  # which does not keep root out
    may = os.access(bad / "locked.mp4", os.R_OK)
    names = ("folder.mp4", "pipe.mp4", "nowhere.mp4", "circle.mp4")
    return dict.fromkeys(names, "unusable") | {"locked.mp4": "copy" if may else "unusable"}


def main(root: Path) -> None:
    """Make the files, check them, and print a table of file, verdict and seconds."""
    make(root)
    for report in check_files(root, workers=1):
        said = [r for r in report.remarks if r.kind != "alike"] or [Remark("", "usable")]
        text = "; ".join(remark.text for remark in said)
        print(f"| {inside(report.name, str(root))} | {text} | {report.found.seconds:.2f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

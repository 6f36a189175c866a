"""Folders of videos: layouts, splits, notes, and every way they can be wrong.

Reading a folder decodes nothing, so the videos here are a few bytes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nonlocalnet.errors import UserError
from nonlocalnet.folders import read_folder, read_test_folder
from nonlocalnet.samples import Sample, Split


def fill(root: Path, *paths: str, content: bytes = b"\0\xff video") -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def plain(root: Path, per_class: int = 10) -> Path:
    return fill(root, *(f"{c}/{i}.mp4" for c in ("jump", "sit") for i in range(per_class)))


def names(samples: tuple[Sample, ...], root: Path) -> set[str]:
    return {Path(sample.path).relative_to(root).as_posix() for sample in samples}


def test_class_folders_are_split_by_class(tmp_path: Path) -> None:
    split = read_folder(plain(tmp_path))
    assert split.classes == ("jump", "sit")
    assert len(split.train) == 16
    assert [sum(s.label == label for s in split.val) for label in (0, 1)] == [2, 2]
    everything = {f"{c}/{i}.mp4" for c in ("jump", "sit") for i in range(10)}
    assert names(split.train, tmp_path) | names(split.val, tmp_path) == everything
    assert not names(split.train, tmp_path) & names(split.val, tmp_path)
    for sample in split.train + split.val:
        assert Path(sample.path).parent.name == split.classes[sample.label]
    assert split == read_folder(tmp_path)
    assert split.val != read_folder(tmp_path, seed=1).val
    assert len(read_folder(tmp_path, val_fraction=0.5).val) == 10
    assert "20 videos of 2 classes, cut from 20 recordings" in split.notes[0]
    assert "16 to train on, 4 from 4 other recordings to validate on (seed 0)" in split.notes[0]


def test_a_recording_is_never_on_both_sides(tmp_path: Path) -> None:
    fill(tmp_path, *(f"goal/g{g}_clip{i}.mp4" for g in range(6) for i in range(5)))
    fill(tmp_path, *(f"foul/g{g}_clip{i}.mp4" for g in range(3, 9) for i in range(5, 8)))
    split = read_folder(tmp_path)
    assert not {s.source for s in split.train} & {s.source for s in split.val}
    assert {s.label for s in split.val} == {s.label for s in split.train} == {0, 1}
    assert "48 videos of 2 classes, cut from 9 recordings" in split.notes[0]


def test_same_plain_names_in_two_classes_are_two_recordings(tmp_path: Path) -> None:
    split = read_folder(plain(tmp_path))
    assert len({s.source for s in split.train + split.val}) == 20


@pytest.mark.parametrize("val", ["val", "Validation", "valid", "dev", "test"])
@pytest.mark.parametrize("train", ["train", "Training"])
def test_folders_that_are_divided_already_stay_so(tmp_path: Path, train: str, val: str) -> None:
    fill(tmp_path, *(f"{train}/{c}/{i}.mp4" for c in "ab" for i in range(3)))
    fill(tmp_path, *(f"{val}/{c}/{i}.mp4" for c in "ab" for i in range(2)))
    split = read_folder(tmp_path)
    assert split.classes == ("a", "b")
    assert names(split.train, tmp_path) == {f"{train}/{c}/{i}.mp4" for c in "ab" for i in range(3)}
    assert names(split.val, tmp_path) == {f"{val}/{c}/{i}.mp4" for c in "ab" for i in range(2)}
    counts = "6 videos of 2 classes to train on and 4 to validate on"
    assert split.notes == (f"{counts}, as divided by {train}/ and {val}/",)


def test_val_comes_before_test_and_what_is_not_used_is_said(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{s}/{c}/1.mp4" for s in ("train", "val", "test") for c in "ab"))
    split = read_folder(tmp_path)
    assert names(split.val, tmp_path) == {"val/a/1.mp4", "val/b/1.mp4"}
    assert "not used: test, beside train, val" in split.notes


def test_train_alone_is_split(tmp_path: Path) -> None:
    plain(tmp_path / "train")
    (tmp_path / "annotations").mkdir()
    split = read_folder(tmp_path)
    assert (len(split.train), len(split.val)) == (16, 4)
    assert "not used: annotations, beside train" in split.notes


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{c}/{i}.mp4" for c in ("bus", "train", "test") for i in range(5)))
    assert read_folder(tmp_path).classes == ("bus", "test", "train")


def test_recordings_on_both_given_sides_are_warned_of(tmp_path: Path) -> None:
    fill(tmp_path, *(f"train/{c}/m{i}_clip1.mp4" for c in "ab" for i in range(4)))
    fill(tmp_path, *(f"val/{c}/m{i}_clip2.mp4" for c in "ab" for i in (0, 9)))
    split = read_folder(tmp_path)
    assert "warning: by their names, 2 of 4 validation videos" in split.notes[-1]
    assert "(m0)" in split.notes[-1]


def test_what_is_no_video_is_left_out_with_a_note(tmp_path: Path) -> None:
    plain(tmp_path, 5)
    fill(tmp_path, "jump/notes", "jump/list.weird", content="Zeilen für später\n".encode() * 500)
    fill(tmp_path, "jump/labels.csv", "sit/thumb.jpg", "sit/.hidden.mp4", "jump/empty")
    fill(tmp_path, "jump/empty", content=b"")
    fill(tmp_path, "readme.md", "loose.mp4", ".git/x", "__MACOSX/x.mp4", "sit/raw/deep.mp4")
    fill(tmp_path, "sit/no_suffix", "sit/strange.xyz", content=b"\x00\x01\xfe" * 100)
    fill(tmp_path, "sit/latin1", content=b"\xe4\xf6\xfc" * 100)  # no UTF-8: may be a video
    os.mkfifo(tmp_path / "sit" / "pipe.mp4")
    (tmp_path / "sit" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    split = read_folder(tmp_path)
    assert split.classes == ("jump", "sit")
    taken = names(split.train, tmp_path) | names(split.val, tmp_path)
    extra = taken - {f"{c}/{i}.mp4" for c in ("jump", "sit") for i in range(5)}
    assert extra == {"sit/no_suffix", "sit/strange.xyz", "sit/latin1"}
    notes = "\n".join(split.notes)
    assert "are no videos: readme.md, jump/empty, jump/labels.csv and 5 more" in notes
    assert "lie outside class folders: loose.mp4" in notes
    assert "are folders inside class folders: sit/raw" in notes
    assert ".hidden" not in notes
    assert "MACOSX" not in notes


@pytest.mark.parametrize("cut", range(4085, 4097))
def test_text_is_text_wherever_the_first_bytes_end(tmp_path: Path, cut: int) -> None:
    plain(tmp_path, 2)
    fill(tmp_path, "jump/words", content=b"x" * cut + "ü€😀".encode() * 10)
    assert "are no videos: jump/words" in read_folder(tmp_path).notes[0]


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "has no class folders, it holds no videos; expected class_name/video.mp4"),
        (["notes.txt"], "has no class folders, it holds no videos"),
        (["1.mp4", "2.mp4"], "has no class folders, videos lie directly in it"),
        (["a/1.mp4", "a/2.mp4"], "holds one class only, 'a'"),
        (["train/a/1.mp4", "val/a/2.mp4"], "train holds one class only, 'a'"),
        (["a/1.mp4", "b/x.txt"], "class 'b' has no usable video: .*b holds 1 files that are no"),
        (["a/1.mp4", "b/deep/1.mp4"], r"class 'b' has no usable video: .*further folders \(deep\)"),
        (["train/1.mp4", "val/2.mp4"], "train, .*val: expected one folder per class inside"),
        (["train/1.mp4"], "train: expected one folder per class inside"),
        (["val/a/1.mp4", "val/b/1.mp4"], r"holds val/ but no train/; expected both or none"),
        (
            [f"train/{c}/1.mp4" for c in "abc"] + [f"val/{c}/1.mp4" for c in "abd"],
            r"differ \(only in train/: c; only in val/: d\)",
        ),
        (
            [f"train/{c}/1.mp4" for c in "abcdef"] + ["val/a/1.mp4"],
            r"differ \(only in train/: b, c, d and 2 more\)",
        ),
        (["train/a/1.mp4", "train/b/1.mp4", "val/a/1.mp4", "val/b/x.txt"], "class 'b' has no"),
        (["a/1.mp4", "b/1.mp4"], "every class has one recording only"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(
    tmp_path: Path, paths: list[str], words: str
) -> None:
    fill(tmp_path, *paths)
    with pytest.raises(UserError, match=words) as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folders_files_and_empty_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: there is no such folder"):
        read_folder(tmp_path / "nowhere")
    fill(tmp_path, "video.mp4")
    with pytest.raises(UserError, match=r"video\.mp4 is a file; expected a folder"):
        read_folder(tmp_path / "video.mp4")
    plain(tmp_path / "data")
    (tmp_path / "data" / "run").mkdir()
    with pytest.raises(UserError, match=r"class 'run' has no usable video: .*run holds nothing"):
        read_folder(tmp_path / "data")
    fill(tmp_path / "data", "run/1.mp4", "run/2.mp4", content=b"")
    with pytest.raises(UserError, match=r"class 'run' has no usable video: .*2 empty files"):
        read_folder(tmp_path / "data")
    with pytest.raises(UserError, match="between 0 and 1, got 1"):
        read_folder(tmp_path / "data", val_fraction=1)


def test_a_class_with_one_recording_is_trained_on_and_said(tmp_path: Path) -> None:
    plain(tmp_path, 5)
    fill(tmp_path, "run/1.mp4")
    split = read_folder(tmp_path)
    assert {s.label for s in split.train} == {0, 1, 2}
    assert {s.label for s in split.val} == {0, 2}
    assert "nothing to validate on for run: too few recordings to divide" in split.notes


def test_a_relative_folder_gives_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert read_folder("data") == read_folder(tmp_path / "data")


def test_a_test_folder_gives_val_or_everything(tmp_path: Path) -> None:
    plain(tmp_path / "all", 3)
    assert len(read_test_folder(tmp_path / "all").val) == 6
    fill(tmp_path / "one", "jump/1.mp4")
    assert read_test_folder(tmp_path / "one").classes == ("jump",)
    plain(tmp_path / "both/train", 3)
    plain(tmp_path / "both/test", 2)
    split = read_test_folder(tmp_path / "both")
    assert split.train == ()
    assert names(split.val, tmp_path / "both/test") == {"jump/0.mp4", "jump/1.mp4", "sit/0.mp4", "sit/1.mp4"}  # fmt: skip  # noqa: E501


def test_json_brings_the_split_back_and_the_folder_may_move(tmp_path: Path) -> None:
    split = read_folder(plain(tmp_path / "älter"))
    outside = Sample(str(tmp_path / "elsewhere" / "x.mp4"), 1, "x")
    split = Split(split.classes, (*split.train, outside), split.val, split.notes, split.root)
    text = split.to_json()
    assert Split.from_json(text) == split
    assert str(tmp_path / "älter" / "jump") not in text
    moved = Split.from_json(text, root=tmp_path / "new")
    assert moved.root == str(tmp_path / "new")
    assert moved.train[-1] == outside
    assert names(moved.val, tmp_path / "new") == names(split.val, tmp_path / "älter")
    bare = Split(("a", "b"), (Sample("x/1.mp4", 0, "1"),), ())
    assert Split.from_json(bare.to_json()) == bare


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"root": "", "classes": [], "train": [1]}'])
def test_other_text_is_no_split(text: str) -> None:
    with pytest.raises(UserError, match="no split written by nonlocalnet"):
        Split.from_json(text)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
@pytest.mark.parametrize("where", [b"a\xff/1.mp4", b"jump/\xe9.mp4", b"jump/\xe9.txt"])
def test_names_that_are_no_utf8(tmp_path: Path, where: bytes) -> None:
    root = plain(tmp_path)
    bad = Path(os.fsdecode(os.fsencode(root) + b"/" + where))
    fill(root, str(bad.relative_to(root)))
    for read in (read_folder, read_test_folder):
        with pytest.raises(UserError, match=r"\\x(ff|e9).*not valid UTF-8; rename it") as caught:
            read(root)
        str(caught.value).encode()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_a_root_that_is_no_utf8(tmp_path: Path) -> None:
    root = plain(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfc")))
    with pytest.raises(UserError, match=r"\\xfc: this name is not valid"):
        read_folder(root)

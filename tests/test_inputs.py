"""What a user's words stand for: files, folders, lists, addresses and patterns."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from nonlocalnet.datasets import Broken
from nonlocalnet.errors import UserError
from nonlocalnet.inputs import find_videos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/c/two.mp4", "b/one.MKV", "a.mp4", "b/notes.txt", "odd.name", "star*.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_a_pattern_is_what_it_matches(folder: Path) -> None:
    deep = [str(folder / name) for name in ("a.mp4", "b/c/two.mp4", "star*.mp4")]
    assert find_videos(f"{folder}/**/*.mp4") == deep
    assert find_videos(f"file://{folder}/**/*.mp4") == deep
    assert find_videos(folder / "star*.mp4") == [str(folder / "star*.mp4")]  # there is such a file
    assert find_videos(f"{folder}/*.avi") == [Broken(f"{folder}/*.avi", "no file matches this")]


def test_a_text_list_has_one_path_a_line(folder: Path) -> None:
    lines = ["# comment", "a.mp4", "", "b/a name with spaces.mp4", "/abs/x.mp4", "s3://b/y.mp4"]
    (folder / "list.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    assert find_videos(folder / "list.txt") == [
        str(folder / "a.mp4"),
        str(folder / "b/a name with spaces.mp4"),
        "/abs/x.mp4",
        "s3://b/y.mp4",
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('path,label\na.mp4,x\n"b,c.mp4",y\n', ["a.mp4", "b,c.mp4"]),
        ("label,path,split\nx,a.mp4,train\n", ["a.mp4"]),
        ("a.mp4,3\nb.mp4,4\n", ["a.mp4", "b.mp4"]),
    ],
)
def test_a_csv_has_a_column_of_paths(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "list.csv").write_text(text)
    assert find_videos(tmp_path / "list.csv") == [str(tmp_path / name) for name in names]


def test_lists_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "parts.csv").write_text("path,label,start,end\na.mp4,x,1,2\n")
    with pytest.raises(UserError, match="parts of videos"):
        find_videos(tmp_path / "parts.csv")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.txt cannot be read: it is not UTF-8"):
        find_videos(tmp_path / "binary.txt")
    with pytest.raises(UserError, match=r"gone\.txt cannot be read: No such file"):
        find_videos(tmp_path / "gone.txt")
    (tmp_path / "empty.txt").write_text("\n")
    assert find_videos(tmp_path / "empty.txt") == [
        Broken(str(tmp_path / "empty.txt"), "there is no path in this list")
    ]


def test_addresses() -> None:
    system = fsspec.filesystem("memory")
    for name in ("/bucket/b/x.mp4", "/bucket/a.mp4", "/bucket/notes.txt"):
        system.pipe_file(name, b"x")
    both = ["memory:///bucket/a.mp4", "memory:///bucket/b/x.mp4"]
    found = [
        str(path).replace("memory://bucket", "memory:///bucket")
        for path in find_videos("memory://bucket/**/*.mp4")
    ]
    assert sorted(found) == both
    assert len(find_videos("memory://bucket")) == 2
    assert find_videos("memory://bucket/a.mp4") == ["memory://bucket/a.mp4"]
    with pytest.raises(UserError, match="nosuch://x/\\* cannot be searched"):
        find_videos("nosuch://x/*")

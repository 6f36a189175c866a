"""What is printed: whole lines without a terminal, and every doubt about a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nonlocalnet.check import FileReport
from nonlocalnet.metrics import Outcome as Answer
from nonlocalnet.metrics import Result, Rule, Scored, Skipped
from nonlocalnet.prediction import Prediction
from nonlocalnet.terminal import remarks, show_prediction, show_result, show_table
from nonlocalnet.video import VideoInfo


def test_tables_in_a_pipe_are_whole_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    long = "[red]a/b c" * 100  # wider than any terminal, and no markup
    show_table(("name", "n"), [[long, "1"], ["b", "22"]], right=(1,))
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "n"]
    assert first == f"{long}   1"
    assert second == "b" + " " * (len(long) + 1) + "22"


def test_a_table_without_headings_has_no_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_prediction(Prediction("a.mp4", ("run", "jump"), (0.75, 0.25)))
    assert capsys.readouterr().out == "a.mp4\n   0.7500  run\n   0.2500  jump\n"
    show_prediction(Prediction("b.mp4", error="is empty"))
    assert capsys.readouterr().out == "b.mp4: is empty\n"


INFO = VideoInfo(8, 8.0, 0.5, 32, 32, "h264", "mp4", 0, False, 1, "")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, []),
        ({"usable": False, "reason": "no frame", "corrupt": 3}, ["cannot be used: no frame"]),
        ({"corrupt": 3}, ["3 pictures or packets are damaged"]),
        ({"complete": False}, ["too slow"]),
        ({"short": True}, ["0.5 seconds"]),
        ({"same_as": ("/data/b/1.mp4",)}, ["the same file again: b/1.mp4"]),
        (
            {"same_as": ("/data/b/1.mp4",), "leak": True, "corrupt": 1},
            ["1 pictures", "other side of the split: b/1.mp4"],
        ),
    ],
)
def test_remarks_about_a_file(values: dict[str, Any], told: list[str]) -> None:
    good = {"usable": True, "complete": True, "info": INFO}
    report = FileReport("/data/a/1.mp4", "a", "train", 100, **{**good, **values})
    found = remarks(report, Path("/data"))
    assert len(found) == len(told)
    assert all(part in text for part, text in zip(told, found, strict=True))


def test_a_result_is_printed_with_intervals_and_skipped_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    right, wrong = Answer((0, 1), (0.9, 0.1), 0, 0.9), Answer((0, 1), (0.9, 0.1), 1, 0.1)
    videos = [Scored(f"{i}.mp4", 0, str(i), (right,)) for i in range(3)]
    result = Result(
        classes=("a", "b"),
        rules=(Rule(1, 1),),
        videos=(*videos, Scored("3.mp4", 1, "3", (wrong,))),
        skipped=(Skipped("bad.mp4", "is empty"),),
        groups={"vowel?": ("yes", "no")},
    )
    show_result(result)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["views", "top-1", "mean", "of", "classes", "vowel?"]
    # Wilson's interval of 3 in 4, computed by hand: 30.1 to 95.4
    assert " ".join(lines[1].split()) == "1 clip 75.0 % (30-95) 50.0 % 75.0 % (30-95)"
    assert lines[2].startswith("4 videos")
    assert lines[3] == "skipped bad.mp4: is empty"

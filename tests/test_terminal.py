"""What is printed: whole lines without a terminal, and figures with their intervals."""

from __future__ import annotations

import pytest

from nonlocalnet.metrics import Outcome as Answer
from nonlocalnet.metrics import Result, Rule, Scored, Skipped
from nonlocalnet.prediction import Prediction
from nonlocalnet.terminal import show_prediction, show_result, show_table


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

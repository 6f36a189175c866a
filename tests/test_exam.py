"""Which videos a test is about, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nonlocalnet.calibration import FILE, calibrate, read_calibration
from nonlocalnet.card import card_of, set_card
from nonlocalnet.errors import UserError
from nonlocalnet.exam import choose, examine
from nonlocalnet.folders import read_folder
from nonlocalnet.models import create_model
from nonlocalnet.scores import read_scores
from nonlocalnet.synthetic import CLASSES, render_reunion
from nonlocalnet.weights import save


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_reunion(tmp_path_factory.mktemp("data") / "reunion", train=8, val=4)


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    """What `train` leaves that a test reads."""
    out = tmp_path / "run"
    out.mkdir()
    torch.manual_seed(0)
    model = create_model("c2d_tiny", num_classes=len(CLASSES))
    set_card(model, replace(card_of(model), classes=CLASSES))
    save(model, out / "model.safetensors")
    (out / "split.json").write_text(read_folder(data / "train", val_fraction=0.5).to_json())
    (out / "recipe.json").write_text(json.dumps({"words": ["4 epochs"]}))
    (out / "log.jsonl").write_text('{"step": 1, "epoch": 0, "loss": 1.5}\n')
    return out


def test_the_folder_it_was_trained_on_gives_its_own_validation_videos(
    run: Path, data: Path
) -> None:
    split, words = choose(run, data / "train")
    own = read_folder(data / "train", val_fraction=0.5)
    assert split.val == own.val
    assert len(split.val) < 8
    assert "4 validation videos" in words[0]
    assert choose(run, None)[0].val == own.val


def test_a_folder_that_moved_is_the_same_folder(run: Path, data: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(data / "train", moved)
    split, _ = choose(run, moved)
    own = read_folder(data / "train", val_fraction=0.5)
    assert [Path(s.path).relative_to(moved) for s in split.val] == [
        Path(s.path).relative_to(data / "train") for s in own.val
    ]
    next(moved.glob("*/*.mp4")).unlink()  # now it is another one
    assert len(choose(run, moved)[0].val) == 7


def test_of_another_folder_val_is_tested_or_everything(run: Path, data: Path) -> None:
    split, words = choose(run, data)
    assert {Path(s.path).parent.parent.name for s in split.val} == {"val"}
    assert words[0] == f"tested on the 4 videos of {data / 'val'}"
    split, words = choose(run, data / "val")
    assert len(split.val) == 4
    assert words[0] == f"tested on the 4 videos of {data / 'val'}"


def test_of_a_list_no_video_is_tested_that_was_trained_on(
    run: Path, data: Path, tmp_path: Path
) -> None:
    own = read_folder(data / "train", val_fraction=0.5)
    both = [*own.train, *own.val]
    (tmp_path / "all.txt").write_text("".join(f"{s.path} {s.label}\n" for s in both))
    split, words = choose(run, tmp_path / "all.txt")
    assert {s.path for s in split.val} == {s.path for s in own.val}
    assert words[0].startswith(f"tested on the 4 videos of {tmp_path}/all.txt that {run} validated")
    (tmp_path / "seen.txt").write_text("".join(f"{s.path} {s.label}\n" for s in own.train))
    split, words = choose(run, tmp_path / "seen.txt")
    assert (len(split.val), words[-1][:40]) == (4, "warning: 4 of these videos were trained ")


def test_a_list_of_numbers_is_tested_by_number(run: Path, data: Path, tmp_path: Path) -> None:
    path = next((data / "val" / CLASSES[2]).glob("*.mp4"))
    shutil.copy(path, tmp_path / "a.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 2\n")
    exam = examine(run, tmp_path / "list.txt", 1, 1)
    assert exam.result.videos[0].label == 2
    assert "number k is taken for the network's output k" in exam.words[-1]


def test_examine_writes_the_report(run: Path, data: Path) -> None:
    exam = examine(run, data, 2, 1, groups={"same?": lambda name: name.partition("_")[0]})
    assert [rule.name for rule in exam.result.rules] == ["1 clip", "2 clips"]
    assert (exam.html, exam.json) == (run / "report.html", run / "report.json")
    written = json.loads(exam.json.read_text())
    assert written["words"] == list(exam.words)
    (tested,) = written["runs"]
    assert tested["name"] == "c2d_tiny"
    assert tested["notes"] == ["4 epochs"]
    assert tested["log"][0]["loss"] == 1.5
    assert tested["result"]["summary"]["videos"] == 4
    assert set(exam.result.group_accuracy()) == {"same?"}


def test_its_own_validation_videos_leave_a_calibration(run: Path, data: Path) -> None:
    """Other tests leave none. (One class said of all is right of one video.)"""
    examine(run, data, 1, 1)
    assert not (run / FILE).exists()
    exam = examine(run, None, 1, 1)
    left = read_calibration(run / FILE)
    assert left == calibrate(read_scores(exam.scores))
    assert set(left.words) <= set(exam.words)


def test_a_calibration_that_knows_more_than_the_test_stays(run: Path) -> None:
    """`calibrate --none` has seen videos of none of the classes, which no test has."""
    first = read_scores(examine(run, None, 1, 1).scores)
    made = calibrate(first, first.values[0][:3])
    made.save(run / FILE)
    exam = examine(run, None, 1, 1)
    assert read_calibration(run / FILE) == made
    assert any("made with 3 videos of none of the classes and stays" in w for w in exam.words)


def test_a_report_that_cannot_be_written_costs_no_test(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(*_: object, **__: object) -> None:
        raise AssertionError("the videos were read")

    monkeypatch.setattr("nonlocalnet.exam.score_videos", score)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="out.html cannot be written"):
        examine(run, data, html=tmp_path / "file" / "out.html")


def test_a_report_that_cannot_be_drawn_leaves_the_scores(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object, **__: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("nonlocalnet.exam.write_report", write)
    with pytest.raises(RuntimeError, match="no font"):
        examine(run, data, 1, 1, html=tmp_path / "out.html")
    assert len(read_scores(tmp_path / "out.npz").samples) == 4


def test_a_bare_checkpoint_is_tested_too(run: Path, data: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    shutil.copy(run / "model.safetensors", alone)
    exam = examine(alone, data, 1, 1, html=tmp_path / "out.html")
    assert exam.result.count == 4
    with pytest.raises(UserError, match="which videos to test on"):
        examine(alone)


def test_classes_it_does_not_know_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "val" / "same_left", tmp_path / "other" / "somersault")
    with pytest.raises(UserError, match="somersault"):
        examine(run, tmp_path / "other")
    assert not (run / "report.html").exists()

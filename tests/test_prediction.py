"""Files and folders in, one prediction per file out, broken ones included."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nonlocalnet.card import Card, set_card
from nonlocalnet.datasets import Broken
from nonlocalnet.errors import UserError
from nonlocalnet.inputs import find_videos
from nonlocalnet.prediction import Prediction, predict, predictions
from nonlocalnet.video import write_video

CARD = Card(
    classes=("red", "green", "blue"),
    frames=2,
    stride=1,
    short_side=16,
    crop=16,
    test_crop=16,
    mean=(0.0,) * 3,
    std=(1.0,) * 3,
    clips=2,
    crops=1,
)


class Colours(nn.Module):
    """Logits: ten times the mean of each colour; notes how many views it was given."""

    def __init__(self, card: Card = CARD) -> None:
        super().__init__()
        self.views: list[int] = []
        set_card(self, card)

    def forward(self, x: Tensor) -> Tensor:
        self.views.append(len(x))
        return 10 * x.mean((2, 3, 4))


def film(path: Path, colour: tuple[int, int, int]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, torch.tensor(colour, dtype=torch.uint8).expand(6, 16, 16, 3).contiguous())
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    film(tmp_path / "b" / "deep" / "green.mp4", (10, 200, 10))
    film(tmp_path / "b" / "blue.MKV", (10, 10, 200))
    film(tmp_path / "a.mp4", (200, 90, 10))
    film(tmp_path / ".hidden" / "x.mp4", (0, 0, 0))
    (tmp_path / "b" / "notes.txt").write_text("no video")
    (tmp_path / "b" / ".part.mp4").write_text("no video")
    return tmp_path


def test_folders_are_walked_in_order(folder: Path) -> None:
    expected = [folder / "a.mp4", folder / "b" / "blue.MKV", folder / "b" / "deep" / "green.mp4"]
    assert find_videos(folder) == list(map(str, expected))
    assert find_videos([expected[2], str(folder / "b")]) == list(
        map(str, [expected[2], expected[1], expected[2]])
    )
    said = predict(Colours(), folder)
    assert [p.path for p in said] == list(map(str, expected))
    assert [p.labels[0] for p in said] == ["red", "blue", "green"]


def test_scores_are_the_definition(folder: Path) -> None:
    (said,) = predict(Colours(), str(folder / "a.mp4"))
    values = torch.tensor([200.0, 90.0, 10.0]) / 255
    expected = (10 * values).softmax(0)
    assert said.labels == ("red", "green", "blue")
    assert said.scores == pytest.approx(expected.tolist(), abs=1e-2)
    assert said.error is None
    assert said.seconds > 0


def test_views_and_top(folder: Path) -> None:
    model = Colours()
    path = str(folder / "a.mp4")
    predict(model, path)
    predict(model, path, clips=4)
    predict(model, path, clips=1, crops=3)
    assert model.views == [2, 4, 3]
    assert [len(predict(model, path, top=k)[0].labels) for k in (1, 2, 3, 50)] == [1, 2, 3, 3]
    with pytest.raises(ValueError, match="top"):
        predict(model, path, top=0)


def test_classes_without_names(folder: Path) -> None:
    model = Colours(dataclasses.replace(CARD, classes=()))
    assert predict(model, str(folder / "b" / "blue.MKV"))[0].labels[0] == "class 2"


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_do_not_stop_the_others(folder: Path, workers: int) -> None:
    text = folder / "text.mp4"
    text.write_text("<html></html>")
    empty = folder / "empty"
    empty.mkdir()
    paths = [text, folder / "a.mp4", empty, folder / "gone.mp4", folder / "b" / "blue.MKV"]
    said = predict(Colours(), paths, workers=workers)
    assert [p.path for p in said] == list(map(str, paths))
    assert [p.error is None for p in said] == [False, True, False, False, True]
    for prediction in said:
        if prediction.error is not None:
            assert (prediction.labels, prediction.scores) == ((), ())
            assert prediction.error
            assert "\n" not in prediction.error
    assert said[1].labels[0] == "red"
    assert said[4].labels[0] == "blue"
    assert "no video" in str(said[2].error)


def test_any_name_is_tried_if_given(folder: Path) -> None:
    path = folder / "odd.name"
    (folder / "a.mp4").rename(path)
    assert predict(Colours(), path)[0].labels[0] == "red"


def test_one_after_the_other(folder: Path) -> None:
    """The second file is not scored before the first is handed over."""
    model = Colours()
    stream = predictions(model, folder)
    assert model.views == []
    assert next(stream).labels[0] == "red"
    assert len(model.views) == 1
    assert len(list(stream)) == 2


def test_no_paths() -> None:
    with pytest.raises(UserError, match="nothing to predict"):
        predict(Colours(), [])


def test_empty_folder_is_said(tmp_path: Path) -> None:
    assert find_videos(tmp_path) == [Broken(str(tmp_path), "there is no video file in this folder")]
    (said,) = predict(Colours(), tmp_path)
    assert said.error == "there is no video file in this folder"


def test_json() -> None:
    good = Prediction("a.mp4", ("x", "y"), (0.75, 0.25), seconds=0.5)
    assert json.loads(good.to_json()) == {
        "path": "a.mp4",
        "labels": ["x", "y"],
        "scores": [0.75, 0.25],
        "seconds": 0.5,
        "error": None,
    }
    bad = Prediction("b\udcff\n.mp4", error="it is empty")
    assert "\n" not in bad.to_json()
    assert json.loads(bad.to_json())["path"] == bad.path


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_names_that_are_no_utf8_stop_no_other(tmp_path: Path) -> None:
    good = tmp_path / "a.mp4"
    for path in (good, Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.mp4"))):
        path.write_bytes(b"")
    found = find_videos(tmp_path)
    assert found[0] == str(good)
    assert isinstance(found[1], Broken)
    assert found[1].path == f"{tmp_path}/b\\xff.mp4"
    assert "not valid UTF-8" in found[1].reason

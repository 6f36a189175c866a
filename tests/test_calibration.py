"""Temperature and thresholds against brute force and by hand; what `--unknown` comes to."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nonlocalnet.calibration import (
    FILE,
    Calibration,
    best_f1,
    best_parting,
    calibrate,
    find_unknown,
    lowest_kept,
    read_calibration,
    temperature,
    tempered,
)
from nonlocalnet.cli import main
from nonlocalnet.errors import UserError
from nonlocalnet.metrics import Rule
from nonlocalnet.samples import Action, Sample
from nonlocalnet.scores import Scores

CLASSES = ("a", "b", "c")


def sure_answers(count: int = 400, sharp: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits of a network that is right as often as its unsharpened scores say; and the labels."""
    random = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(count, 3, generator=random)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=random)[:, 0]
    return sharp * logits, labels


def scores(values: Tensor, labels: Tensor) -> Scores:
    samples = tuple(Sample(f"{i}.mp4", int(label), str(i)) for i, label in enumerate(labels))
    both = torch.stack((values, torch.full_like(values, 1 / 3)))  # the fullest rule is not asked
    return Scores(CLASSES, (Rule(1, 1), Rule(10, 3)), samples, both)


def test_the_temperature_is_that_of_a_search() -> None:
    logits, labels = sure_answers()
    found = temperature(logits.softmax(-1), labels)
    tried = np.geomspace(0.1, 20, 4001)
    losses = [float(torch.nn.functional.cross_entropy(logits.double() / t, labels)) for t in tried]
    assert found == pytest.approx(tried[int(np.argmin(losses))], rel=2e-3)
    assert 2.5 < found < 3.5  # what sharpened them


def test_dividing_logits_and_tempering_scores_are_one() -> None:
    logits, _ = sure_answers(20)
    torch.testing.assert_close(tempered(logits.softmax(-1), 2.5), (logits / 2.5).softmax(-1))
    assert bool(torch.isfinite(tempered(torch.tensor([[1.0, 0.0, 0.0]]), 3.0)).all())


def test_only_right_answers_have_no_temperature() -> None:
    logits = torch.eye(3) * 4
    assert temperature(logits.softmax(-1), torch.arange(3)) is None
    found = calibrate(scores(logits.softmax(-1), torch.arange(3)))
    assert found.temperature == 1.0
    assert "all answers on 3 validation videos are right" in found.words[0]


def test_the_error_falls() -> None:
    logits, labels = sure_answers()
    made = scores(logits.softmax(-1), labels)
    found = calibrate(made)
    before = made.result().calibration(0).error
    cooled = replace(made, values=tempered(made.values, found.temperature))
    after = cooled.result().calibration(0).error
    assert after < before / 2
    assert (
        f"calibration error is {100 * after:.1f} %, it was {100 * before:.1f} %" in found.words[0]
    )


def test_the_threshold_keeps_the_share_of_right_answers() -> None:
    logits, labels = sure_answers()
    found = calibrate(scores(logits.softmax(-1), labels), keep=0.9)
    top, answers = tempered(logits.softmax(-1), found.temperature).max(-1)
    right = top[answers == labels]
    assert float((right >= found.thresholds[0]).float().mean()) >= 0.9
    above = float(right[right > found.thresholds[0]].min())
    assert float((right >= above).float().mean()) < 0.9  # no higher one would do


def test_thresholds_by_hand() -> None:
    marks = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    assert [round(lowest_kept(marks, k), 4) for k in (1.0, 0.8, 0.79, 0.2, 0.01)] == [
        0.5, 0.6, 0.6, 0.9, 0.9,
    ]  # fmt: skip
    bad = torch.tensor([0.75, 0.55, 0.4, 0.3])
    # 0.8: 2/5 less 0; 0.6: 4/5 less 1/4; 0.5: 1 less 1/2
    assert best_parting(marks, bad) == pytest.approx(0.6)
    assert best_parting(marks, torch.tensor([0.1])) == pytest.approx(0.5)


def test_best_f1_by_hand() -> None:
    values = torch.tensor([0.9, 0.8, 0.7, 0.6])
    truth = torch.tensor([True, False, True, False])
    # F1 from each score on: 2/3, 1/2, 4/5, 2/3
    assert best_f1(values, truth) == pytest.approx(0.7)
    assert best_f1(values, torch.zeros(4, dtype=torch.bool)) is None
    # a threshold cannot part equal scores, or 0.5 would have an F1 of 1
    equal = torch.tensor([0.9, 0.5, 0.5, 0.5, 0.5])
    assert best_f1(equal, torch.tensor([1, 1, 0, 0, 0]).bool()) == pytest.approx(0.9)


def test_videos_of_none_of_the_classes_say_the_threshold() -> None:
    logits, labels = sure_answers()
    nothing = torch.full((50, 3), 1 / 3) + torch.tensor([0.02, -0.01, -0.01])
    found = calibrate(scores(logits.softmax(-1), labels), nothing)
    assert "0 of 50 videos of none of the classes (false alarms)" in found.words[-1]
    assert found.thresholds[0] > 0.34


def test_several_labels_have_a_threshold_each() -> None:
    actions = [(Action(0), Action(1)), (Action(0),), (Action(1),), (Action(1),)]
    samples = tuple(Sample(f"{i}.mp4", -1, str(i), actions=a) for i, a in enumerate(actions))
    values = torch.tensor([[0.9, 0.3, 0.1], [0.8, 0.2, 0.1], [0.2, 0.4, 0.1], [0.1, 0.6, 0.9]])
    found = calibrate(Scores(CLASSES, (Rule(1, 1),), samples, values[None], "sigmoid"))
    assert found.temperature == 1.0
    assert found.thresholds == pytest.approx((0.8, 0.3, 0.5))
    assert "1 classes that no video has" in found.words[1]


def test_what_cannot_be_calibrated_is_said() -> None:
    logits = torch.eye(3) * 4
    with pytest.raises(UserError, match="labelled video"):
        calibrate(scores(logits.softmax(-1), torch.full((3,), -1)))
    with pytest.raises(UserError, match="answered rightly"):
        calibrate(scores(logits.softmax(-1), torch.tensor([1, 2, 0])))


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    made = Calibration(CLASSES, 1.7, (0.41,), ("so it was found",))
    made.save(tmp_path / FILE)
    assert read_calibration(tmp_path / FILE) == made
    for text in ("", "[]", "{}", '{"classes": [], "temperature": "x"}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match="is no calibration"):
            read_calibration(tmp_path / "x.json")
    for values in ({"temperature": math.inf}, {"temperature": 0.0}, {"thresholds": [0.1, 0.2]}):
        saved = json.loads((tmp_path / FILE).read_text()) | values
        (tmp_path / "x.json").write_text(json.dumps(saved))
        with pytest.raises(UserError, match="damaged"):
            read_calibration(tmp_path / "x.json")


def test_unknown(tmp_path: Path) -> None:
    made = Calibration(CLASSES, 1.7, (0.41,), ("so it was found",))
    assert find_unknown("off", tmp_path, CLASSES, False) == (None, [])
    found, words = find_unknown("auto", tmp_path, CLASSES, False)
    assert found is None
    assert "no calibration" in words[0]
    made.save(tmp_path / FILE)
    (tmp_path / "model.safetensors").touch()
    for run in (tmp_path, tmp_path / "model.safetensors"):
        found, words = find_unknown("auto", run, CLASSES, False)
        assert found == made
        assert words == [f"calibration: {tmp_path / FILE}", "so it was found"]
    assert find_unknown(str(tmp_path / FILE), Path("other"), CLASSES, True)[0] == made
    found, _ = find_unknown("0.6", tmp_path, CLASSES, True)
    assert found is not None
    assert (found.temperature, found.thresholds) == (1.0, (0.6,))
    for asked, several, words in (
        ("2", False, "0 to 1"),
        ("nan", False, "0 to 1"),
        ("maybe", False, "auto, off"),
        ("off", True, "each class"),
    ):
        with pytest.raises(UserError, match=words):
            find_unknown(asked, tmp_path, CLASSES, several)
    with pytest.raises(UserError, match="each class"):
        find_unknown("auto", tmp_path / "none", CLASSES, True)
    with pytest.raises(UserError, match="other classes"):
        find_unknown("auto", tmp_path, ("a", "b"), False)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logits, labels = sure_answers()
    scores(logits.softmax(-1), labels).save(tmp_path / "report.npz")
    assert main(["calibrate", str(tmp_path), "--keep", "0.8"]) == 0
    found = read_calibration(tmp_path / FILE)
    assert capsys.readouterr().out.splitlines() == [
        *found.words,
        f"calibration: {tmp_path / FILE}",
    ]
    assert main(["calibrate", str(tmp_path), "--keep", "1.5"]) == 2
    assert main(["calibrate", str(tmp_path / "none" / "run")]) == 1
    assert "the .npz that this writes as --scores" in capsys.readouterr().err

"""What a report shows of attention: which videos, which clips, and no test fails for it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nonlocalnet import exhibits
from nonlocalnet.card import card_of, set_card
from nonlocalnet.errors import UserError
from nonlocalnet.evaluate import evaluate
from nonlocalnet.exam import examine
from nonlocalnet.exhibits import exhibit
from nonlocalnet.folders import read_folder
from nonlocalnet.metrics import Result
from nonlocalnet.models import create_model
from nonlocalnet.samples import Sample
from nonlocalnet.synthetic import CLASSES, render_reunion
from nonlocalnet.weights import save


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    folder = render_reunion(tmp_path_factory.mktemp("data") / "reunion", train=12, val=4)
    return read_folder(folder / "train", val_fraction=0.5).val


def network(blocks: int = 1) -> nn.Module:
    torch.manual_seed(0)
    model = create_model("c2d_tiny", len(CLASSES), blocks, zero_init="none" if blocks else None)
    set_card(model, replace(card_of(model), classes=CLASSES))
    return model.eval()


def result_of(model: nn.Module, samples: tuple[Sample, ...]) -> Result:
    result = evaluate(model, samples, 1, 1)
    assert isinstance(result, Result)
    return result


def test_the_surest_right_answer_and_the_surest_mistake(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    model = network()
    result = result_of(model, samples)
    scores = {v.path: v.outcomes[0].scores[0] for v in result.videos}
    right = [v.path for v in result.videos if not v.outcomes[0].rank]
    wrong = [v.path for v in result.videos if v.outcomes[0].rank]
    assert right
    assert wrong
    chosen = exhibits._chosen(result, samples)
    assert [s.path for _, s in chosen] == [
        max(right, key=scores.__getitem__),
        max(wrong, key=scores.__getitem__),
    ]
    pictures, page, words = exhibit(model, result, samples, tmp_path / "report.html")
    assert words == []
    assert [p.caption.split(":")[0] for p in pictures] == [
        "The surest right answer",
        "The surest mistake",
    ]
    assert all(p.png.startswith(b"\x89PNG") for p in pictures)
    assert page == tmp_path / "report-attention.html"
    assert Path(chosen[0][1].path).name in page.read_text(encoding="utf-8")


def test_a_part_of_a_video_is_shown_itself(samples: tuple[Sample, ...]) -> None:
    model = network()
    set_card(model, replace(card_of(model), frames=2, stride=1))
    part = replace(samples[0], start=0.5, end=0.8)
    shot = exhibits._shot(model, part)
    assert all(0.5 <= t < 0.8 for t in shot.seconds)
    assert exhibits._shot(model, samples[0]).seconds != shot.seconds


def test_a_test_leaves_them_with_its_report(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    for blocks in (1, 0):
        run = tmp_path / f"run{blocks}"
        run.mkdir()
        save(network(blocks), run / "model.safetensors")
        root = Path(samples[0].path).parents[1]
        split = read_folder(root, val_fraction=0.5)
        (run / "split.json").write_text(split.to_json())
        (run / "recipe.json").write_text(json.dumps({"words": []}))
        exam = examine(run)
        text = exam.html.read_text(encoding="utf-8")
        links = re.findall(r'<a href="([^"]+)"', text)
        assert links == (["report-attention.html"] if blocks else [])
        assert all((run / link).is_file() for link in links)
        assert ("What it looks at" in text) == bool(blocks)


def test_what_cannot_be_shown_is_told(
    samples: tuple[Sample, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("too many pairs")

    model = network()
    monkeypatch.setattr(exhibits, "attend_shot", lambda *_, **__: refuse())
    result = result_of(model, samples)
    pictures, page, words = exhibit(model, result, samples, tmp_path / "report.html")
    assert (pictures, page) == ([], None)
    assert len(words) == 2
    assert all("is not shown: too many pairs" in word for word in words)

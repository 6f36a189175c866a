"""Online networks: trained by flags, resumed, tested frame by frame, at the pace of their clips."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from nonlocalnet import evaluate
from nonlocalnet.card import Card, card_of, set_card
from nonlocalnet.cli import main
from nonlocalnet.datasets import ViewDataset, Views, frame_gap
from nonlocalnet.errors import UserError
from nonlocalnet.folders import read_test_folder
from nonlocalnet.metrics import Rule
from nonlocalnet.models import create_model
from nonlocalnet.recipes import Recipe, check
from nonlocalnet.samples import Sample, Split
from nonlocalnet.scores import read_scores
from nonlocalnet.scoring import score
from nonlocalnet.stepping import Agreement, score_frames
from nonlocalnet.streaming import Streaming
from nonlocalnet.synthetic import CLASSES, FPS, render_reunion
from nonlocalnet.training import run as starting
from nonlocalnet.training.plan import architecture
from nonlocalnet.training.prepare import describe_pace, start_from
from nonlocalnet.video import write_video
from nonlocalnet.weights import load, save

NETWORK = ["--model", "tsm_tiny", "--shift", "online", "--causal", "3"]
FLAGS = ["--recipe", "reunion", *NETWORK, "--epochs", "1", "--workers", "0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_reunion(tmp_path_factory.mktemp("data") / "reunion", train=32, val=8)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "online"
    assert main(["train", str(data), *FLAGS, "--device", "cpu", "-o", str(out)]) == 0
    return out


def test_a_run_is_an_online_network_and_says_so(run: Path) -> None:
    card = card_of(load(run))
    assert card.architecture["shift"] == "past"
    assert card.architecture["causal"] == 3
    assert card.gap == pytest.approx(1 / FPS)
    words = json.loads((run / "recipe.json").read_text("utf-8"))["words"]
    assert any("0.125 s apart" in word for word in words)
    assert any("answer after every frame" in word for word in words)
    report = (run / "report.html").read_text("utf-8")
    assert "answer after every frame" in report
    assert "causal 3" in report


def test_it_goes_on_as_what_it_is(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> float:
        raise AssertionError("the gap is in the checkpoint")

    monkeypatch.setattr(starting, "frame_gap", opened)
    again = ["train", str(data), "--resume", "-o", str(run)]
    assert main(again) == 0
    assert "is finished" in capsys.readouterr().out
    assert main([*again, "--shift", "offline"]) == 1
    assert "has shift 'online' and this call says 'offline'" in capsys.readouterr().err


def test_frame_by_frame_beside_clip_by_clip(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", str(run), str(data), "--stream", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "1 clip, frame by frame" in printed
    scores = read_scores(run / "test.npz")
    assert scores.rules == (Rule(1, 1), Rule(1, 1, framewise=True))
    torch.testing.assert_close(scores.values[1], scores.values[0], rtol=0, atol=1e-5)
    page = json.loads((run / "test.json").read_text("utf-8"))
    (told,) = (word for word in page["words"] if word.startswith("frame by frame"))
    apart = float(told.partition("at most ")[2].split()[0])
    assert 0 <= apart < 1e-4
    rules = page["runs"][0]["result"]["summary"]["rules"]
    assert [rule["name"] for rule in rules] == ["1 clip", "1 clip, frame by frame"]
    assert rules[0]["top1"] == rules[1]["top1"]
    assert "frame by frame" in (run / "test.html").read_text("utf-8")


def test_the_answers_to_frames_are_averaged(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other answers than the network's own give other scores, and the difference is told."""
    steps = torch.tensor([[0.0, 4, 0, 0], [0, 0, 1, 0], [2, 0, 0, 0]])  # (T, K)
    monkeypatch.setattr(evaluate, "score_frames", lambda _, clips: steps.expand(len(clips), 3, 4))
    model, samples = load(run), read_test_folder(data / "val").val
    scores = evaluate.score_videos(model, samples, 1, 1, framewise=True)
    torch.testing.assert_close(scores.values[1], steps.mean(0).softmax(0).expand(8, 4))
    views = ViewDataset(samples, card_of(model), 1, 1)
    whole = torch.cat([score(model, cast(Views, views[i]).clips) for i in range(8)])
    apart = (whole - steps.mean(0)).abs().max() / whole.std(correction=0)
    assert f"at most {apart:.1e} of" in scores.obtained[evaluate.FRAMEWISE]


@pytest.mark.parametrize(
    "options", [{"name": "tsm_tiny"}, {"name": "tsm_tiny", "non_local": 1, "shift": "past"}]
)
def test_what_looks_ahead_is_not_tested_frame_by_frame(
    options: dict[str, Any], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = create_model(num_classes=len(CLASSES), **options)
    set_card(model, replace(card_of(model), classes=CLASSES))
    save(model, tmp_path / "model.safetensors")
    words = ["test", str(tmp_path / "model.safetensors"), str(data), "--stream", "--device", "cpu"]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert err.startswith("nonlocalnet: ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "test.html").exists()


ONLINE = Recipe(model="tsm_resnet50", shift="online")


@pytest.mark.parametrize(
    ("recipe", "causal"),
    [
        (ONLINE, 8),
        (replace(ONLINE, frames=16), 16),
        (replace(ONLINE, causal=4), 4),
        (replace(ONLINE, non_local=0), None),
        (replace(ONLINE, mode="space"), None),
        (replace(ONLINE, shift="offline"), None),
        (replace(ONLINE, shift=None), None),
    ],
)
def test_how_far_blocks_look_back(recipe: Recipe, causal: int | None) -> None:
    assert architecture(recipe, 4).get("causal") == causal


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "c2d_resnet50", "shift": "online"}, "--shift is TSM's, and c2d_resnet50"),
        ({"model": "i3d_tiny", "shift": "offline"}, "--shift is TSM's"),
        ({"non_local": 0, "causal": 8}, "--causal 8 is for non-local blocks"),
        ({"mode": "space", "causal": 8}, "--mode space"),
        ({"causal": 0}, "--causal must be at least 1"),
    ],
)
def test_options_that_a_network_has_not(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check(Recipe(**{"model": "tsm_tiny", "non_local": 1, **changes}))


def test_training_says_whether_the_network_is_online() -> None:
    told = {
        words[-1].partition(":")[0] if (words := describe_pace(create_model(**options))) else ""
        for options in (
            {"name": "tsm_tiny"},
            {"name": "tsm_tiny", "shift": "past"},
            {"name": "tsm_tiny", "non_local": 1, "causal": 4},
        )
    }
    assert told == {"", "an online network", "warning"}


def test_an_online_network_starts_from_an_offline_one(tmp_path: Path) -> None:
    offline = create_model("tsm_tiny", 4, 1, zero_init="none")
    save(offline, tmp_path / "offline.safetensors")
    online = create_model("tsm_tiny", 4, 1, shift="past", causal=8)
    start_from(online, str(tmp_path / "offline.safetensors"))
    assert all(
        torch.equal(mine, theirs)
        for mine, theirs in zip(
            online.state_dict().values(), offline.state_dict().values(), strict=True
        )
    )
    assert card_of(online).architecture["shift"] == "past"


def test_a_trained_network_keeps_its_shift(run: Path, data: Path, tmp_path: Path) -> None:
    for flag in (["--shift", "offline"], ["--causal", "8"]):
        words = ["train", str(data), "--model", str(run), *flag, "-o", str(tmp_path / "new")]
        assert main(words) == 1


def film(path: Path, frames: int, fps: float) -> Sample:
    write_video(path, torch.zeros(frames, 16, 16, 3, dtype=torch.uint8), fps)
    return Sample(str(path), 0, str(path))


def test_the_gap_is_that_of_clips(tmp_path: Path) -> None:
    dense = Card(frames=4, stride=2)
    slow, quick = film(tmp_path / "slow.mp4", 20, 5), film(tmp_path / "quick.mp4", 20, 20)
    middle, single = film(tmp_path / "middle.mp4", 20, 10), film(tmp_path / "single.mp4", 1, 10)
    assert frame_gap([slow], dense) == pytest.approx(2 / 5)
    assert frame_gap([slow, quick, middle], dense) == pytest.approx(2 / 10)
    assert frame_gap([slow, single], dense) == pytest.approx(2 / 5)  # one frame has no gap
    segments = replace(dense, sampling="segments", stride=1)
    assert frame_gap([slow], segments) == pytest.approx(5 / 5)  # 20 frames in 4 parts
    assert frame_gap([single], dense) == 0.0
    assert frame_gap([], dense) == 0.0
    # a video too short repeats its last frame, or starts over: neither is a step of the camera
    for beyond in ("clamp", "wrap"):
        short = replace(dense, frames=32, beyond=cast(Any, beyond))
        assert frame_gap([slow], short) == pytest.approx(2 / 5)


def test_the_gap_of_files_that_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    good = film(tmp_path / "good.mp4", 20, 10)
    missing = Sample(str(tmp_path / "missing.mp4"), 0, "")
    samples = [Sample(str(broken), 0, ""), missing, good]
    assert frame_gap(samples, Card(frames=4, stride=1)) == pytest.approx(1 / 10)


def test_few_files_are_opened_for_the_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nonlocalnet import datasets

    opened: list[str] = []

    def opening(sample: Sample) -> Any:
        opened.append(sample.path)
        raise OSError

    monkeypatch.setattr(datasets, "open_sample", opening)
    frame_gap([Sample(str(i), 0, "") for i in range(1000)], Card())
    assert len(opened) == datasets.GAP_VIDEOS
    assert len(set(opened)) == len(opened)
    assert int(opened[-1]) > 900  # from all of the list


class Sums(nn.Module):
    """After each frame, the sum of the brightest values so far and the number of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.card = Card(mean=(0.0,) * 3, std=(1.0,) * 3)

    def forward(
        self, frame: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Any]:
        state = state or (torch.zeros(len(frame)), torch.zeros(len(frame)))
        total, count = state[0] + frame.amax((1, 2, 3)), state[1] + 1
        return torch.stack([total, count], 1), (total, count)


def test_frames_go_in_order_and_the_state_along() -> None:
    clips = torch.zeros(2, 3, 4, 5, 5, dtype=torch.uint8)
    clips[0, :, 1] = 51  # 0.2 of full brightness
    clips[1, :, 3] = 255
    found = score_frames(cast(Streaming, Sums()), clips)
    assert found.shape == (2, 4, 2)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([0, 0.2, 0.2, 0.2]))
    torch.testing.assert_close(found[1, :, 0], torch.tensor([0, 0, 0, 1.0]))
    torch.testing.assert_close(found[:, :, 1], torch.arange(1.0, 5).expand(2, 4))


def test_agreement_adds_up_over_videos() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 7, 3) * 5 + 2, torch.randn(6, 7, 3)
    parts = sum((Agreement.of(a, b) for a, b in zip(x, y, strict=True)), Agreement())
    wanted = (x - y).abs().max() / x.std(correction=0)
    assert parts.relative == pytest.approx(float(wanted), rel=1e-5)


def test_rules_of_frames_have_names() -> None:
    assert Rule(10, 3, framewise=True).name == "10 clips × 3 crops, frame by frame"
    assert Rule(1, 1, framewise=True) != Rule(1, 1)


def test_a_run_that_goes_on_keeps_its_gap() -> None:
    saved = {"plan": {"card": Card(gap=0.25).to_json()}}
    assert starting._gap(saved, Split((), (), ()), Card()) == 0.25

"""The test pass: three view rules at once, counted right, whatever the files are."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nonlocalnet.card import WHOLE, Card, card_of, set_card
from nonlocalnet.clips import test_views as indices_of
from nonlocalnet.errors import UserError
from nonlocalnet.evaluate import evaluate, match_classes, score_videos
from nonlocalnet.metrics import Result, Rule
from nonlocalnet.models import create_model
from nonlocalnet.prediction import predict
from nonlocalnet.samples import Action, Sample, Split
from nonlocalnet.scores import read_scores
from nonlocalnet.scoring import load
from nonlocalnet.video import Video, write_video

SIDE, CARD = 16, Card(frames=2, stride=1, short_side=16, crop=16, test_crop=16, clips=4, crops=3)


class Brightness(nn.Module):
    """Two classes from a clip's mean brightness b in 0..1: logits (g (b - 1/2), 0)."""

    def __init__(self, card: Card, gain: float = 40.0) -> None:
        super().__init__()
        self.gain = gain
        set_card(
            self, dataclasses.replace(card, classes=("bright", "dark"), mean=(0,) * 3, std=(1,) * 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        b = self.gain * (x.mean((1, 2, 3, 4)) - 0.5)
        return torch.stack([b, torch.zeros_like(b)], 1)


def film(path: Path, pixels: Tensor) -> str:
    """A video from brightness (T, H, W) in 0..255."""
    write_video(path, pixels[..., None].expand(-1, -1, -1, 3).to(torch.uint8).contiguous())
    return str(path)


def flat(*levels: int, width: int = SIDE) -> Tensor:
    """Frames of one brightness each (T, SIDE, width)."""
    return torch.tensor(levels).view(-1, 1, 1).expand(-1, SIDE, width)


@pytest.fixture
def videos(tmp_path: Path) -> list[Sample]:
    """Videos whose views differ in a known way under `CARD` (2 frames per clip)."""
    dark, bright = 20, 230
    # bright in the middle only: the centre clip is wrong for "dark", all clips together right
    middle = flat(*[dark] * 7, *[bright] * 2, *[dark] * 7)
    # a bright side in a wide frame: the centre crop is right for "dark", three crops are too
    sides = flat(*[dark] * 8, width=3 * SIDE).clone()
    sides[..., :SIDE] = 150
    made = [
        (film(tmp_path / "middle.mp4", middle), 1),
        (film(tmp_path / "sides.mp4", sides), 1),
        (film(tmp_path / "bright.mp4", flat(*[bright] * 9)), 0),
        (film(tmp_path / "wrong.mp4", flat(*[dark] * 9)), 0),
    ]
    return [Sample(path, label, path) for path, label in made]


def by_hand(path: str, card: Card, clips: int, crops: int) -> float:
    """The score of "bright", straight from the definition."""
    with Video(path) as video:
        frames = video.frames(range(len(video))).float().mean(-1) / 255  # (T, H, W)
    width = frames.shape[-1]
    lefts = [(width - SIDE) // 2] if crops == 1 else [0, (width - SIDE) // 2, width - SIDE]
    scores = [
        torch.sigmoid(40.0 * (frames[rows][..., left : left + SIDE].mean() - 0.5))
        for rows in indices_of(len(frames), card, clips)
        for left in lefts
    ]
    return float(torch.stack(scores).mean())


@pytest.mark.parametrize("clips", [4, 3])
def test_three_rules_against_the_definition(videos: list[Sample], clips: int) -> None:
    result = evaluate(Brightness(CARD), videos, clips=clips, crops=3)
    assert result.rules == (Rule(1, 1), Rule(clips, 1), Rule(clips, 3))
    for video in result.videos:
        for rule, seen in zip(result.rules, video.outcomes, strict=True):
            bright = by_hand(video.path, CARD, rule.clips, rule.crops)
            assert seen.truth == pytest.approx(bright if video.label == 0 else 1 - bright, abs=2e-3)
            assert seen.scores == pytest.approx(sorted([bright, 1 - bright])[::-1], abs=2e-3)
    answers = [[v.outcomes[i].rank == 0 for v in result.videos] for i in range(3)]
    assert answers[0] == [False, True, True, False]  # the centre clip of "middle" misleads
    assert answers[1] == [True, True, True, False]
    assert [result.accuracy(i).hits for i in range(3)] == [2, 3, sum(answers[2])]


def test_rules_that_coincide_appear_once(videos: list[Sample]) -> None:
    model = Brightness(CARD)
    assert evaluate(model, videos, clips=1, crops=1).rules == (Rule(1, 1),)
    assert evaluate(model, videos, clips=2, crops=1).rules == (Rule(1, 1), Rule(2, 1))
    assert evaluate(model, videos, clips=1, crops=3).rules == (Rule(1, 1), Rule(1, 3))
    assert evaluate(model, videos).rules[-1] == Rule(4, 3)  # the card's


@pytest.mark.parametrize("sampling", ["dense", "segments"])
@pytest.mark.parametrize("clips", [1, 3, 4])
def test_predict_gives_the_same_scores(videos: list[Sample], sampling: str, clips: int) -> None:
    model = network()
    set_card(model, dataclasses.replace(card_of(model), sampling=sampling))
    result = evaluate(model, videos, clips=clips, crops=3, workers=2)
    # 1 x 1 is cut out of 1 x 3 here, so it is equal but for rounding
    for rule in (0, -1) if clips > 1 else (-1,):
        views = result.rules[rule]
        said = predict(model, [v.path for v in videos], clips=views.clips, crops=views.crops, top=6)
        for video, prediction in zip(result.videos, said, strict=True):
            seen = video.outcomes[rule]
            assert prediction.path == video.path
            assert prediction.scores[: len(seen.scores)] == seen.scores  # to the last bit
            assert prediction.labels[:5] == tuple(f"class {k}" for k in seen.top)
            assert prediction.labels[seen.rank] == f"class {video.label}"
            assert prediction.scores[seen.rank] == seen.truth


def network() -> nn.Module:
    torch.manual_seed(0)
    model = create_model("i3d_tiny", num_classes=6, non_local=1)
    set_card(
        model,
        dataclasses.replace(
            card_of(model), frames=4, short_side=SIDE, test_crop=SIDE, clips=2, crops=3
        ),
    )
    return model


def test_workers_and_order_change_nothing(videos: list[Sample]) -> None:
    model = network()
    first = evaluate(model, videos)
    again = evaluate(model, videos[::-1], workers=2)
    assert first.videos == again.videos[::-1]


def test_groups_come_from_the_same_answers(videos: list[Sample]) -> None:
    groups = {"initial": lambda name: name[0], "any": lambda name: "all"}
    result = evaluate(Brightness(CARD), videos, groups=groups)
    assert result.groups == {"initial": ("b", "d"), "any": ("all", "all")}
    assert result.group_accuracy() == {
        "initial": result.accuracy(),
        "any": dataclasses.replace(result.accuracy(), hits=result.count),
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_are_skipped_and_counted(
    videos: list[Sample], tmp_path: Path, workers: int
) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("<html>not a video</html>")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    gone = tmp_path / "gone.mp4"
    bad = [Sample(str(path), 0, "x") for path in (text, empty, gone)]
    mixed = [bad[0], *videos[:2], bad[1], bad[2], *videos[2:]]
    model = Brightness(CARD)
    result = evaluate(model, mixed, workers=workers)
    assert result.videos == evaluate(model, videos).videos
    assert [s.path for s in result.skipped] == [s.path for s in bad]
    assert all(s.reason and "\n" not in s.reason for s in result.skipped)
    assert result.obtained["Videos"].startswith("4 of 7")
    with pytest.raises(UserError, match=r"none of the 3 videos.*text\.mp4"):
        evaluate(model, bad, workers=workers)


def test_bad_calls(videos: list[Sample]) -> None:
    model = Brightness(CARD)
    with pytest.raises(UserError, match="no videos"):
        evaluate(model, [])
    with pytest.raises(UserError, match="label 2"):
        evaluate(model, [*videos, Sample("x.mp4", 2, "x")])
    with pytest.raises(UserError, match="several labels"):
        evaluate(model, [Sample(videos[0].path, -1, "x", actions=(Action(0), Action(1)))])
    set_card(model, dataclasses.replace(card_of(model), classes=("a", "b", "c")))
    with pytest.raises(UserError, match=r"2 scores.*3 classes"):
        evaluate(model, videos)
    set_card(model, dataclasses.replace(card_of(model), classes=()))
    with pytest.raises(UserError, match="no classes"):
        evaluate(model, videos)
    with pytest.raises(UserError, match="no card"):
        evaluate(nn.Flatten(), videos)


def test_match_classes() -> None:
    card = Card(classes=("run", "sit", "walk"))
    samples = [Sample("a", 0, ""), Sample("b", 1, ""), Sample("c", 1, "")]
    matched = match_classes(samples, ("sit", "run"), card)
    assert [s.label for s in matched] == [1, 0, 0]
    assert [s.path for s in matched] == ["a", "b", "c"]
    with pytest.raises(UserError, match=r"jump.*run, sit, walk"):
        match_classes(samples, ("sit", "jump"), card)
    with pytest.raises(UserError, match="class 3"):
        match_classes([Sample("d", 3, "")], tuple(f"class {i}" for i in range(4)), card)
    numbered = [Sample("a", 2, ""), Sample("b", -1, "", actions=(Action(1),))]
    assert match_classes(numbered, ("class 0", "class 1", "class 2"), card) == numbered
    spoken = Card(classes=("massaging person's head", "run"))
    assert match_classes(samples[:1], ("Massaging_persons_head",), spoken)[0].label == 0
    # a class without any video does no harm
    assert match_classes(samples[:1], ("sit", "jump"), card) == [Sample("a", 1, "")]


def test_says_how_it_was_obtained(videos: list[Sample]) -> None:
    model = network()
    result = evaluate(model, videos)
    obtained = result.obtained
    assert obtained["Network"] == "i3d_tiny"
    assert "non_local" in obtained["Options"]
    assert obtained["Parameters"] == f"{sum(p.numel() for p in model.parameters()):,}"
    assert obtained["Views"].startswith("6 per video: 2 clips × 3 crops")
    assert "4 frames" in obtained["Input"]
    assert torch.__version__ in obtained["Versions"]
    assert "cpu" in obtained["Device"]
    assert Result.from_json(result.to_json()) == result


def test_progress_goes_to_standard_error(
    videos: list[Sample], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(Brightness(CARD), videos, progress=True)
    told = capsys.readouterr()
    assert told.out == ""
    assert "4/4" in told.err
    assert "videos/s" in told.err
    evaluate(Brightness(CARD), videos)
    assert capsys.readouterr().err == ""


def test_memory_does_not_grow_with_the_number_of_videos(videos: list[Sample]) -> None:
    """Items are read one after the other, not all before the first is scored."""
    read: list[int] = []

    class Items:
        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> int:
            read.append(index)
            return index

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        items = load(Items())
        assert [next(items) for _ in range(3)] == [0, 1, 2]
    assert len(read) <= 4


def test_the_whole_frame(videos: list[Sample]) -> None:
    """The paper's fully-convolutional test: the brightness of all of a wide frame counts."""
    result = evaluate(Brightness(CARD), videos, clips=2, crops=WHOLE)
    assert result.rules == (Rule(1, 1), Rule(2, WHOLE))
    assert result.rules[-1].name == "2 clips × the whole frame"
    assert result.rules[-1].views == 2
    with Video(videos[1].path) as video:
        mean = float(video.frames([0, 1]).float().mean()) / 255
    wide = result.videos[1].outcomes[-1]
    bright = float(torch.sigmoid(torch.tensor(40.0 * (mean - 0.5))))
    assert wide.truth == pytest.approx(1 - bright, abs=2e-3)


def test_several_labels(videos: list[Sample]) -> None:
    model = Brightness(dataclasses.replace(CARD, activation="sigmoid"))
    several = [
        dataclasses.replace(v, label=-1, actions=(Action(v.label), Action(1))) for v in videos
    ]
    scores = score_videos(model, several, clips=2, crops=1)
    assert scores.several
    assert scores.activation == "sigmoid"
    torch.testing.assert_close(scores.values[..., 1], torch.full((2, 4), 0.5))  # logit 0
    assert scores.tags().counts == (2, 4)
    with pytest.raises(UserError, match="label 2"):
        score_videos(model, [dataclasses.replace(several[0], actions=(Action(2),))])


SHARE = """
import sys
import torch
from nonlocalnet.evaluate import score_videos
from nonlocalnet.processes import rank
sys.path.insert(0, {tests!r})
from test_evaluate import network
from nonlocalnet.samples import Split
split = Split.from_json(open({split!r}).read())
scores = score_videos(network(), split.val)
if not rank():
    scores.save(__import__("pathlib").Path({out!r}))
"""


@pytest.mark.slow
def test_two_processes_find_what_one_finds(videos: list[Sample], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    samples = (*videos[:2], Sample(str(broken), 0, "x"), *videos[2:])
    one = score_videos(network(), samples)
    (tmp_path / "split.json").write_text(Split(("a",) * 6, (), samples).to_json())
    tests, out = str(Path(__file__).parent), tmp_path / "scores.npz"
    script = tmp_path / "share.py"
    script.write_text(SHARE.format(tests=tests, split=str(tmp_path / "split.json"), out=str(out)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        command += ["--master-addr=127.0.0.1", f"--master-port={free.getsockname()[1]}"]
    command.append(str(script))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    two = read_scores(out)
    assert torch.equal(two.values, one.values)
    assert two.samples == one.samples
    assert two.skipped == one.skipped

"""Scores in files and fused: what is written is read, and fusion is the mean it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nonlocalnet.cli import main
from nonlocalnet.errors import UserError
from nonlocalnet.metrics import Rule, Skipped
from nonlocalnet.precision import mean_average_precision
from nonlocalnet.samples import Action, Sample
from nonlocalnet.scores import Scores, fuse, read_scores

CLASSES = ("run", "sit", "walk")
RULES = (Rule(1, 1), Rule(10, 3))


def scores(seed: int, names: str = "abcdef", folder: str = "rgb", rules=RULES) -> Scores:
    random = torch.Generator().manual_seed(seed)
    values = torch.rand(len(rules), len(names), 3, generator=random).softmax(-1)
    samples = tuple(Sample(f"/{folder}/{name}.mp4", i % 3, name) for i, name in enumerate(names))
    return Scores(
        CLASSES, rules, samples, values, skipped=(Skipped("x", "gone"),), obtained={"a": "b"}
    )


def tagged(seed: int) -> Scores:
    random = torch.Generator().manual_seed(seed)
    actions = [(Action(0, 1.0, 2.0), Action(2)), (Action(1),), (), (Action(0),)]
    samples = tuple(Sample(f"/v/{i}.mp4", -1, str(i), actions=a) for i, a in enumerate(actions))
    return Scores(CLASSES, RULES, samples, torch.rand(2, 4, 3, generator=random), "sigmoid")


@pytest.mark.parametrize("made", [scores(0), tagged(0)])
def test_what_is_saved_is_read(tmp_path: Path, made: Scores) -> None:
    made.save(tmp_path / "new" / "s.npz")
    again = read_scores(tmp_path / "new" / "s.npz")
    assert torch.equal(again.values, made.values)
    for name in ("classes", "rules", "samples", "activation", "skipped"):
        assert getattr(again, name) == getattr(made, name)
    assert dict(again.obtained) == dict(made.obtained)
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "s.npz"]


def test_figures_of_several_labels() -> None:
    made = tagged(1)
    result = made.tags()
    truth = [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]]
    for i in range(2):
        assert result.mean(i) == pytest.approx(mean_average_precision(made.values[i], truth))
    assert result.counts == (2, 1, 1)
    assert result.videos == 4
    assert result.guess() == pytest.approx((2 + 1 + 1) / 3 / 4)
    assert json.loads(result.to_json())["mean_average_precision"][1]["name"] == "10 clips × 3 crops"


def test_a_part_has_the_labels_of_its_seconds() -> None:
    """In a test as in a validation: actions before and after the part that is meant are not its."""
    actions = (Action(0, 0.0, 2.0), Action(1, 5.0, 6.0), Action(2))
    parts = ((0.0, 3.0), (3.0, 4.0), (4.0, 9.0))
    samples = tuple(Sample("/v.mp4", -1, "v", a, b, actions) for a, b in parts)
    result = Scores(CLASSES, RULES[:1], samples, torch.rand(1, 3, 3), "sigmoid").tags()
    assert result.counts == (1, 1, 3)


def test_fusion_is_the_weighted_mean() -> None:
    one, other = scores(1), scores(2)
    fused = fuse([one, other], [3, 1])
    torch.testing.assert_close(fused.values, 0.75 * one.values + 0.25 * other.values)
    assert fused.rules == RULES
    assert fused.samples == one.samples
    equal = fuse([one, other, one])
    torch.testing.assert_close(equal.values, (2 * one.values + other.values) / 3)
    assert fused.result().count == 6


def test_streams_with_files_of_their_own_meet_by_name() -> None:
    rgb = scores(1)
    flow = scores(2, names="fcabzd", folder="flow", rules=(Rule(2, 1),))
    # the same labels by name, whatever the order
    labels = {s.source: s.label for s in rgb.samples}
    samples = tuple(Sample(s.path, labels.get(s.source, 0), s.source) for s in flow.samples)
    flow = Scores(CLASSES, flow.rules, samples, flow.values)
    fused = fuse([rgb, flow])
    assert [s.path for s in fused.samples] == [f"/rgb/{name}.mp4" for name in "abcdf"]
    assert fused.rules == (Rule(10, 3),)
    assert fused.obtained["Views"] == "10 clips × 3 crops, 2 clips"
    torch.testing.assert_close(fused.values[0, 0], (rgb.values[1, 0] + flow.values[0, 2]) / 2)
    torch.testing.assert_close(fused.values[0, 4], (rgb.values[1, 5] + flow.values[0, 0]) / 2)


def test_parts_of_one_file_are_videos_of_their_own() -> None:
    def cut(made: Scores, folder: str) -> Scores:
        samples = [
            Sample(f"/{folder}/long.mp4", s.label, "long", float(i), i + 1.0)
            for i, s in enumerate(made.samples)
        ]
        return replace(made, samples=tuple(samples))

    one, other = cut(scores(1), "rgb"), cut(scores(2), "flow")
    for second in (other, replace(other, samples=one.samples)):
        fused = fuse([one, second])
        assert fused.samples == one.samples
        torch.testing.assert_close(fused.values, (one.values + other.values) / 2)


def test_classes_in_another_order_and_a_csv_without_labels(tmp_path: Path) -> None:
    rgb = scores(1, names="ab")
    (tmp_path / "sound.csv").write_text(
        "path,walk,run,sit\nsome/where/b.wav,0.5,0.2,0.3\nsome/where/a.wav,0.1,0.8,0.1\n"
    )
    sound = read_scores(tmp_path / "sound.csv")
    for parts in ([rgb, sound], [sound, rgb]):
        fused = fuse(parts)
        both = dict(zip([s.source for s in fused.samples], fused.values[0], strict=True))
        want = (rgb.values[1, 0] + torch.tensor([0.8, 0.1, 0.1])) / 2
        torch.testing.assert_close(both["a"], want)
        assert fused.result().count == 2
    with pytest.raises(UserError, match="none of the files has labels"):
        fuse([sound, sound])


def test_what_cannot_be_fused() -> None:
    one = scores(1)
    with pytest.raises(UserError, match="two tests at least"):
        fuse([one])
    with pytest.raises(UserError, match="2 files take 2 weights, not 3"):
        fuse([one, one], [1, 2, 3])
    for weights in ([0, 0], [-1, 1], [float("nan"), 1]):
        with pytest.raises(UserError, match="weights are numbers from 0 on"):
            fuse([one, one], weights)
    with pytest.raises(UserError, match="no video in common"):
        fuse([one, scores(1, names="uvw")])
    other = Scores(("run", "sit", "jump"), RULES, one.samples, one.values)
    with pytest.raises(UserError, match="jump, walk"):
        fuse([one, other])
    moved = tuple(Sample(s.path, (s.label + 1) % 3, s.source) for s in one.samples)
    with pytest.raises(UserError, match="one video with different labels"):
        fuse([one, Scores(CLASSES, RULES, moved, one.values)])


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.npz", b"", "holds no scores"),
        ("a.npz", b"PK\x03\x04 damaged", "holds no scores"),
        ("a.csv", b"", "expected a first line"),
        ("a.csv", b"path,a,b\n", "expected a first line"),
        ("a.csv", b"file,a,b\nx,1,2\n", "expected a first line"),
        ("a.csv", b"path,a,b\nx,1,2\ny,1\n", "line 3: expected a path and 2 numbers"),
        ("a.csv", b"path,a,b\nx,1,two\n", "line 2: expected a path and 2 numbers"),
        ("a.csv", b"path,a,b\nx,1,nan\n", "line 2: a score is not finite"),
    ],
)
def test_files_that_hold_no_scores(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=match):
        read_scores(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        read_scores(tmp_path / "missing.npz")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", scores=np.array([{}], dtype=object), about=np.zeros(1))
    with pytest.raises(UserError, match="holds no scores"):
        read_scores(tmp_path / "evil.npz")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = scores(1), scores(2, names="abcde")
    one.save(tmp_path / "one.npz")
    other.save(tmp_path / "other.npz")
    files = [str(tmp_path / f"{name}.npz") for name in ("one", "other")]
    out = tmp_path / "fused.html"
    assert main(["fuse", *files, "--weights", "1", "0.5", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1 scores of videos that not every file has were left out" in printed
    assert "5 videos" in printed
    kept = read_scores(tmp_path / "fused.npz")
    want = (one.values[:, :5] + 0.5 * other.values) / 1.5
    torch.testing.assert_close(kept.values, want)
    assert "Fusion" in out.read_text()
    assert main(["fuse", files[0]]) == 2
    assert main(["fuse", files[0], str(tmp_path / "no.npz"), "-o", str(out)]) == 1

    tagged(0).save(tmp_path / "tags.npz")
    assert main(["fuse", *[str(tmp_path / "tags.npz")] * 2, "-o", str(out)]) == 0
    assert "mean average precision" in capsys.readouterr().out
    assert "mean average precision of 3 classes on 4 videos" in out.read_text()

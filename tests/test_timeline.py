"""Moments in, a timeline out: what is told, its segments, and every file that holds them."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from nonlocalnet.calibration import Calibration
from nonlocalnet.card import Card
from nonlocalnet.errors import UserError
from nonlocalnet.moments import Moment
from nonlocalnet.palette import colour_of
from nonlocalnet.picture.timeline import Drawn, compose_timeline
from nonlocalnet.scoring import aggregate
from nonlocalnet.smoothing import NONE, Exponential, Hysteresis, WindowMean
from nonlocalnet.timeline import (
    Outputs,
    Recorder,
    Segment,
    Telling,
    Timeline,
    Told,
    read_timeline,
)
from nonlocalnet.timeline.segments import Segments
from nonlocalnet.timeline.writers import clock, srt_time

CLASSES = ("run", "sit, down", 'wälk "fast"')
ONLINE = Telling(CLASSES, windowed=False)


def logits(*labels: int, sure: float = 4.0) -> list[Tensor]:
    """Those of a network that says these classes; `NONE`: that says nothing clearly."""
    rows = [torch.zeros(3) for _ in labels]
    for row, label in zip(rows, labels, strict=True):
        if label != NONE:
            row[label] = sure
    return rows


def moments(*labels: int, gap: float = 1.0, window: float = 0.0, **options) -> list[Moment]:
    return [
        Moment(window + i * gap, i * gap if window else 0.0, row, fresh=i == 0)
        for i, row in enumerate(logits(*labels, **options))
    ]


def tell(telling: Telling, these: list[Moment]) -> list[Told]:
    state, out = telling.start(), []
    for moment in these:
        told, state = telling.step(moment, state)
        out.append(told)
    return out


def segments(telling: Telling, these: list[Moment], shortest: float = 0.0) -> list[Segment]:
    growing, found = Segments(telling, shortest), []
    for told in tell(telling, these):
        found += growing.add(told)
    return found + growing.finish()


def spans(found: list[Segment]) -> list[tuple[float, float, int]]:
    return [(s.start, s.end, s.label) for s in found]


# --- what is told -------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["softmax", "logits"])
def test_scores_are_those_of_views_by_the_card(rule) -> None:
    """A mean over all moments is what `aggregate` makes of them as views."""
    card = Card(classes=CLASSES, aggregate=rule)
    random = torch.Generator().manual_seed(0)
    rows = [torch.randn(3, generator=random) for _ in range(7)]
    telling = Telling.of(card, False, WindowMean(50), Hysteresis())
    told = tell(telling, [Moment(i, 0.0, row, fresh=i == 0) for i, row in enumerate(rows)])
    torch.testing.assert_close(told[-1].scores.float(), aggregate(torch.stack(rows), card))
    torch.testing.assert_close(told[0].scores.float(), rows[0].softmax(-1))


def test_a_temperature_divides_logits() -> None:
    telling = Telling.of(
        Card(classes=CLASSES),
        False,
        WindowMean(),
        Hysteresis(),
        Calibration(CLASSES, 2.0, (0.3,), ()),
    )
    row = torch.tensor([1.0, 3.0, -2.0])
    told = tell(telling, [Moment(0, 0, row, fresh=True)])[0]
    torch.testing.assert_close(told.scores.float(), (row / 2).softmax(-1))
    assert telling.thresholds == (0.3,)


def test_below_the_threshold_is_none_of_these() -> None:
    found = tell(replace(ONLINE, thresholds=(0.5,)), moments(1, NONE, 2))
    assert [told.labels for told in found] == [(1,), (), (2,)]
    assert [told.best for told in found] == [1, NONE, 2]
    assert found[1].score == pytest.approx(1 / 3)
    # a score that is just the threshold is enough
    assert tell(replace(ONLINE, thresholds=(1 / 3,)), moments(NONE))[0].labels == (0,)


def test_several_labels_at_once_each_by_its_threshold() -> None:
    telling = replace(ONLINE, activation="sigmoid", thresholds=(0.5, 0.9, 0.1))
    row = torch.tensor([0.1, 2.0, -2.0])  # sigmoids 0.52, 0.88, 0.12
    told = tell(telling, [Moment(0, 0, row, fresh=True)])[0]
    assert told.labels == (0, 2)
    assert told.best == 0


def test_the_time_it_tells_of() -> None:
    """Half a window back, and back by the same mean as the scores."""
    windows = replace(ONLINE, windowed=True)
    assert [t.about for t in tell(windows, moments(0, 0, 0, window=4.0))] == [2.0, 3.0, 4.0]
    mean = replace(ONLINE, smoothing=WindowMean(3))
    assert [t.about for t in tell(mean, moments(0, 0, 0, 0))] == [0.0, 0.5, 1.0, 2.0]


def test_a_break_begins_anew() -> None:
    telling = replace(ONLINE, smoothing=WindowMean(10), hysteresis=Hysteresis(2))
    broken = [*moments(0, 0, 0), Moment(50.0, 50.0, logits(2)[0], fresh=True)]
    told = tell(telling, broken)[-1]
    assert told.labels == (2,)  # at once: without the break one answer would change nothing
    assert tell(telling, [*broken[:3], replace(broken[3], fresh=False)])[-1].labels == (0,)
    assert torch.equal(told.scores, tell(telling, [broken[-1]])[0].scores)
    assert spans(segments(ONLINE, broken)) == [(0.0, 2.0, 0)]  # one moment takes no time


def test_what_no_class_could_reach_is_refused() -> None:
    for options in ({"thresholds": (0.1, 0.2)}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="threshold"):
            replace(ONLINE, **options)


# --- segments -----------------------------------------------------------------------------------


def test_segments_by_hand() -> None:
    found = segments(ONLINE, moments(0, 0, 1, 1, 1, 2))
    assert spans(found) == [(0.0, 1.5, 0), (1.5, 4.5, 1), (4.5, 5.0, 2)]
    assert [s.moments for s in found] == [2, 3, 1]
    sure = float(torch.tensor([4.0, 0, 0]).softmax(-1)[0])
    assert [s.score for s in found] == pytest.approx([sure] * 3)


def test_mean_and_top_score() -> None:
    rows = [torch.tensor([x, 0.0, 0.0]) for x in (1.0, 3.0, 2.0)]
    found = segments(ONLINE, [Moment(i, 0, row, fresh=i == 0) for i, row in enumerate(rows)])
    scores = [float(row.softmax(-1)[0]) for row in rows]
    assert found[0].score == pytest.approx(sum(scores) / 3)
    assert found[0].top == pytest.approx(scores[1])


@pytest.mark.parametrize("agree", [1, 2, 3])
@pytest.mark.parametrize("smoothing", [WindowMean(1), WindowMean(5), Exponential(2.0)])
def test_an_edge_lies_where_the_evidence_begins(smoothing, agree) -> None:
    """However late an answer is told; to half an answer where weights fade between two of them."""
    telling = replace(ONLINE, smoothing=smoothing, hysteresis=Hysteresis(agree))
    found = segments(telling, moments(*[0] * 20, *[1] * 20))
    assert [s.label for s in found] == [0, 1]
    assert found[0].end == pytest.approx(
        19.5, abs=0.51 if isinstance(smoothing, Exponential) else 0.01
    )


def test_the_edges_of_windows_are_their_middles() -> None:
    """A window of 4 s says the class that fills most of it: the change at 10 s is found there."""
    these = []
    for end in np.arange(4.0, 20.25, 0.25):
        share = min(max((end - 10) / 4, 0), 1)  # of the window after the change
        row = torch.tensor([1 - share, share, 0.0]) * 9
        these.append(Moment(float(end), float(end) - 4, row, fresh=end == 4))
    found = segments(replace(ONLINE, windowed=True), these)
    assert found[0].end == pytest.approx(10, abs=0.13)
    assert (found[0].start, found[-1].end) == (0.0, 20.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-1, 2), min_size=1, max_size=40),
    st.integers(1, 3),
    st.sampled_from([0.0, 1.5, 3.2]),
    st.integers(1, 4),
)
def test_segments_tile_the_time(labels: list[int], agree: int, shortest: float, mean: int) -> None:
    telling = replace(
        ONLINE, thresholds=(0.5,), hysteresis=Hysteresis(agree), smoothing=WindowMean(mean)
    )
    these = moments(*labels)
    found = segments(telling, these, shortest)
    if len(labels) == 1:
        assert not found
        return
    assert (found[0].start, found[-1].end) == (0.0, len(labels) - 1.0)
    for one, other in pairwise(found):
        assert one.end == other.start
        assert one.label != other.label
    assert all(s.seconds > 0 for s in found)
    assert len(found) == 1 or all(s.seconds >= shortest - 1e-9 for s in found)
    if not shortest:
        assert sum(s.moments for s in found) == len(labels)


def test_short_segments_go_to_their_neighbours() -> None:
    these = moments(0, 0, 0, 0, 1, 0, 0, 0, 2, 2, 2, 2)
    assert spans(segments(ONLINE, these, 2.0)) == [(0.0, 7.5, 0), (7.5, 11.0, 2)]
    assert spans(segments(ONLINE, moments(1, 0, 0, 0, 0), 2.0)) == [(0.0, 4.0, 0)]


def test_tracks_of_several_labels() -> None:
    telling = replace(ONLINE, activation="sigmoid", thresholds=(0.5,))
    rows = [(1, -1, -1), (1, 1, -1), (-1, 1, -1), (-1, -1, -1), (-1, -1, -1)]
    these = [Moment(i, 0, torch.tensor(r) * 3.0, fresh=i == 0) for i, r in enumerate(rows)]
    assert spans(segments(telling, these)) == [(0.0, 1.5, 0), (0.5, 2.5, 1)]


# --- files --------------------------------------------------------------------------------------


def outputs(folder: Path) -> Outputs:
    return Outputs(*(folder / f"a{suffix}" for suffix in (".csv", ".json", ".srt", ".mp4", ".npy")))


def picture(i: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), (i * 8) % 256, np.uint8)


def record(folder: Path, labels: list[int], stop: BaseException | None = None, **options) -> None:
    telling = replace(ONLINE, thresholds=(0.5,))
    with Recorder(telling, outputs(folder), {"source": "a.mp4"}, rate=4, **options) as recorder:
        for i, moment in enumerate(moments(*labels, gap=0.25)):
            recorder.see(picture(i), moment.seconds)
            features = torch.tensor([i, -i], dtype=torch.float32)
            recorder.add(replace(moment, features=features))
        if stop is not None:
            raise stop


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timeline")
    record(folder, [0] * 6 + [1] * 4 + [NONE] * 5 + [2] * 6)
    return folder


def test_nothing_else_is_left(written: Path) -> None:
    names = sorted(path.name for path in written.iterdir())
    assert names == ["a.csv", "a.json", "a.mp4", "a.npy", "a.seconds.npy", "a.srt"]


def test_the_rows(written: Path) -> None:
    with (written / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 21
    assert list(rows[0]) == ["seconds", "about", "label", "score", *CLASSES]
    assert [row["label"] for row in rows] == ["run"] * 6 + ["sit, down"] * 4 + [""] * 5 + [
        'wälk "fast"'
    ] * 6
    for i, row in enumerate(rows):
        assert float(row["seconds"]) == float(row["about"]) == i / 4
        assert sum(float(row[name]) for name in CLASSES) == pytest.approx(1, abs=1e-5)


def test_the_segments_are_read_again(written: Path) -> None:
    again = read_timeline(written / "a.json")
    expected = segments(
        replace(ONLINE, thresholds=(0.5,)),
        moments(*[0] * 6 + [1] * 4 + [NONE] * 5 + [2] * 6, gap=0.25),
    )
    assert again.classes == CLASSES
    assert spans(again.segments) == spans(expected)  # no more than thousandths
    assert [s.score for s in again.segments] == pytest.approx(
        [s.score for s in expected], abs=1e-6, nan_ok=True
    )
    assert again.facts["source"] == "a.mp4"
    assert (again.facts["seconds"], again.facts["moments"]) == (5.0, 21)
    assert again.facts["ended"] == "where the feed ended"
    assert math.isnan(again.segments[2].score)


def test_other_json_is_no_timeline(tmp_path: Path) -> None:
    for text in ("", "[]", '{"classes": ["a"]}', '{"classes": ["a"], "segments": [{"start": 1}]}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match="is no timeline"):
            read_timeline(tmp_path / "x.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_timeline(tmp_path / "none.json")


def test_players_read_the_subtitles(written: Path) -> None:
    assert (
        (written / "a.srt")
        .read_text("utf-8")
        .startswith("1\n00:00:00,000 --> 00:00:01,375\nrun 96 %\n\n2\n00:00:01,375 --> ")
    )
    with av.open(str(written / "a.srt")) as container:
        stream = container.streams.subtitles[0]
        shown = [
            (p.pts, p.pts + p.duration, bytes(p).decode()) for p in container.demux() if p.size
        ]
        assert stream.time_base is not None
    assert [(a, b) for a, b, _ in shown] == [(0, 1375), (1375, 2375), (3625, 5000)]
    assert shown[2][2].startswith('wälk "fast" ')


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00:00,000"), (3723.5, "01:02:03,500"), (59.9996, "00:01:00,000"),
     (86399.999, "23:59:59,999"), (360000, "100:00:00,000"), (-1, "00:00:00,000")],
)  # fmt: skip
def test_times_of_subtitles(seconds: float, text: str) -> None:
    assert srt_time(seconds) == text


def test_times_in_words() -> None:
    assert [clock(0), clock(3725), clock(3723.46, 1)] == ["0:00:00", "1:02:05", "1:02:03.5"]


def test_features_of_every_second(written: Path) -> None:
    features, seconds = np.load(written / "a.npy"), np.load(written / "a.seconds.npy")
    assert (features.dtype, features.shape) == (np.float32, (6, 2))
    assert seconds.tolist() == [0, 1, 2, 3, 4, 5]
    means = [1.5, 5.5, 9.5, 13.5, 17.5, 20]
    np.testing.assert_array_equal(features, [[m, -m] for m in means])


def test_the_annotated_video(written: Path) -> None:
    with av.open(str(written / "a.mp4")) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
    assert [float(f.pts * stream.time_base) for f in frames] == [i / 4 for i in range(21)]
    shots = [f.to_ndarray(format="rgb24") for f in frames]
    assert shots[0].shape[1] == 320  # five times 64
    assert shots[0].shape[0] >= 240
    for i in (3, 20):  # the picture is still there, the band below it tells something
        assert abs(shots[i][:200].astype(int) - (i * 8) % 256).max() < 12
        assert shots[i][240:].std() > 10
    # blue for the first class, orange for the second, in the bar of the score
    bar = [shot[240 + 22 : 240 + 24, 8:100].reshape(-1, 3).mean(0) for shot in (shots[4], shots[9])]
    assert bar[0][2] > bar[0][0] + 50
    assert bar[1][0] > bar[1][2] + 50
    # the strip: a minute is 304 pixels, and now is at its right
    strip = shots[20][240 + 34 : 240 + 38].mean(0)
    assert strip[292:295, 2].min() > strip[292:295, 0].max() + 50
    assert strip[310:313, 1].min() > strip[310:313, 0].max() + 50


def test_sound_is_copied(tmp_path: Path) -> None:
    """The packets are those of the source, and as long as the video."""
    source = tmp_path / "loud.mp4"
    with av.open(str(source), "w") as out:
        video, audio = out.add_stream("libx264", rate=4), out.add_stream("aac", rate=8000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for i in range(20):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        noise = np.random.default_rng(0).normal(0, 0.1, (1, 8000 * 5)).astype(np.float32)
        sound = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        sound.sample_rate = 8000
        out.mux(audio.encode(sound))
        out.mux([*video.encode(None), *audio.encode(None)])
    record(tmp_path, [0] * 12, sound=source)
    with av.open(str(source)) as one, av.open(str(tmp_path / "a.mp4")) as other:
        old = [bytes(p) for p in one.demux(one.streams.audio[0]) if p.size]
        new = [
            (bytes(p), float(p.pts * p.time_base))
            for p in other.demux(other.streams.audio[0])
            if p.size
        ]
    assert [data for data, _ in new] == old[: len(new)]
    assert new[-1][1] == pytest.approx(2.75, abs=0.15)
    assert abs(new[0][1]) < 0.15


def test_other_sounds_are_left_out(tmp_path: Path) -> None:
    record(tmp_path, [0] * 4, sound=tmp_path / "missing.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), UserError("the camera is gone")])
def test_stopped_files_are_whole(tmp_path: Path, stop: BaseException) -> None:
    with pytest.raises(type(stop)):
        record(tmp_path, [0, 0, 0, 1, 1, 1], stop)
    again = read_timeline(tmp_path / "a.json")
    assert spans(again.segments) == [(0.0, 0.625, 0), (0.625, 1.25, 1)]
    assert again.facts["ended"] == ("stopped" if isinstance(stop, KeyboardInterrupt) else str(stop))
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 7
    assert len(list(tmp_path.iterdir())) == 6


def test_where_nothing_is_told_old_files_stay(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")
    with Recorder(ONLINE, outputs(tmp_path)) as recorder:
        recorder.see(picture(0), 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "old"


def test_places_that_cannot_be_written_are_told_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        Recorder(ONLINE, Outputs(csv=tmp_path / "file" / "a.csv"))


def test_the_picture(tmp_path: Path) -> None:
    """Each class told has a row with bars of its colour where it is told; so has none of them."""
    telling = replace(ONLINE, thresholds=(0.5,))
    drawn = Drawn(tmp_path / "a.png", telling, {"source": "/films/a.mp4", "network": "tsm"})
    with Recorder(telling, Outputs(json=tmp_path / "a.json"), also=[drawn]) as recorder:
        for moment in moments(0, 0, 0, 0, NONE, NONE, NONE, 1, 1):
            recorder.add(moment)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    spans = {}
    for label in (0, 1, NONE):
        alike = abs(pixels - colour_of(label)).max(-1) < 3
        rows = np.flatnonzero(alike.sum(1) > 50)
        spans[label] = [rows.min(), rows.max(), *np.flatnonzero(alike[rows[3]])[[0, -1]]]
    assert spans[0][1] < spans[1][0] < spans[1][1] < spans[NONE][0]  # rows below each other
    assert spans[0][3] < spans[NONE][2] + 3 < spans[NONE][3] < spans[1][2] + 3  # one after another
    lengths = [spans[label][3] - spans[label][2] for label in (0, NONE, 1)]
    assert np.array(lengths) / sum(lengths) == pytest.approx([3.5 / 8, 3 / 8, 1.5 / 8], abs=0.02)
    words = [t.get_text() for t in compose_timeline(read_timeline(tmp_path / "a.json")).texts]
    assert {"run", "sit, down", "none of these"} <= set(words)
    assert CLASSES[2] not in words


def test_no_picture_where_nothing_was_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"of before")
    with Recorder(ONLINE, Outputs(), also=[Drawn(tmp_path / "a.png", ONLINE, {})]):
        pass
    assert (tmp_path / "a.png").read_bytes() == b"of before"


def test_many_classes_are_those_told_for_longest() -> None:
    names = tuple(f"class {i}" for i in range(40))
    bars = tuple(Segment(i, i + 1 + i / 100, i, 0.9, 0.9, 1) for i in range(40))
    words = [t.get_text() for t in compose_timeline(Timeline(names, bars, {})).texts]
    assert "class 39" in words
    assert "class 3" not in words
    assert any("16 classes" in word for word in words)
    assert compose_timeline(Timeline(names, (), {})).texts  # nothing told is no error


KILLED = """
import sys, numpy, torch
from pathlib import Path
from nonlocalnet.moments import Moment
from nonlocalnet.timeline import Outputs, Recorder, Telling
folder = Path(sys.argv[1])
outputs = Outputs(*(folder / f"a{suffix}" for suffix in (".csv", ".json", ".srt", ".mp4", ".npy")))
with Recorder(Telling(("a", "b"), windowed=False), outputs, rate=10) as recorder:
    for i in range(10**9):
        row = torch.tensor([4.0, 0.0] if i // 50 % 2 else [0.0, 4.0])
        recorder.see(numpy.full((48, 64, 3), i % 256, numpy.uint8), i / 10)
        recorder.add(Moment(i / 10, 0.0, row, torch.ones(3), i == 0))
"""


def test_a_killed_writer_leaves_whole_lines(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size > 500 for p in tmp_path.glob(".a.json.*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = {path.name.split(".")[2]: path for path in tmp_path.iterdir()}
    assert all(path.name.startswith(".") for path in left.values())  # no unfinished file has a name
    lines = left["csv"].read_text().split("\n")
    assert lines[-1] == ""
    assert {line.count(",") for line in lines[:-1]} == {5}
    rows = left["json"].read_text().split('"segments": [\n')[1].split(",\n")
    assert all(json.loads(row)["moments"] == 50 for row in rows)
    arrays = [np.load(path) for path in tmp_path.iterdir() if ".npy." in path.name]
    assert len(arrays) == 2
    assert all(len(array) > 10 for array in arrays)
    film = next(path for path in tmp_path.iterdir() if ".mp4." in path.name)
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 50

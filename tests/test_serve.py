"""The web app without its page: what is taken in, what is answered, what is kept of a camera."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_moments import made
from torch import Tensor, nn
from video_files import encode, picture

from nonlocalnet import cli, transforms
from nonlocalnet.card import card_of
from nonlocalnet.errors import UserError
from nonlocalnet.feeds import open_feed
from nonlocalnet.manner import Manner
from nonlocalnet.prediction import predict
from nonlocalnet.scoring import aggregate, score
from nonlocalnet.serve import markup
from nonlocalnet.serve.answer import Answer, answers
from nonlocalnet.serve.intake import Desk, FullError, inspect, safe_name
from nonlocalnet.serve.limits import Limits
from nonlocalnet.serve.live import Watched, due, follow
from nonlocalnet.serve.networks import Served, serve_network
from nonlocalnet.streaming import Streaming, step_through
from nonlocalnet.surgery import blocks
from nonlocalnet.timeline import Outputs, read_timeline
from nonlocalnet.transforms import normalize
from nonlocalnet.watching import tell, watch

NAMES = ("<img src=x onerror=alert(1)>", "{{this}} ${1+1}", "a & b", 'say "so"')
CARD = {"classes": NAMES, "frames": 4, "stride": 2}


def network(name: str = "i3d_tiny", **options: object) -> nn.Module:
    """One whose blocks change its answers."""
    model = made(name, CARD, **{"zero_init": "none", **options})
    for block in blocks(model).values():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve_network("mine", network(non_local=1), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Served:
    model = network("tsm_tiny", non_local=("layer2.0",), shift="past", causal=3)
    return serve_network("online", model, tmp_path_factory.mktemp("online"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    encode(path, frames=40)
    return path


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, Limits(waiting=2, patience=10.0), clock=iter(range(1000)).__next__)


# What is taken in.


def test_a_video_is_given_out_once_and_is_gone_then(desk: Desk) -> None:
    with desk.place("my film.mp4") as (token, path):
        path.write_bytes(b"x")
    with desk.take(token) as found:
        assert found == path
        assert found.read_bytes() == b"x"
        with pytest.raises(UserError, match="no longer here"), desk.take(token):
            pass
    with pytest.raises(UserError, match="no longer here"), desk.take(token):
        pass
    assert not list(desk.folder.iterdir())


def test_a_video_is_gone_also_where_sending_or_answering_fails(desk: Desk) -> None:
    with pytest.raises(RuntimeError), desk.place("a.mp4"):
        raise RuntimeError
    with desk.place("a.mp4") as (token, path):
        path.touch()
    with pytest.raises(RuntimeError), desk.take(token):
        raise RuntimeError
    assert not list(desk.folder.iterdir())


def test_so_many_may_wait_and_none_for_ever(desk: Desk) -> None:
    for name in ("a.mp4", "b.mp4"):
        with desk.place(name) as (token, path):
            path.touch()
    with pytest.raises(FullError, match="2 videos are waiting"), desk.place("c.mp4"):
        pass
    with desk.take(token):  # the other one grows too old while this one is answered
        for _ in range(10):
            desk.sweep()
        assert [path.name for path in desk.folder.iterdir()] == [token]
    with desk.place("d.mp4"):
        pass


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("My holiday (2).MP4", "My holiday (2).mp4"),
        ("../../etc/passwd", "passwd"),
        ("paths.txt", "paths"),  # which would be read as a list of files of this machine
        ("a*b?.webm", "a_b_.webm"),
        ("s3://bucket/x.mp4", "x.mp4"),
        ("日本.mkv", "日本.mkv"),
        (".mp4", "mp4"),
        ("..", "video"),
        ("", "video"),
        ("x" * 300 + ".avi", "x" * 60 + ".avi"),
    ],
)
def test_names_of_files_are_harmless(name: str, kept: str) -> None:
    assert safe_name(name) == kept


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, None),
        ({"seconds": 1.0}, "this video lasts 2 s, and 1 s are the most here"),
        ({"megabytes": 0.001}, "MB, and 0.001 MB are the most here"),
        ({"megapixels": 0.005}, "its pictures are 96 x 64, and 0.005 million pixels are the most"),
    ],
)
def test_limits_are_told(film: Path, limits: dict[str, float], told: str | None) -> None:
    if told is None:
        assert inspect(film, Limits(**limits)).frames == 40
        return
    with pytest.raises(UserError, match=told):
        inspect(film, Limits(**limits))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "this file is empty"),
        (b"not a video\n" * 100, "this file is"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "this file is"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "this file is"),
    ],
)
def test_what_is_no_video_is_known_by_its_content(
    content: bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told) as raised:
        inspect(path, Limits())
    assert "secret" not in str(raised.value)


def test_a_limit_lets_something_through() -> None:
    with pytest.raises(UserError, match="--seconds is a number above 0; it came as -1"):
        Limits(seconds=-1)


# What is answered.


@pytest.fixture(scope="module")
def answer(served: Served, film: Path) -> Answer:
    *_, last = answers(served, film, inspect(film, Limits()))
    return last


def test_the_classes_are_those_of_predict_with_and_without_blocks(
    answer: Answer, served: Served, film: Path
) -> None:
    for key, model in (("score", network(non_local=1)), ("without", None)):
        if model is None:
            model = network(non_local=0)
            model.load_state_dict(served.model.state_dict(), strict=False)
        (wanted,) = predict(model, film, *served.views, top=4)
        scores = {best.name: getattr(best, key) for best in answer.best}
        assert scores == pytest.approx(dict(zip(wanted.labels, wanted.scores, strict=True)))
        if key == "score":
            assert [best.name for best in answer.best] == list(wanted.labels)
    assert answer.best[0].score != pytest.approx(answer.best[0].without, abs=0.01)
    assert answer.missing == ()


@pytest.mark.parametrize("which", ["served", "online"])
def test_the_timeline_is_that_of_stream(
    which: str, film: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    one: Served = request.getfixturevalue(which)
    *_, last = answers(one, film, inspect(film, Limits()))
    out = tmp_path / "timeline.json"
    telling, _ = tell(one.watching, tmp_path, Manner())
    with open_feed(str(film)) as feed:
        watch(one.watching, feed, telling, Outputs(json=out), Manner())
    wanted = read_timeline(out)
    assert last.timeline is not None
    found = [(s.label, s.moments) for s in last.timeline.segments]
    assert found == [(s.label, s.moments) for s in wanted.segments]
    edges = [edge for s in last.timeline.segments for edge in (s.start, s.end)]
    assert edges == pytest.approx([e for s in wanted.segments for e in (s.start, s.end)], abs=2e-3)
    assert len(last.told) == sum(s.moments for s in wanted.segments)


def test_long_videos_are_looked_at_in_places(served: Served, tmp_path: Path) -> None:
    encode(tmp_path / "long.mp4", frames=500)  # 250 taken, in clips of 4
    *_, last = answers(served, tmp_path / "long.mp4", inspect(tmp_path / "long.mp4", Limits()))
    assert 20 <= len(last.told) <= 26
    assert last.told[-1][0] > 19


def test_what_cannot_be_said_besides_is_told(film: Path, tmp_path: Path) -> None:
    plain = serve_network("plain", network(), tmp_path)
    *_, last = answers(plain, film, inspect(film, Limits()))
    assert all(best.without is None for best in last.best)
    assert "page" in dict(last.missing)
    assert dict(last.pictures).keys() == {"timeline.png"}
    assert "no non-local block" in markup.verdict(last)
    assert dict(last.missing)["page"].rstrip(".")[1:] in markup.where(last)


class Broken(nn.Module):
    """A network whose scores are not numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.card = card_of(network())

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3, 4))[:, None].expand(-1, 4) * float("nan")


def test_where_nothing_can_be_said_a_sentence_is(film: Path, tmp_path: Path) -> None:
    work = answers(serve_network("x", Broken(), tmp_path), film, inspect(film, Limits()))
    with pytest.raises(UserError, match="scores are not numbers"):
        next(work)


def test_json_holds_what_the_page_shows(answer: Answer) -> None:
    read = json.loads(answer.to_json())
    assert read["video"] == "film.mp4"
    assert read["seconds"] == pytest.approx(1.6)
    assert [row["name"] for row in read["classes"]] == [best.name for best in answer.best]
    assert {segment["class"] for segment in read["segments"]} <= set(NAMES)
    assert len(read["answers"]) == len(answer.told)


class Reader(HTMLParser):
    """The tags and the text of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, dict[str, str | None]] = {}
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_words_from_outside_are_text(answer: Answer, served: Served) -> None:
    hostile = dataclasses.replace(answer, video="<b>film</b>.mp4")
    for html in (markup.verdict(hostile), markup.when(hostile), markup.about(served)):
        read = Reader(html)
        assert not {"img", "script"} & set(read.tags)
    shown = Reader(markup.verdict(hostile))
    assert "b" not in shown.tags
    assert set(NAMES) <= set(shown.text)
    assert Reader(markup.trouble("<i>no</i>")).text == ["<i>no</i>."]


def test_the_explorer_is_shut_in(answer: Answer) -> None:
    frame = Reader(markup.where(answer)).tags["iframe"]
    assert frame["sandbox"] == "allow-scripts"  # and not allow-same-origin
    assert frame["srcdoc"] == answer.page
    assert "src" not in frame


# A camera.


def pictures(count: int) -> list[NDArray[np.uint8]]:
    """Nobody may write to them, as to those that come from a browser."""
    found = [picture(7 * number) for number in range(count)]
    for one in found:
        one.flags.writeable = False
    return found


def followed(served: Served, count: int, apart: float) -> list[Watched]:
    found, watched = [], None
    for number, shown in enumerate(pictures(count)):
        now = 100 + apart * number
        watched = follow(served, shown, now, watched, clock=lambda now=now: now + 0.03)
        found.append(watched)
    return found


def clip_of(served: Served, shown: list[NDArray[np.uint8]]) -> Tensor:
    return transforms.test_crops(torch.from_numpy(np.stack(shown)), served.card, 1)


def test_a_camera_is_followed_frame_by_frame(online: Served) -> None:
    found = followed(online, 6, 0.2)
    clip = normalize(clip_of(online, pictures(6)), online.card)
    with torch.inference_mode():
        logits = step_through(Streaming(network("tsm_tiny", non_local=("layer2.0",), shift="past",
                                                causal=3)), clip)[0]  # fmt: skip
    for number, watched in enumerate(found):
        assert watched.told is not None
        torch.testing.assert_close(watched.told.moment.logits, logits[number])
        since = max(0, number + 1 - online.card.frames)  # online answers are means over a clip
        mean = logits[since : number + 1].double()
        scores = mean.mean(0).softmax(0) if online.card.aggregate == "logits" else mean.softmax(1)
        scores = scores if scores.dim() == 1 else scores.mean(0)
        torch.testing.assert_close(watched.told.scores, scores)


def test_a_clip_network_sees_the_last_frames(served: Served) -> None:
    found = followed(served, 6, 0.2)
    for number in (3, 5):
        clip = clip_of(served, pictures(6)[number - 3 : number + 1])
        told = found[number].told
        assert told is not None
        wanted = aggregate(score(served.model, clip), served.card)
        torch.testing.assert_close(told.scores.float(), wanted)


@pytest.mark.parametrize("which", ["served", "online"])
def test_what_is_kept_of_a_camera_is_a_value(which: str, request: pytest.FixtureRequest) -> None:
    one: Served = request.getfixturevalue(which)
    *_, before, last = followed(one, 5, 0.2)
    answered = before.latency.quantile(0.5), before.answers
    again = follow(one, pictures(5)[4], 100.8, before)
    assert again.told is not None
    assert last.told is not None
    assert torch.equal(again.told.scores, last.told.scores)
    assert (before.latency.quantile(0.5), before.answers) == answered


def test_pace_silence_and_what_was_dropped(served: Served) -> None:
    apart = due(served)
    assert apart == pytest.approx(2 / 30)
    quick = followed(served, 9, apart / 3)
    assert [w.answers for w in quick] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert quick[-1].dropped == 0
    slow = followed(served, 3, 0.4)  # the browser sends one each 0.1 s
    assert [w.dropped for w in slow] == [0, 3, 6]
    assert slow[-1].latency.quantile(0.5) == pytest.approx(0.03, rel=0.02)
    assert slow[-1].apart == pytest.approx(0.4)
    after = follow(served, pictures(1)[0], slow[-1].came + 5, slow[-1])
    first = followed(served, 1, 1)[0]
    assert after.told is not None
    assert first.told is not None
    assert torch.equal(after.told.moment.logits, first.told.moment.logits)
    assert after.dropped == 6


def test_another_network_begins_anew(served: Served, online: Served) -> None:
    before = followed(served, 4, 0.2)[-1]
    after = follow(online, pictures(1)[0], 100.8, before)
    assert (after.network, after.answers, after.pictures) == ("online", 1, 1)
    html = markup.seen(online, after)
    assert not {"img", "script"} & set(Reader(html).tags)
    assert "dropped" in Reader(html).text


# The command.


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("serve", 2, "serve needs a network"),
        ("serve no/such/run", 1, "no/such/run"),
        ("serve run --port 70000", 2, "--port is 0 to 65535"),
        ("serve run --views 3", 2, "10x3"),
    ],
)
def test_the_command_says_what_is_wrong(
    line: str, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == code
    assert told in capsys.readouterr().err


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "nonlocalnet.serve.app", raising=False)
    with pytest.raises(ImportError, match=r"nonlocalnet\[demo\]"):
        importlib.import_module("nonlocalnet.serve.app")


def test_views(tmp_path: Path) -> None:
    model = network()
    assert serve_network("x", model, tmp_path).views == (1, 1)
    assert serve_network("x", model, tmp_path, (5, 3)).views == (5, 3)

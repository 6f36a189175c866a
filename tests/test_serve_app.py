"""The web app's server and page: many visitors at once, and one in Chromium."""

from __future__ import annotations

import base64
import gc
import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import browser
import pytest
from test_serve import NAMES, network
from video_files import encode

from nonlocalnet.errors import UserError
from nonlocalnet.serve.answer import PARTS, Answer
from nonlocalnet.serve.limits import Limits, environment
from nonlocalnet.serve.networks import Served, serve_network

pytest.importorskip("gradio", reason='needs pip install "nonlocalnet[demo]"')

import httpx  # which gradio brings

HOLDERS = (dict, list, tuple)
LIMITS = Limits(megabytes=1.0, seconds=3.0, waiting=24, viewers=1)


class Site(NamedTuple):
    url: str
    desk: Path
    good: list[Path]
    bad: list[Path]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> list[Served]:
    run = tmp_path_factory.mktemp("run")
    online = network("tsm_tiny", non_local=("layer2.0",), shift="past", causal=3)
    nets = {"mine": network(non_local=1), "online": online}
    return [serve_network(name, model, run) for name, model in nets.items()]


@pytest.fixture(scope="module")
def site(served: list[Served], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, films = tmp_path_factory.mktemp("desk"), tmp_path_factory.mktemp("films")
    good = [films / f"good {number}.mp4" for number in range(8)]
    for number, path in enumerate(good):
        encode(path, frames=12 + number)
    bad = [films / name for name in ("empty.mp4", "text.mp4", "long.mp4", "cut.mp4")]
    bad[0].touch()
    bad[1].write_text("not a video\n" * 100)
    encode(bad[2], frames=100)
    bad[3].write_bytes(good[0].read_bytes()[:2000])
    with pytest.MonkeyPatch.context() as patch:
        own = tmp_path_factory.mktemp("gradio")
        for name, value in environment(str(own)).items():
            patch.setenv(name, value)
        from nonlocalnet.serve.app import running

        with running(served, LIMITS, folder) as url:
            yield Site(url, folder, good, bad)
    assert not list(folder.iterdir())
    assert not [path for path in own.rglob("*") if path.is_file()]


def send(url: str, path: Path, name: str = "") -> httpx.Response:
    content = path.read_bytes()
    named = {"X-Clip": name or path.name}
    return httpx.post(f"{url}/clip", content=content, headers=named, timeout=60)


def ask(url: str, token: str, network: str = "mine") -> list[str]:
    """What the four parts of the page show in the end."""
    asked = httpx.post(f"{url}/gradio_api/call/answer", json={"data": [token, network]}, timeout=60)
    event = asked.json()["event_id"]
    shown: list[str] = []
    with httpx.stream("GET", f"{url}/gradio_api/call/answer/{event}", timeout=120) as lines:
        for line in lines.iter_lines():
            if line.startswith("data: ["):  # a part that stays as it is comes as no text
                parts = json.loads(line.removeprefix("data: "))
                # at first all of it, so that nothing of an answer before stays
                shown = shown or [str(part) for part in parts if isinstance(part, str)]
                shown = [p if isinstance(p, str) else s for p, s in zip(parts, shown, strict=True)]
    return shown


def visit(site: Site, path: Path) -> list[str]:
    """What a visitor gets for a file: a sentence, or the four parts."""
    sent = send(site.url, path)
    return [sent.text] if sent.status_code != 200 else ask(site.url, sent.text)


def answers_kept() -> int:
    """How many large texts are in memory, wherever gradio keeps them."""
    gc.collect()
    held = (
        o.values() if isinstance(o, dict) else o for o in gc.get_objects() if type(o) in HOLDERS
    )
    return len({id(v) for values in held for v in list(values) if type(v) is str and len(v) > 1e6})


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are as large as any and no two alike, in place of those that take seconds."""

    def pictures(_served: Served, _path: Path, answer: Answer) -> Answer:
        return replace(answer, pictures=(("x.png", os.urandom(3_000_000)),))

    monkeypatch.setitem(PARTS, "pictures", pictures)


@pytest.mark.slow
@pytest.mark.usefixtures("_undrawn")
def test_many_visitors_at_once(site: Site) -> None:
    """Sixteen good videos, each one twice, and four that are none."""
    from nonlocalnet.serve.app import KEPT

    files = [*site.good, *site.bad, *site.good]
    with ThreadPoolExecutor(len(files)) as pool:
        found = list(pool.map(lambda path: visit(site, path), files))
    for path, shown in zip(files, found, strict=True):
        if path in site.good:
            assert len(shown) == 4, shown
            assert path.name in shown[0]
            assert "answer.json" in shown[3]
        else:
            assert shown[0].endswith(".")
    del found, shown
    assert not list(site.desk.iterdir())
    # of 16 answers with a picture each; so that memory does not grow with the number of visitors
    assert 0 < answers_kept() <= KEPT + LIMITS.viewers
    assert httpx.get(site.url).status_code == 200


@pytest.mark.parametrize(
    ("which", "told"),
    [
        (0, "this file is empty (0 bytes)."),
        (1, "this file is "),
        (2, "this video lasts 4 s, and 3 s are the most here; cut it"),
        (3, "this file is an mp4 without its index: it was cut off"),
    ],
)
def test_what_cannot_be_answered_is_told_in_a_sentence(site: Site, which: int, told: str) -> None:
    sent = send(site.url, site.bad[which])
    assert sent.status_code == 400
    assert told in sent.text
    assert str(site.desk) not in sent.text
    assert not list(site.desk.iterdir())


@pytest.mark.parametrize("claimed", [True, False])
def test_what_is_too_large_is_not_kept(site: Site, claimed: bool) -> None:
    pieces = [bytes(100_000)] * 20
    content = b"".join(pieces) if claimed else iter(pieces)
    answer = httpx.post(f"{site.url}/clip", content=content, headers={"X-Clip": "x.mp4"})
    assert answer.status_code == 400
    assert "1 MB are the most here" in answer.text
    assert not list(site.desk.iterdir())


@pytest.mark.usefixtures("_undrawn")
def test_one_door_and_no_other(site: Site) -> None:
    token = send(site.url, site.good[0]).text
    assert "answer.json" in ask(site.url, token)[3]
    assert "no longer here" in ask(site.url, token)[0]  # and nobody is answered twice
    assert "no longer here" in ask(site.url, "../../etc/passwd")[0]
    from_elsewhere = httpx.post(f"{site.url}/clip", content=b"x")
    assert from_elsewhere.status_code == 400
    upload = httpx.post(f"{site.url}/gradio_api/upload", files={"files": b"x"})
    assert upload.status_code == 404
    assert httpx.get(f"{site.url}/gradio_api/file={site.good[0]}").status_code in (403, 404)
    assert "default-src 'self'" in httpx.get(site.url).headers["content-security-policy"]
    assert httpx.get(f"{site.url}/example").status_code == 404  # this network is not of reunion


def test_a_taken_port_is_told(served: list[Served], tmp_path: Path) -> None:
    from nonlocalnet.serve.app import running

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"127.0.0.1 port {port} cannot be listened at"),
            running(served, LIMITS, tmp_path, port=port),
        ):
            pass


def test_a_full_desk_is_told_and_nothing_left_of_it(
    site: Site, served: list[Served], tmp_path: Path
) -> None:
    from nonlocalnet.serve.app import running

    before = threading.active_count()
    with running(served, replace(LIMITS, waiting=2), tmp_path) as url:
        assert [send(url, site.good[0]).status_code for _ in range(2)] == [200, 200]
        refused = send(url, site.good[0])
        assert refused.status_code == 503
        assert refused.text == (
            "2 videos are waiting for their answer already; try again in a minute."
        )
        assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    assert not list(tmp_path.iterdir())
    # a pool of gradio's keeps some threads, the server and its loop are gone
    assert threading.active_count() <= before + 2


# In Chromium.


@pytest.fixture(scope="module")
def tab(chromium: Any, site: Site) -> Iterator[Any]:
    """A tab that may reach the site alone, and that has asked for nothing else in the end.

    It stays open from test to test, as that of a visitor does.
    """
    context = chromium.new_context(permissions=["camera"])
    page = context.new_page()
    page.set_default_timeout(30_000)
    refused, wrong = browser.confine(page, site.url), list[str]()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(site.url)
    page.wait_for_selector(".nl-zone")
    yield page
    context.close()
    assert not refused
    assert not wrong


def words(tab: Any, selector: str, part: str) -> None:
    tab.wait_for_function(
        "([where, part]) => document.querySelector(where)?.innerText.includes(part)",
        arg=[selector, part],
    )


def answered(tab: Any, video: str, network: str = "") -> None:
    """Wait for the whole answer about a video, of a network."""
    tab.wait_for_function(
        """([video, network]) => {
            const link = document.querySelector(".nl-save[download='answer.json']")?.href;
            const answer = link && JSON.parse(atob(link.split(",")[1]));
            return answer && answer.video === video && (!network || answer.network === network);
        }""",
        arg=[video, network],
    )


@pytest.mark.slow
def test_a_video_is_answered_in_the_page(tab: Any, site: Site) -> None:
    tab.set_input_files("#nl-file", site.good[3])
    answered(tab, "good 3.mp4")
    names = tab.locator(".nl-scores tbody th").all_inner_texts()
    assert set(names) == set(NAMES)  # as text: no name has become a picture or a number
    assert not tab.locator(".nl-scores img").count()
    link = tab.get_attribute(".nl-save[download='answer.json']", "href")
    answer = json.loads(base64.b64decode(link.partition(",")[2]))
    assert answer["video"] == "good 3.mp4"
    assert [row["name"] for row in answer["classes"]] == names
    with tab.expect_download() as saved:
        # not by the mouse, which misses what moves while pictures above it come
        tab.eval_on_selector(".nl-save[download='timeline.png']", "link => link.click()")
    assert Path(saved.value.path()).read_bytes()[:4] == b"\x89PNG"
    assert tab.locator(".nl-time .nl-span").count() >= 1
    inside = next(frame for frame in tab.frames if frame != tab.main_frame)
    assert inside.evaluate("document.scripts.length") >= 1
    assert inside.evaluate("origin") == "null"  # it can reach nothing of this page
    assert not list(site.desk.iterdir())
    # another network is asked about the same video
    tab.click("input[role=listbox], [aria-label=Network]")
    tab.get_by_role("option", name="online").click()
    answered(tab, "good 3.mp4", "online")


def test_the_page_says_what_is_wrong(tab: Any, site: Site) -> None:
    for path, part in zip(
        site.bad,
        ("empty.mp4 is empty", "text.mp4: this file is", "3 s are the most", "without its index"),
        strict=True,
    ):
        tab.set_input_files("#nl-file", path)
        words(tab, ".nl-status[role=alert]", part)
    tab.set_input_files("#nl-file", site.good[0])
    answered(tab, "good 0.mp4")
    assert not tab.locator("[role=alert]").count()


def test_a_recording_is_answered(tab: Any, site: Site) -> None:
    tab.click(".nl-record")
    words(tab, ".nl-record", "Stop and ask")
    tab.wait_for_function("document.querySelector('video').currentTime > 0.6")
    tab.click(".nl-record")
    answered(tab, "recording.webm")


def test_a_camera_is_followed_live(tab: Any) -> None:
    tab.get_by_role("tab", name="Live").click()
    tab.get_by_text("Click to Access Webcam").click()
    tab.click("[aria-label='capture photo']")
    tab.wait_for_function(
        """() => [...document.querySelectorAll(".nl-facts dd")]
            .some(({ innerText: fact }) => parseInt(fact) >= 3 && fact.includes("so far"))"""
    )
    facts = tab.inner_text(".nl-facts")
    assert "95 % below" in facts
    assert "dropped" in facts
    assert set(tab.locator(".nl-scores:visible tbody th").all_inner_texts()) == set(NAMES)

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
from nonlocalnet.serve.answer import PARTS
from nonlocalnet.serve.limits import Limits, environment
from nonlocalnet.serve.networks import Served, serve_network

pytest.importorskip("gradio", reason='needs pip install "nonlocalnet[demo]"')

import httpx  # which gradio brings

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
    return httpx.post(f"{url}/clip", content=content, headers={"X-Clip": name or path.name})


def ask(url: str, token: str, network: str = "mine") -> list[str]:
    """What the four parts of the page show in the end."""
    asked = httpx.post(f"{url}/gradio_api/call/answer", json={"data": [token, network]})
    event = asked.json()["event_id"]
    shown = [""] * 4
    with httpx.stream("GET", f"{url}/gradio_api/call/answer/{event}", timeout=120) as lines:
        for line in lines.iter_lines():
            if line.startswith("data: ["):  # a part that stays as it is comes as no text
                parts = json.loads(line.removeprefix("data: "))
                shown = [p if isinstance(p, str) else s for p, s in zip(parts, shown, strict=True)]
    return shown


def visit(site: Site, path: Path) -> list[str]:
    """What a visitor gets for a file: a sentence, or the four parts."""
    sent = send(site.url, path)
    return [sent.text] if sent.status_code != 200 else ask(site.url, sent.text)


def memory() -> int:
    """Bytes that this process has in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_many_visitors_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen good videos, each one twice, and four that are none; then the good ones again."""
    # two pictures take seconds to draw; these are as large, and no two alike
    monkeypatch.setitem(
        PARTS,
        "pictures",
        lambda _s, _p, a: replace(a, pictures=(("x.png", os.urandom(3_000_000)),)),
    )
    good = [*site.good, *site.good]

    def everybody(files: list[Path]) -> None:
        with ThreadPoolExecutor(len(files)) as pool:
            found = list(pool.map(lambda path: visit(site, path), files))
        for path, shown in zip(files, found, strict=True):
            if path in good:
                assert len(shown) == 4, shown
                assert path.name in shown[0]
                assert "answer.json" in shown[3]
            else:
                assert shown[0].endswith(".")
        assert not list(site.desk.iterdir())

    everybody([*good[:10], *site.bad, *good[10:]])
    first = memory()
    everybody(good)
    # 16 answers of 4 MB would be 64 MB; what threads and allocators keep came with the first round
    assert memory() - first < 32e6
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


def test_a_full_desk_is_told(site: Site) -> None:
    tokens = [send(site.url, site.good[0]).text for _ in range(LIMITS.waiting)]
    refused = send(site.url, site.good[0])
    assert refused.status_code == 503
    assert refused.text == (
        "24 videos are waiting for their answer already; try again in a minute."
    )
    for token in tokens:
        next((site.desk / token).iterdir()).write_bytes(b"changed")
        assert "this file is" in ask(site.url, token)[0]
    assert not list(site.desk.iterdir())


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


# In Chromium.


@pytest.fixture
def tab(chromium: Any, site: Site) -> Iterator[Any]:
    """A tab that may reach the site alone, and that has asked for nothing else in the end."""
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


def test_a_video_is_answered_in_the_page(tab: Any, site: Site) -> None:
    tab.set_input_files("#nl-file", site.good[3])
    tab.wait_for_selector(".nl-save[download='answer.json']")
    names = tab.locator(".nl-scores tbody th").all_inner_texts()
    assert set(names) == set(NAMES)  # as text: no name has become a picture or a number
    assert not tab.locator(".nl-scores img").count()
    link = tab.get_attribute(".nl-save[download='answer.json']", "href")
    answer = json.loads(base64.b64decode(link.partition(",")[2]))
    assert answer["video"] == "good 3.mp4"
    assert [row["name"] for row in answer["classes"]] == names
    with tab.expect_download() as saved:
        tab.click(".nl-save[download='timeline.png']")
    assert Path(saved.value.path()).read_bytes()[:4] == b"\x89PNG"
    assert tab.locator(".nl-time .nl-span").count() >= 1
    inside = next(frame for frame in tab.frames if frame != tab.main_frame)
    assert inside.evaluate("document.scripts.length") >= 1
    assert inside.evaluate("origin") == "null"  # it can reach nothing of this page
    assert not list(site.desk.iterdir())
    # another network is asked about the same video
    tab.click("input[role=listbox], [aria-label=Network]")
    tab.get_by_role("option", name="online").click()
    words(tab, ".nl-scores", "without")
    tab.wait_for_function(
        """() => { const link = document.querySelector(".nl-save[download='answer.json']")?.href;
            return link && JSON.parse(atob(link.split(",")[1])).network === "online" }"""
    )


def test_the_page_says_what_is_wrong(tab: Any, site: Site) -> None:
    for path, part in zip(
        site.bad,
        ("empty.mp4 is empty", "text.mp4: this file is", "3 s are the most", "without its index"),
        strict=True,
    ):
        tab.set_input_files("#nl-file", path)
        words(tab, ".nl-status[role=alert]", part)
    tab.set_input_files("#nl-file", site.good[0])
    tab.wait_for_selector(".nl-save[download='answer.json']")
    assert not tab.locator("[role=alert]").count()


def test_a_recording_is_answered(tab: Any, site: Site) -> None:
    tab.click(".nl-record")
    words(tab, ".nl-record", "Stop and ask")
    tab.wait_for_function("document.querySelector('video').currentTime > 0.6")
    tab.click(".nl-record")
    tab.wait_for_selector(".nl-save[download='answer.json']")
    words(tab, ".nl-verdict + p", "recording.webm")


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


def test_threads_end_with_the_server(served: list[Served], tmp_path: Path) -> None:
    from nonlocalnet.serve.app import running

    before = threading.active_count()
    with running(served, LIMITS, tmp_path) as url:
        assert httpx.get(url).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    assert threading.active_count() <= before + 1

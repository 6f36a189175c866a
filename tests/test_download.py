"""Downloads against a server on this machine that behaves well and badly, and what follows them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from nonlocalnet import cli, create_model
from nonlocalnet.card import card_of
from nonlocalnet.errors import UserError
from nonlocalnet.weights import download, load
from nonlocalnet.weights.download import cache_folder, fetch, ready
from nonlocalnet.weights.published import PUBLISHED, Published, find

BODY = bytes(range(256)) * 3000  # several pieces
SHA = hashlib.sha256(BODY).hexdigest()


@dataclass
class Behaviour:
    """What the server does; `asked` collects the Range of each request, "" for none."""

    body: bytes = BODY
    ranges: bool = True
    cut: int | None = None  # closes the connection after so many bytes of an answer
    status: int | None = None
    says_length: bool = True
    shift: int = 0  # sends a range that begins elsewhere
    kind: str = "application/octet-stream"
    asked: list[str] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range", "")
        self.asked.append(wanted)
        if self.status is not None:
            handler.send_error(self.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if wanted and self.ranges and start >= len(self.body):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.body)}")
            handler.end_headers()
            return
        start += self.shift
        handler.send_response(206 if wanted and self.ranges else 200)
        if wanted and self.ranges:
            last = f"{len(self.body) - 1}/{len(self.body)}"
            handler.send_header("Content-Range", f"bytes {start}-{last}")
        handler.send_header("Content-Type", self.kind)
        if self.says_length:
            handler.send_header("Content-Length", str(len(self.body) - start))
        handler.end_headers()
        sent = self.body[start:]
        handler.wfile.write(sent if self.cut is None else sent[: self.cut])


@pytest.fixture
def server() -> Iterator[tuple[Behaviour, str]]:
    behaviour = Behaviour()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            behaviour.answer(self)

        def log_message(self, *args: Any) -> None:
            pass

    opened = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield behaviour, f"http://127.0.0.1:{opened.server_port}"
    opened.shutdown()
    opened.server_close()
    thread.join()


@pytest.fixture
def behaviour(server: tuple[Behaviour, str]) -> Behaviour:
    return server[0]


@pytest.fixture
def row(server: tuple[Behaviour, str]) -> Published:
    """A row whose file the server has; its name has a suffix of two parts and dots elsewhere."""
    return Published(
        name="tiny-net", family="ours", url=f"{server[1]}/models/v1.0.net.pth.tar",
        preset="tsm", classes="jester", card={"frames": 4, "stride": 2, "crops": 1},
        top1=None, top5=None, views="", source="nowhere README.md", licence="CC0",
        sha256=SHA[:8], bytes=len(BODY),
    )  # fmt: skip


def test_fetch(row: Published, behaviour: Behaviour, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    path = fetch(row, tmp_path / "new" / "folder", lambda *step: steps.append(step))
    assert path == tmp_path / "new" / "folder" / "tiny-net.pth.tar"
    assert path.read_bytes() == BODY
    assert not list(path.parent.glob("*.partial"))
    assert steps[0] == (0, len(BODY))
    assert steps[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert fetch(row, path.parent) == path
    assert behaviour.asked == [""]  # asked once


def test_an_interrupted_download_goes_on(
    row: Published, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.cut = 300_000
    for done in ("0.3 of 0.8", "0.6 of 0.8"):
        with pytest.raises(UserError, match=f"stopped after {done} MB .* goes on from there"):
            fetch(row, tmp_path)
    assert not (tmp_path / "tiny-net.pth.tar").exists()
    steps: list[tuple[int, int | None]] = []
    assert fetch(row, tmp_path, lambda *step: steps.append(step)).read_bytes() == BODY
    assert behaviour.asked == ["", "bytes=300000-", "bytes=600000-"]
    assert steps[0] == (600_000, len(BODY))


def test_a_server_without_ranges_sends_all_again(
    row: Published, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.ranges = False
    (tmp_path / "tiny-net.pth.tar.partial").write_bytes(b"x" * 1000)
    assert fetch(row, tmp_path).read_bytes() == BODY
    assert behaviour.asked == ["bytes=1000-"]


def test_a_complete_partial_is_taken(row: Published, behaviour: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "tiny-net.pth.tar.partial").write_bytes(BODY)
    assert fetch(row, tmp_path).read_bytes() == BODY
    assert behaviour.asked == [f"bytes={len(BODY)}-"]


def test_a_partial_that_is_too_long(row: Published, tmp_path: Path) -> None:
    partial = tmp_path / "tiny-net.pth.tar.partial"
    partial.write_bytes(BODY + b"more")
    with pytest.raises(UserError, match=r"768004 bytes, but its server has 768000: delete it"):
        fetch(row, tmp_path)
    assert partial.read_bytes() == BODY + b"more"


@pytest.mark.parametrize("unknown", [True, False])
def test_a_server_that_does_not_say_the_length(
    row: Published, behaviour: Behaviour, tmp_path: Path, unknown: bool
) -> None:
    behaviour.says_length = False
    totals = set()
    row = dataclasses.replace(row, bytes=0) if unknown else row
    path = fetch(row, tmp_path, lambda done, total: totals.add(total))
    assert path.read_bytes() == BODY
    assert totals == {None if unknown else len(BODY)}
    path.unlink()
    behaviour.cut = 1000  # looks like its end, so what the row says decides
    with pytest.raises(UserError, match="sha256" if unknown else "stopped after"):
        fetch(row, tmp_path)


def test_a_wrong_hash(row: Published, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.body = BODY[::-1]
    partial = tmp_path / "tiny-net.pth.tar.partial"
    for _ in range(2):  # and again: it is still there, and still wrong
        with pytest.raises(UserError, match=rf"begins with {SHA[:8]}: delete it and start again"):
            fetch(row, tmp_path)
        assert partial.read_bytes() == BODY[::-1]
    partial.unlink()
    behaviour.body = BODY
    assert fetch(row, tmp_path).is_file()


def test_another_size_than_the_publisher_states(
    row: Published, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.body = BODY[:-1]
    with pytest.raises(UserError, match="767999 bytes, but its publisher states 768000"):
        fetch(row, tmp_path)


@pytest.mark.parametrize("status", [403, 404, 503])
def test_refused(row: Published, behaviour: Behaviour, tmp_path: Path, status: int) -> None:
    behaviour.status = status
    with pytest.raises(UserError, match=rf"{row.url} answers {status} ") as told:
        fetch(row, tmp_path)
    assert f"at {tmp_path / 'tiny-net.pth.tar'} and give the same command" in str(told.value)


def test_a_web_page_is_not_kept(row: Published, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.body, behaviour.kind = b"<html>log in first</html>", "text/html; charset=utf-8"
    partial = tmp_path / "tiny-net.pth.tar.partial"
    partial.write_bytes(b"x")
    behaviour.ranges = False
    with pytest.raises(UserError, match="answers with a web page"):
        fetch(row, tmp_path)
    assert partial.read_bytes() == b"x"


def test_another_part_than_asked_for(row: Published, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.shift = 7
    (tmp_path / "tiny-net.pth.tar.partial").write_bytes(BODY[:1000])
    with pytest.raises(UserError, match="sends another part than asked for"):
        fetch(row, tmp_path)


def test_no_network(row: Published, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        row = dataclasses.replace(row, url=f"http://127.0.0.1:{taken.getsockname()[1]}/a.pth")
        with pytest.raises(UserError, match=rf"cannot reach {row.url} \(.*refused") as told:
            fetch(row, tmp_path)
    words = str(told.value)
    assert f"fetched in another way at {tmp_path / 'tiny-net.pth'}" in words
    assert "give the same command again" in words
    assert "\n" not in words
    assert not list(tmp_path.glob("tiny-net*"))


def test_a_file_fetched_by_hand_is_taken(row: Published, tmp_path: Path) -> None:
    path = tmp_path / "tiny-net.pth.tar"
    path.write_bytes(b"by hand")
    assert fetch(row, tmp_path) == path
    assert path.read_bytes() == b"by hand"


def test_a_folder_that_cannot_be_made(row: Published, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write in .*file/in .* NONLOCALNET_HOME"):
        fetch(row, tmp_path / "file" / "in")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user whom modes bind"
)
def test_a_folder_that_cannot_be_written(row: Published, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="cannot write in"):
            fetch(row, tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk(row: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(UserError, match="No space left on device"):
        fetch(row, tmp_path)


@pytest.mark.skipif(download.flock is None, reason="needs file locks")
def test_two_at_once_fetch_one_file(row: Published, behaviour: Behaviour, tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(row, tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == BODY for path in found] == [True] * 4
    assert behaviour.asked == [""]


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("NONLOCALNET_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "nonlocalnet"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/nonlocalnet")
    monkeypatch.setenv("NONLOCALNET_HOME", "~/mine")
    assert cache_folder() == tmp_path / "mine"


Ready = Callable[..., Path]


@pytest.fixture
def tiny(
    row: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Published, list[str]]:
    """The row under its name, a reader that makes a network of what came, and what it was told."""
    presets: list[str] = []

    def read(path: Path, preset: str) -> nn.Module:
        assert path.read_bytes() == BODY
        presets.append(preset)
        return create_model("tsm_tiny", num_classes=27).eval()

    monkeypatch.setitem(PUBLISHED, row.name, row)  # type: ignore[misc]  # a dict in truth
    monkeypatch.setattr(download, "load", read)
    monkeypatch.setenv("NONLOCALNET_HOME", str(tmp_path))
    return row, presets


def test_ready(tiny: tuple[Published, list[str]], tmp_path: Path, behaviour: Behaviour) -> None:
    row, presets = tiny
    path = ready(row.name)
    assert path == tmp_path / "tiny-net.safetensors"
    assert presets == ["tsm"]
    card = card_of(load(path))
    assert card.classes[7] == "Rolling Hand Backward"
    assert (card.frames, card.crops) == (4, 1)
    assert (card.source, card.licence) == (row.url, "CC0")
    behaviour.status = 503
    assert ready(row.name) == path  # at once
    assert presets == ["tsm"]
    with pytest.raises(UserError, match="no published model 'tiny'"):
        ready("tiny")


def test_ready_refuses_another_number_of_classes(
    tiny: tuple[Published, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = dataclasses.replace(tiny[0], classes="sthv2")
    monkeypatch.setitem(PUBLISHED, row.name, row)  # type: ignore[misc]
    with pytest.raises(UserError, match="27 outputs, but sthv2 has 174 classes"):
        ready(row.name)
    assert not (tmp_path / "tiny-net.safetensors").exists()


def test_ready_without_an_order_of_classes(
    tiny: tuple[Published, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = dataclasses.replace(tiny[0], classes="")
    monkeypatch.setitem(PUBLISHED, row.name, row)  # type: ignore[misc]
    assert card_of(load(ready(row.name))).classes == ()


def test_ready_tells_how_to_fetch_a_damaged_file_again(
    tiny: tuple[Published, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(path: Path, preset: str) -> nn.Module:
        raise UserError(f"{path} is no checkpoint")

    monkeypatch.setattr(download, "load", refuse)
    with pytest.raises(UserError, match=r"no checkpoint; to fetch it again .*delete .*tiny-net"):
        ready(tiny[0].name)


def test_the_command(
    tiny: tuple[Published, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["weights", "tiny-net"]) == 0
    told = capsys.readouterr().out
    assert f"tiny-net of ours: {tmp_path / 'tiny-net.safetensors'}" in told
    assert "licence: CC0" in told
    assert "nonlocalnet predict tiny-net VIDEO" in told
    assert cli.main(["weights", "tiny-net", "--json"]) == 0
    assert '"path": "' in capsys.readouterr().out
    assert cli.main(["show", "tiny-net"]) == 0
    assert "tsm_tiny, one clip of 3 x 4 x" in capsys.readouterr().out
    assert find("tiny-net").name == "tiny-net"

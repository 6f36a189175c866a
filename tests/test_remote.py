"""Files at an address: the same frames, few bytes, and one sentence for whatever goes wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
import video_files as made

from nonlocalnet.card import Card
from nonlocalnet.datasets import VideoDataset
from nonlocalnet.folders import Sample
from nonlocalnet.remote import BLOCK, Reading, Remote, media_data
from nonlocalnet.samples import is_address
from nonlocalnet.video import Video, VideoError, write_video


@dataclass
class Server:
    """What a local web server gives, and how many bytes of content it has sent."""

    folder: Path
    ranges: str = "yes"  # "no": says so. "unheeded": sends everything without a word
    sent: int = 0
    asked: list[str] = field(default_factory=list)

    def handler(server: Server) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                path = server.folder / self.path.strip("/")
                if path.name == "secret.mp4":
                    return self.send_error(403)
                if not path.is_file():
                    return self.send_error(404)
                data, span = path.read_bytes(), self.headers.get("Range")
                if body:
                    server.asked.append(span or "all")
                if span and server.ranges == "yes":
                    first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", span).groups())
                    data = data[first : last + 1]
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {first}-{last}/*")
                else:
                    self.send_response(200)
                if server.ranges == "no":
                    self.send_header("Accept-Ranges", "none")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    try:
                        self.wfile.write(data)
                        server.sent += len(data)
                    except ConnectionError:
                        pass

        return Handler


@contextmanager
def serving(folder: Path, ranges: str = "yes") -> Iterator[tuple[Server, str]]:
    server = Server(folder, ranges)
    http = ThreadingHTTPServer(("127.0.0.1", 0), server.handler())
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """large.mp4: noise, so that it takes many blocks; small files of several kinds."""
    folder = tmp_path_factory.mktemp("files")
    noise = torch.randint(256, (120, 192, 256, 3), dtype=torch.uint8)
    write_video(folder / "large.mp4", noise, gop=10, crf=4)
    made.encode(folder / "small.mp4")
    made.encode(folder / "front.mp4", muxing={"movflags": "faststart"})
    made.encode(folder / "fragments.mp4", muxing={"movflags": "frag_keyframe+empty_moov"})
    made.encode(folder / "film.mkv", container="matroska")
    made.encode(folder / "film.avi", container="avi", codec="mpeg4")
    (folder / "empty.mp4").touch()
    (folder / "page.mp4").write_text("<!DOCTYPE html><html>404 not found</html>" * 50)
    (folder / "cut.mp4").write_bytes((folder / "small.mp4").read_bytes()[:2000])
    return folder


def assert_equal(address: str, path: Path, order: list[int]) -> None:
    with Video(path) as here, Video(address) as there:
        assert len(here) == len(there)
        assert here.info == there.info
        assert np.array_equal(here.timestamps, there.timestamps)
        assert torch.equal(here.frames(order), there.frames(order))


def test_what_is_an_address() -> None:
    for text in ("s3://bucket/a.mp4", "https://a.b/c.mp4", "memory://a.mp4", "zip://a::s3://b/c"):
        assert is_address(text)
    for text in ("a.mp4", "/a/b.mp4", "C:\\a.mp4", "a/b://c", "://a", "s3:/bucket/a.mp4"):
        assert not is_address(text)


NAMES = ["large.mp4", "small.mp4", "front.mp4", "fragments.mp4", "film.mkv", "film.avi"]


@pytest.mark.parametrize("name", NAMES)
def test_frames_equal_those_of_the_file(name: str, folder: Path) -> None:
    order = [40, 3, 41, 59, 3]
    fsspec.filesystem("memory").pipe(f"/videos/{name}", (folder / name).read_bytes())
    assert_equal(f"memory://videos/{name}", folder / name, order)
    assert_equal(f"file://{folder / name}", folder / name, order)
    for ranges in ("yes", "no", "unheeded"):
        with serving(folder, ranges) as (_, root):
            assert_equal(f"{root}/{name}", folder / name, order)


def test_a_clip_is_read_by_ranges(folder: Path) -> None:
    """The header, what opening looks at, and the stretch from the key frame to the clip's end."""
    size = (folder / "large.mp4").stat().st_size
    clip = size * 10 // 120
    assert size > 12 * BLOCK
    with serving(folder) as (server, root), Video(f"{root}/large.mp4") as video:
        assert len(video) == 120
        opening = server.sent
        assert opening <= 4 * BLOCK
        video.frames(range(60, 70))
        assert server.sent - opening <= clip + 3 * BLOCK
        assert max(map(len, server.asked)) > 3  # no request without a range
        video.frames(range(60, 70))
        again = server.sent
        video.frames(range(60, 70))
        assert server.sent == again  # kept


@pytest.mark.parametrize("ranges", ["no", "unheeded"])
def test_a_server_without_ranges_sends_the_file_once(ranges: str, folder: Path) -> None:
    size = (folder / "large.mp4").stat().st_size
    with serving(folder, ranges) as (server, root), Video(f"{root}/large.mp4") as video:
        for start in (100, 0, 50):
            video.frames(range(start, start + 10))
        whole = [span for span in server.asked if span == "all"]
        assert len(whole) == 1
        assert server.sent <= size + (0 if ranges == "no" else 4 * size)


def test_media_data_are_the_boxes_of_that_name(folder: Path) -> None:
    for name, count in (("small.mp4", 1), ("front.mp4", 1), ("film.mkv", 0)):
        data = (folder / name).read_bytes()
        remote = Remote(f"file://{folder / name}")
        found = media_data(remote)
        assert len(found) == count
        for start, end in found:
            assert data[start - 4 : start] == b"mdat"
            assert int.from_bytes(data[start - 8 : start - 4], "big") == end - start + 8
            hollow = Reading(remote, found).read()
            assert hollow == data[:start] + bytes(end - start) + data[end:]
        remote.close()


def test_reading_moves_as_files_do(folder: Path) -> None:
    path = folder / "small.mp4"
    data = path.read_bytes()
    remote = Remote(f"file://{path}")
    reading = Reading(remote, [(100, 200), (300, 310)])
    for start, count in ((0, 50), (90, 20), (150, 10), (190, 30), (250, 100), (len(data) - 5, 9)):
        assert reading.seek(start) == start
        got = b""
        while len(got) < min(count, len(data) - start):
            got += reading.read(count - len(got))
        hollow = bytearray(data)
        hollow[100:200], hollow[300:310] = bytes(100), bytes(10)
        assert got == hollow[start : start + count]
        assert reading.tell() == start + len(got)
    assert reading.seek(-3, 2) == len(data) - 3
    assert reading.read() == data[-3:]
    assert reading.read(5) == b""
    remote.close()


WRONG = {
    "missing.mp4": "cannot be opened: there is no such file",
    "secret.mp4": "cannot be opened: no access (status 403)",
    "empty.mp4": "is empty (0 bytes)",
    "page.mp4": "is not a video file that FFmpeg can read",
    "cut.mp4": "is an mp4 without its index",
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("ranges", ["yes", "no"])
def test_wrong_files_say_why(name: str, ranges: str, folder: Path) -> None:
    with serving(folder, ranges) as (_, root), pytest.raises(VideoError) as caught:
        Video(f"{root}/{name}")
    assert WRONG[name] in caught.value.reason
    assert str(caught.value) == f"{root}/{name}: {caught.value.reason}"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9/a.mp4", "cannot be reached"),
        ("nonsense://a.mp4", "Protocol not known"),
        ("memory://videos", "is a folder, not a video file"),
        ("memory://nothing.mp4", "there is no such file"),
        ("file:///nothing.mp4", "there is no such file"),
    ],
)
def test_wrong_addresses_say_why(address: str, reason: str) -> None:
    fsspec.filesystem("memory").pipe("/videos/a.txt", b"a")
    with pytest.raises(VideoError) as caught:
        Video(address)
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(VideoError, match=r'pip install "nonlocalnet\[remote\]" \(Install s3fs'):
        Video("s3://bucket/a.mp4")


def test_a_connection_that_breaks_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of decoding, through FFmpeg and back."""
    fsspec.filesystem("memory").pipe("/large.mp4", (folder / "large.mp4").read_bytes())
    with Video("memory://large.mp4") as video:

        def broken(self: Remote, start: int, count: int) -> bytes:
            raise TimeoutError("the other side is silent")

        monkeypatch.setattr(Remote, "_part", broken)
        with pytest.raises(VideoError, match=r"cannot be read \(the other side is silent\)"):
            video.frames([100])


def test_reading_processes_read_addresses(folder: Path) -> None:
    """A fork of a process that has read from the server already."""
    card = Card(frames=4, stride=2, crop=32, jitter=(32, 40))
    with serving(folder) as (_, root):
        samples = [Sample(f"{root}/{name}", 0, "") for name in ("small.mp4", "missing.mp4")]
        data = VideoDataset(samples, card)
        clip, _ = data[0, 0]
        loader = torch.utils.data.DataLoader(
            data, sampler=[(0, 0), (0, 1)], batch_size=None, num_workers=1
        )
        found = list(loader)
    assert torch.equal(found[0][0], clip)
    assert found[1].reason == "cannot be opened: there is no such file"

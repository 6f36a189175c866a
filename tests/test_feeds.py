"""Feeds give what a file, a folder, a camera, an address or a pipe has, in order and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from feeds_nearby import piping, rtsp_camera, send_file, send_pictures, serving
from PIL import Image
from video_files import HEIGHT, RATE, WIDTH, copy, encode, number_of, picture, turn

from nonlocalnet import feeds, forward
from nonlocalnet.connections import Raw, network, public
from nonlocalnet.errors import UserError
from nonlocalnet.feeds import Feed, Frame, open_feed
from nonlocalnet.forward import Clock
from nonlocalnet.packets import VideoError, video_stream
from nonlocalnet.video import Video, write_video

FILES: dict[str, Callable[[Path], None]] = {
    "plain.mp4": encode,
    "b.mkv": partial(encode, container="matroska", bframes=2),
    "parts.mp4": partial(encode, muxing={"movflags": "frag_keyframe+empty_moov"}),
    "uneven.mp4": partial(
        encode, frames=20, ticks=[i * i + 3 * i for i in range(20)], base=Fraction(1, 1000)
    ),
    "count.avi": partial(encode, codec="mpeg4", container="avi"),
    "raw.h264": partial(encode, container="h264"),
    "vp9.webm": partial(encode, frames=12, codec="libvpx-vp9", container="webm"),
    "sound.mp4": partial(encode, frames=12, sound_first=True),
    "odd.mp4": partial(encode, frames=12, size=(63, 95), pixels="yuv444p"),
    "one.mp4": partial(encode, frames=1),
}


def changed(path: Path, change: Callable[[Path, Path], None]) -> None:
    source = path.with_name("source.mp4")
    encode(source)
    change(source, path)
    source.unlink()


FILES |= {
    "late.ts": partial(changed, change=partial(copy, container="mpegts", shift=100.0)),
    "cut.mp4": partial(changed, change=partial(copy, container="mp4", start=0.6)),
    "turned.mp4": partial(changed, change=partial(turn, matrix=(0, 1, -1, 0))),
}


def numbers(frames: Iterator[Frame]) -> list[int]:
    return [number_of(frame.picture) for frame in frames]


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_pictures_and_times_of_video(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    FILES[name](path)
    with Video(path) as video, open_feed(str(path)) as feed:
        frames = list(feed)
        assert [frame.number for frame in frames] == list(range(len(video)))
        assert [frame.seconds for frame in frames] == pytest.approx(video.timestamps.tolist())
        for frame, same in zip(frames, video.pictures(), strict=True):
            assert frame.picture.flags.c_contiguous
            assert np.array_equal(frame.picture, same)
        assert not any(frame.cut for frame in frames)
        assert not feed.live
        assert feed.damaged == 0


def test_the_numbers_in_the_pictures_are_read(tmp_path: Path) -> None:
    """An order that does not come from `Video`."""
    encode(tmp_path / "a.mp4", bframes=2)
    with open_feed(str(tmp_path / "a.mp4")) as feed:
        assert numbers(iter(feed)) == list(range(60))
        assert (feed.fps, feed.frames, feed.seconds) == (RATE, 60, pytest.approx(60 / RATE))


def test_damage_is_counted_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    encode(path, muxing={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-2000])
    with open_feed(str(path)) as feed:
        kept = numbers(iter(feed))
        assert feed.damaged
    assert kept == list(range(len(kept)))
    assert 20 < len(kept) < 60


@pytest.mark.parametrize(
    ("step", "phase", "taken"),
    [
        (1.0, 0.0, list(range(12))),
        (3.0, 0.0, [0, 3, 6, 9]),
        (3.0, 0.5, [1, 4, 7, 10]),
        (2.4, 0.0, [0, 2, 4, 7, 9]),
        (50.0, 0.0, [0]),
    ],
)
def test_which_frames_are_taken(
    step: float, phase: float, taken: list[int], tmp_path: Path
) -> None:
    encode(tmp_path / "a.mp4", frames=12)
    with open_feed(str(tmp_path / "a.mp4")) as feed:
        assert numbers(feed.take(lambda fps: step, phase)) == taken
    with open_feed(str(tmp_path / "a.mp4")) as feed:
        shown = list(feed.take(lambda fps: step, phase, show=True))
    assert [frame.number for frame in shown] == list(range(12))
    assert [frame.number for frame in shown if frame.taken] == taken


def test_a_folder_is_one_feed_with_cuts(tmp_path: Path) -> None:
    told: list[str] = []
    for name, frames in (("a.mp4", 5), ("c.mp4", 7)):
        encode(tmp_path / name, frames=frames)
    (tmp_path / "b.mp4").write_bytes(b"nothing")
    with open_feed(str(tmp_path), say=told.append) as feed:
        assert feed.fps == RATE
        frames = list(feed.take(lambda fps: 2.0))
    assert [number_of(frame.picture) for frame in frames] == [0, 2, 4, 0, 2, 4, 6]
    assert [frame.seconds for frame in frames] == pytest.approx(
        [n / RATE for n in (0, 2, 4, 5, 7, 9, 11)]
    )
    cuts = [frame.cut for frame in frames]
    assert cuts[3] == f"{tmp_path / 'c.mp4'} begins"
    assert not any(cuts[:3] + cuts[4:])
    assert [word for word in told if "b.mp4" in word and "passed over" in word]


def test_numbered_pictures_are_a_feed(tmp_path: Path) -> None:
    for number in (0, 9, 10, 11):
        Image.fromarray(picture(number)).save(tmp_path / f"view{number}.png")
    (tmp_path / "view7.png").write_bytes(b"nothing")
    with open_feed(str(tmp_path), fps=10.0) as feed:
        frames = list(feed)
        assert (feed.fps, feed.frames, feed.damaged) == (10.0, 5, 1)
    assert [number_of(frame.picture) for frame in frames] == [0, 9, 10, 11]
    assert [frame.seconds for frame in frames] == pytest.approx([0.0, 0.2, 0.3, 0.4])


def read(data: bytes, raw: Raw | None = None) -> list[int]:
    with piping(data) as pipe, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", pipe)
        with open_feed("-", raw) as feed:
            assert not feed.live
            return numbers(iter(feed))


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4", "a.h264"])
def test_a_container_through_a_pipe(name: str, tmp_path: Path) -> None:
    kinds = {"ts": "mpegts", "mkv": "matroska", "mp4": "mp4", "h264": "h264"}
    muxing = {"movflags": "faststart"} if name.endswith("mp4") else {}
    encode(tmp_path / name, container=kinds[name[2:]], muxing=muxing)
    assert read((tmp_path / name).read_bytes()) == list(range(60))


def test_raw_frames_through_a_pipe() -> None:
    raw = Raw(WIDTH, HEIGHT, 10.0)
    pictures = [picture(number) for number in range(20)]
    assert read(b"".join(p.tobytes() for p in pictures), raw) == list(range(20))
    frames = [av.VideoFrame.from_ndarray(p).reformat(format="yuv420p") for p in pictures]
    planes = b"".join(frame.to_ndarray().tobytes() for frame in frames)
    assert read(planes, Raw(WIDTH, HEIGHT, 10.0, "yuv420p")) == list(range(20))
    # a last frame that was cut off is none
    assert len(read(pictures[0].tobytes() * 2 + b"rest", raw)) == 2


def test_the_index_of_a_piped_mp4_stands_first(tmp_path: Path) -> None:
    # larger than what FFmpeg reads ahead, where it would find the index at the end
    encode(tmp_path / "a.mp4", frames=60, size=(480, 640), options={"qp": "0"})
    with pytest.raises(VideoError, match=r"standard input: is no video .* index must stand first"):
        read((tmp_path / "a.mp4").read_bytes())
    with pytest.raises(UserError, match="raw frames have a size"):
        Raw(0, 10)
    with pytest.raises(UserError, match="only standard input"):
        open_feed("a.mp4", Raw(10, 10))


def test_a_file_at_an_address(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4")
    with serving(send_file(tmp_path / "a.mp4")) as address, open_feed(f"{address}/a.mp4") as feed:
        assert (feed.live, feed.frames) == (False, 60)
        assert numbers(iter(feed)) == list(range(60))


def test_an_mp4_of_a_server_without_ranges(tmp_path: Path) -> None:
    noise = torch.randint(0, 256, (30, 128, 128, 3), dtype=torch.uint8)
    write_video(tmp_path / "a.mp4", noise, fps=25)  # its index stands last, far from the start
    with (
        serving(send_file(tmp_path / "a.mp4", ranges=False)) as address,
        open_feed(f"{address}/a.mp4") as feed,
        pytest.raises(VideoError, match="a server has to give ranges"),
    ):
        list(feed)


def test_what_has_no_length_ends_when_it_ends(tmp_path: Path) -> None:
    encode(tmp_path / "a.ts", container="mpegts")
    told: list[str] = []
    with (
        serving(send_file(tmp_path / "a.ts", ranges=False)) as address,
        open_feed(f"{address}/a", say=told.append) as feed,
    ):
        assert numbers(iter(feed)) == list(range(60))
    assert not told


def test_addresses_that_give_nothing() -> None:
    def refuse(handler: object) -> None:
        handler.send_error(404)  # type: ignore[attr-defined]

    with serving(refuse) as address:
        with pytest.raises(VideoError, match=r"cannot be reached .*404"):
            open_feed(f"{address}/a.mp4")
        gone = address
    with pytest.raises(VideoError, match=r"cannot be reached \(Connection refused"):
        open_feed(gone.replace("http", "rtsp"))


def test_a_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nonlocalnet.connections.TIMEOUT", 0.3)
    with (
        serving(lambda handler: time.sleep(1.0)) as address,
        pytest.raises(VideoError, match="no answer for 0.3 s"),
    ):
        network(address)


def test_a_password_is_not_shown() -> None:
    assert public("rtsp://me:secret@camera/1") == "rtsp://me:***@camera/1"
    assert public("http://camera:80/a@b") == "http://camera:80/a@b"


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "PATIENCE", 1.0)
    monkeypatch.setattr(forward, "PAUSE", 0.05)


@pytest.mark.usefixtures("_impatient")
def test_a_lost_connection_is_made_again() -> None:
    connections: list[int] = []

    def answer(handler: object) -> None:
        connections.append(1)
        if len(connections) <= 2:
            send_pictures(30, 0.01)(handler)  # type: ignore[arg-type]

    told: list[str] = []
    with serving(answer) as address, open_feed(address, say=told.append) as feed:
        assert feed.live
        frames = list(feed)
    assert [number_of(frame.picture) for frame in frames] == [*range(30)] * 2
    cuts = [frame.cut for frame in frames if frame.cut]
    assert len(cuts) == 1
    assert cuts[0].startswith("connected again after")
    assert all(a.seconds < b.seconds for a, b in pairwise(frames))
    assert "trying again" in told[0]
    assert "taken for its end" in told[-1]


@pytest.mark.usefixtures("_impatient")
def test_a_camera_by_rtsp() -> None:
    told: list[str] = []
    with rtsp_camera(40) as address, open_feed(address, say=told.append) as feed:
        assert feed.live
        frames = list(feed)
    seen = [number_of(frame.picture) for frame in frames]
    assert seen == list(range(seen[0], 40))
    assert seen[0] < 10
    assert frames[-1].seconds == pytest.approx((len(frames) - 1) / RATE, abs=0.01)
    # it went away, and did not come back
    assert "trying again" in told[0]
    assert "Connection refused" in told[-1]


def test_a_camera_by_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """No camera is here: FFmpeg's own test picture comes through the same door."""

    def stand_in(number: int) -> object:
        made = av.open(f"testsrc2=size={WIDTH}x{HEIGHT}:rate=20", format="lavfi")
        return made, video_stream(f"camera {number}", made)

    monkeypatch.setattr(feeds, "camera", stand_in)
    with open_feed("0") as feed:
        assert (feed.live, feed.frames, feed.fps, feed.name) == (True, None, 20.0, "camera 0")
        frames = [frame for frame, _ in zip(feed, range(5), strict=False)]
    assert [frame.seconds for frame in frames] == pytest.approx([n / 20 for n in range(5)])
    assert frames[0].picture.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.skipif(not Path("/dev").exists(), reason="cameras have other names here")
def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(VideoError, match="camera 999: there is none; the system has"):
        open_feed("999")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file|cannot be opened"):
        open_feed(str(tmp_path / "none.mp4"))
    with pytest.raises(VideoError, match="there is no video file in this folder"):
        open_feed(str(tmp_path))
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    (tmp_path / "b.mp4").write_bytes(b"nothing")
    with open_feed(str(tmp_path)) as feed, pytest.raises(VideoError, match="none of its videos"):
        list(feed)


def test_a_file_is_closed(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", frames=4)
    opened = Path("/proc/self/fd")
    if not opened.exists():
        pytest.skip("which files are open is read from Linux's /proc")
    before = len(list(opened.iterdir()))
    with open_feed(str(tmp_path / "a.mp4")) as feed:
        next(iter(feed))
    assert len(list(opened.iterdir())) == before


@pytest.mark.parametrize(
    ("stamps", "seconds", "cuts"),
    [
        ([5, 6, 7], [0, 1, 2], 0),
        ([5, 5, 4, 8], [0, 1, 2, 3], 0),  # nonsense is a steady count until time catches up
        ([None, None, 7], [0, 1, 2], 0),
        ([5, 6, 60], [0, 1, 55], 0),  # a hole is as long as it is
        ([50, 51, 3, 4], [0, 1, 2, 3], 1),  # a second count begins
    ],
)
def test_times(stamps: list[int | None], seconds: list[float], cuts: int) -> None:
    clock = Clock(1.0, live=False)
    read = [clock.read(stamp, 1.0) for stamp in stamps]
    assert [time for time, _ in read] == pytest.approx(seconds)
    assert sum(bool(cut) for _, cut in read) == cuts


def test_a_live_clock_that_jumps_ahead() -> None:
    clock = Clock(0.04, live=True)
    assert clock.read(0, 0.001) == (0.0, "")
    later, cut = clock.read(9_000_000, 0.001)
    assert 0 < later < 1
    assert "jump by +9000.0 s" in cut
    assert clock.read(9_000_040, 0.001)[0] == pytest.approx(later + 0.04)


def test_a_feed_whose_thread_still_reads_stays_open(tmp_path: Path) -> None:
    class Slow:
        fps, frames, seconds, live, damaged, closed = None, None, None, True, 0, False

        def __iter__(self) -> Iterator[forward.Shown]:
            feed.close()  # in the middle of reading
            yield forward.Shown(0.0, lambda: picture(0))

        def close(self) -> None:
            self.closed = True

    source = Slow()
    feed = Feed("slow", source)
    assert numbers(iter(feed)) == [0]
    assert not source.closed
    feed.close()
    assert source.closed

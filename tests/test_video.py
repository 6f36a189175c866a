"""Reading equals a plain decode of the whole file, whatever the file; writing is whole or not."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import video_files as made
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nonlocalnet import packets as packets_module
from nonlocalnet import video as video_module
from nonlocalnet.video import Video, VideoError, write_video

UNEVEN = np.cumsum(np.random.default_rng(0).integers(900, 9000, 60)).tolist()
OPEN = {
    "x264-params": f"{made.REPEATABLE}:open-gop=1:bframes=3:b-adapt=0:scenecut=0:keyint=12",
}
OPEN265 = {"x265-params": "open-gop=1:bframes=3:keyint=12:log-level=none"}
REFRESH = {"x264-params": f"{made.REPEATABLE}:intra-refresh=1:keyint=12:bframes=0"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
TENBIT = {"pixels": "yuv420p10le"}
ODD = {"pixels": "yuv444p", "size": (63, 95)}
VFR = {"ticks": UNEVEN, "base": Fraction(1, 90000)}

# name -> (what encode is told, whether the key frames can be used)
ENCODED: dict[str, tuple[dict, bool]] = {
    "b_frames.mp4": ({}, True),
    "no_b_frames.mp4": ({"bframes": 0}, True),
    "mpeg4_b_frames.mp4": ({"codec": "mpeg4", "bframes": 2}, True),
    "variable_rate.mp4": (VFR, True),
    "variable_rate.mkv": ({**VFR, "container": "matroska"}, True),
    "open_gop.mp4": ({"options": OPEN}, True),
    "open_gop_hevc.mp4": ({"codec": "libx265", "options": OPEN265}, True),
    "fragmented.mp4": ({"muxing": FRAGMENTS}, True),
    "sound_first.mp4": ({"sound_first": True}, True),
    "sound_first.mkv": ({"sound_first": True, "container": "matroska"}, True),
    "one_frame.mp4": ({"frames": 1}, True),
    "five_frames.mp4": ({"frames": 5}, True),
    "one_key_frame.mp4": ({"options": {"g": "999", "sc_threshold": "0"}}, True),
    "all_key_frames.mov": ({"codec": "mjpeg", "container": "mov", "pixels": "yuvj420p"}, True),
    "odd_size.mp4": (ODD, True),
    "ten_bit.mp4": (TENBIT, True),
    "ten_bit_hevc.mp4": ({**TENBIT, "codec": "libx265", "options": OPEN265}, True),
    "vp8.webm": ({"codec": "libvpx", "container": "webm"}, True),
    "vp9.webm": ({"codec": "libvpx-vp9", "container": "webm", "frames": 30}, True),
    "av1.mkv": ({"codec": "libsvtav1", "container": "matroska", "frames": 30}, True),
    "b_frames.avi": ({"codec": "mpeg4", "container": "avi", "bframes": 2}, False),
    "h264_b_frames.avi": ({"container": "avi"}, False),
    "no_b_frames.avi": ({"codec": "mpeg4", "container": "avi", "bframes": 0}, False),
    "raw.h264": ({"container": "h264"}, False),
    "raw.hevc": ({"codec": "libx265", "container": "hevc", "options": OPEN265}, False),
    "program.mpg": ({"codec": "mpeg2video", "container": "mpeg", "bframes": 2}, False),
    "mpeg2.ts": ({"codec": "mpeg2video", "container": "mpegts", "bframes": 2}, False),
    "windows.wmv": ({"codec": "wmv2", "container": "asf"}, False),
    "flash.flv": ({"container": "flv"}, False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVT_LOG", "0")
        yield tmp_path_factory.mktemp("videos")


def encoded(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        made.encode(path, **ENCODED[name][0])
    return path


def assert_exact(path: Path, expected: list[NDArray[np.uint8]]) -> None:
    """All frames, and some in any order, equal those of a plain decode."""
    count = len(expected)
    draws = np.random.default_rng(1).integers(0, count, 24)
    orders = [
        range(count),
        draws[:9],
        np.sort(draws[9:14]),
        draws[14:15],
        [count - 1, 0, count - 1],
    ]
    for order in (*orders, draws[15:]):
        with Video(path) as video:
            assert len(video) == count
            got = video.frames(order).numpy()
        for place, number in enumerate(order):
            assert np.array_equal(got[place], expected[number]), f"frame {number} of {list(order)}"


def no_sequence(self: Video, wanted: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    raise AssertionError("this file can be read by its key frames, yet was decoded from its start")


@pytest.mark.parametrize("name", ENCODED)
def test_exact(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encoded(folder, name)
    expected = made.decode(path)
    assert [made.number_of(image) for image in expected] == list(range(len(expected)))
    assert len(expected) == ENCODED[name][0].get("frames", 60)
    seeks = ENCODED[name][1]
    if seeks:
        monkeypatch.setattr(Video, "_in_sequence", no_sequence)
    assert_exact(path, expected)
    with Video(path) as video:
        assert bool(video.info.counted) != seeks
        assert video.corrupt == 0
        ticks, base = (UNEVEN, 90000) if "variable" in name else (range(60), made.RATE)
        times = np.array(ticks[: len(video)]) / base
        # Matroska, FLV and ASF round to milliseconds
        np.testing.assert_allclose(video.timestamps, times - times[0], atol=0.0011)


def test_transport_stream_that_starts_late(folder: Path) -> None:
    path = folder / "late.ts"
    made.copy(encoded(folder, "b_frames.mp4"), path, "mpegts", shift=100.0)
    expected = made.decode(path)
    assert [made.number_of(image) for image in expected] == list(range(60))
    assert_exact(path, expected)
    with Video(path) as video:
        np.testing.assert_allclose(video.timestamps, np.arange(60) / made.RATE, atol=1e-4)


@pytest.mark.parametrize("source", ["b_frames.mp4", "open_gop.mp4"])
def test_cut_with_an_edit_list(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / f"cut_{source}"
    made.copy(encoded(folder, source), path, "mp4", start=0.8)
    expected = made.decode(path)
    assert [made.number_of(image) for image in expected] == list(range(20, 60))
    monkeypatch.setattr(Video, "_in_sequence", no_sequence)
    assert_exact(path, expected)


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("source", ["open_gop.mp4", "open_gop_hevc.mp4"])
def test_cut_that_starts_with_pictures_nobody_can_decode(
    source: str, shift: float, folder: Path
) -> None:
    """A copy from an open GOP keeps pictures that lean on what was cut off."""
    path = folder / "cut_open.mkv"
    made.copy(encoded(folder, source), path, "matroska", start=1.1, shift=shift)
    expected = made.decode(path)
    with av.open(str(path)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) > len(expected)
    assert_exact(path, expected)


def test_hidden_pictures_are_no_frames(folder: Path) -> None:
    path = folder / "hidden.mkv"
    made.change(encoded(folder, "vp8.webm"), path, 17, hide_vp8=True)
    expected = made.decode(path)
    assert len(expected) == 59
    assert_exact(path, expected)


def test_key_frames_that_do_not_refresh_at_once(folder: Path) -> None:
    """Periodic intra refresh: after a seek the decoder shows nothing good for a whole period."""
    path = folder / "refresh.mp4"
    made.encode(path, options=REFRESH)
    expected = made.decode(path)
    assert len(expected) == 60
    assert_exact(path, expected)
    with Video(path) as video:
        assert video.info.counted == ""
        assert np.array_equal(video.frames([40])[0], expected[40])
        assert video.corrupt == 0


def test_key_frames_that_are_none(folder: Path) -> None:
    """The MPEG-4 decoder starts anywhere without complaint, on grey."""
    path = folder / "claimed.mp4"
    made.change(encoded(folder, "no_b_frames.avi"), path, 18, claim_key=True)
    expected = made.decode(path)
    assert len(expected) == 60
    assert_exact(path, expected)
    with Video(path) as video:
        assert np.array_equal(video.frames([20])[0], expected[20])


def test_counting_without_room_to_keep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_module, "KEEP_BYTES", 10 * made.HEIGHT * made.WIDTH)
    path = encoded(folder, "b_frames.avi")
    assert_exact(path, made.decode(path))


def test_far_frames_are_reached_by_key_frames(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    original = Video._decode

    def counting(self: Video, *args: object, **kwargs: object) -> Iterator[av.VideoFrame]:
        for frame in original(self, *args, **kwargs):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(Video, "_decode", counting)
    with Video(encoded(folder, "no_b_frames.mp4")) as video:
        video.frames([2, 50])
        assert len(decoded) == 3 + 3  # 0 1 2, then from the key frame 48 on: 48 49 50
        decoded.clear()
        video.frames([9, 14])
        assert len(decoded) == 15  # too near for a second seek


def given_to_the_decoder(path: Path, order: Sequence[int]) -> tuple[list[int], NDArray[np.uint8]]:
    """Times of the packets that were decoded for these frames, and the frames."""
    seen: list[int] = []
    original = Video._needed

    def noting(self: Video, wanted: set[int], given: set[int]) -> Iterator[av.Packet | None]:
        for packet in original(self, wanted, given):
            seen.extend([] if packet is None else [packet.pts])
            yield packet

    with pytest.MonkeyPatch.context() as patch, Video(path) as video:
        patch.setattr(Video, "_needed", noting)
        patch.setattr(Video, "_in_sequence", no_sequence)
        return seen, video.frames(order).numpy()


KINDS = {
    "pyramid": "bframes=8:b-adapt=0:b-pyramid=normal",
    "no pyramid": "bframes=3:b-adapt=0:b-pyramid=none",
    "slices": "bframes=3:b-adapt=0:slices=4",
    "interlaced": "bframes=3:b-adapt=0:interlaced=1:tff=1",
    "many references": "bframes=16:b-adapt=0:ref=16:direct=temporal:weightb=1",
}


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_nothing_leans_on_are_not_decoded(
    kind: str, container: str, tmp_path: Path
) -> None:
    path = tmp_path / "film"
    params = f"{made.REPEATABLE}:keyint=250:scenecut=0:{KINDS[kind]}"
    made.encode(path, container=container, options={"x264-params": params})
    expected = made.decode(path)
    decoded, frames = given_to_the_decoder(path, range(20, 50, 3))
    for number, frame in zip(range(20, 50, 3), frames, strict=True):
        assert np.array_equal(frame, expected[number])
    assert len(decoded) < 40  # of 50 and those that the decoder takes in advance
    decoded, _ = given_to_the_decoder(path, range(20, 50))
    assert len(decoded) < 50  # none of those wanted is left out, many of those before are
    assert len(given_to_the_decoder(path, range(60))[0]) == 60


@pytest.mark.parametrize("name", ["open_gop_hevc.mp4", "mpeg4_b_frames.mp4", "no_b_frames.mp4"])
def test_every_picture_is_decoded_where_nothing_tells_what_leans_on_it(
    name: str, folder: Path
) -> None:
    decoded, _ = given_to_the_decoder(encoded(folder, name), [10])
    assert len(decoded) >= 11


GROWTH = """
import ctypes, gc, sys
from pathlib import Path
from nonlocalnet.video import Video

def resident():
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def read(times):
    for number in range(times):
        with Video(sys.argv[1 + number % 2]) as video:
            video.frames(range(number % 40, number % 40 + 8, 2))

gc.disable()  # decoded pictures in a circle would wait for it
read(60)
before = resident()
read(400)
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and trims glibc's heap")
def test_reading_leaves_nothing_behind(folder: Path) -> None:
    """Under 1 kB a clip: not the file, nor a picture, nor PyAV's list of streams."""
    files = (str(encoded(folder, name)) for name in ("b_frames.mp4", "b_frames.avi"))
    command = [sys.executable, "-c", GROWTH, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400_000


@settings(max_examples=30, deadline=None)
@given(order=st.lists(st.integers(0, 59), min_size=1, max_size=12))
def test_any_order_any_duplicates(order: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = encoded(Path(name), "b_frames.mp4")
        with Video(path) as video:
            assert [made.number_of(image) for image in video.frames(order).numpy()] == order


MATRICES = {
    (1, 0, 0, 1): (0, lambda image: image),
    (0, 1, -1, 0): (90, lambda image: np.rot90(image, -1)),
    (-1, 0, 0, -1): (180, lambda image: np.rot90(image, 2)),
    (0, -1, 1, 0): (270, lambda image: np.rot90(image, 1)),
    (-1, 0, 0, 1): (180, lambda image: image[:, ::-1]),  # mirrored: the x axis points back
    (0, 1, 1, 0): (90, lambda image: image.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_rotation_is_applied(matrix: tuple[int, int, int, int], folder: Path) -> None:
    path = folder / "turned.mp4"
    made.turn(encoded(folder, "b_frames.mp4"), path, matrix)
    degrees, show = MATRICES[matrix]
    expected = [show(image) for image in made.decode(path)]
    assert_exact(path, expected)
    with Video(path) as video:
        assert (video.info.height, video.info.width) == expected[0].shape[:2]
        assert video.info.rotation == degrees
    if degrees and matrix[0] * matrix[3] - matrix[1] * matrix[2] > 0:
        with av.open(str(path)) as container:  # PyAV's own reading, counter-clockwise
            frame = next(container.decode(video=0))
            assert frame.rotation % 360 == -degrees % 360


def test_info(folder: Path) -> None:
    with Video(encoded(folder, "b_frames.mp4")) as video:
        info = video.info
    assert (info.frames, info.width, info.height, info.rotation) == (60, 96, 64, 0)
    assert (info.fps, info.duration) == (pytest.approx(25), pytest.approx(60 / 25))
    assert (info.codec, info.container.split(",")[0], info.video_streams) == ("h264", "mov", 1)
    assert not info.variable_rate
    with Video(encoded(folder, "variable_rate.mkv")) as video:
        assert video.info.variable_rate
    with Video(encoded(folder, "sound_first.mkv")) as video:
        assert not video.info.variable_rate  # milliseconds: 33, 33, 34, ...
    with Video(encoded(folder, "one_frame.mp4")) as video:
        assert (video.info.fps, video.info.duration) == (pytest.approx(25), pytest.approx(1 / 25))


def test_the_best_of_two_video_streams(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, height in zip(streams, (64, 128), strict=True):
            stream.width, stream.height, stream.pix_fmt = 96, height, "yuv420p"
        streams[0].disposition = 0
        streams[1].disposition = av.stream.Disposition.default
        for number in range(20):
            for stream in streams:
                image = made.picture(number, stream.height)
                frame = av.VideoFrame.from_ndarray(image)
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    expected = made.decode(path)
    assert expected[0].shape[0] == 128
    assert_exact(path, expected)
    with Video(path) as video:
        assert video.info.video_streams == 2


# damaged files


def faststart(folder: Path) -> bytes:
    path = folder / "faststart.mp4"
    made.encode(path, muxing={"movflags": "faststart"})
    return path.read_bytes()


def packet_of(path: Path, number: int) -> tuple[int, int]:
    """Place and size of a packet in the file."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
    return packet.pos, packet.size


@pytest.mark.parametrize("number", [30, 54])  # 50 and 90 %
def test_cut_off_mp4_serves_its_good_frames(number: int, tmp_path: Path) -> None:
    data = faststart(tmp_path)
    place, size = packet_of(tmp_path / "faststart.mp4", number)
    path = tmp_path / "cut_off.mp4"
    path.write_bytes(data[: place + size // 2])
    expected = made.decode(path)
    assert number - 1 <= len(expected) <= number + 1  # the last one may be patched up, or lost
    shown = [made.number_of(image) for image in expected[: number - 4]]
    assert shown == list(range(number - 4))
    assert_exact(path, expected)
    with Video(path) as video:
        assert "damaged" in video.info.counted
        assert video.corrupt >= 1


def test_cut_off_between_two_pictures(tmp_path: Path) -> None:
    data = faststart(tmp_path)
    place, _ = packet_of(tmp_path / "faststart.mp4", 31)
    path = tmp_path / "cut_off.mp4"
    path.write_bytes(data[:place])
    expected = made.decode(path)
    assert len(expected) == 31
    assert_exact(path, expected)
    with Video(path) as video:
        assert video.info.counted == "the header promises 60 frames, 31 are there"


@pytest.mark.parametrize("name", ["fragmented.mp4", "vp9.webm", "b_frames.avi", "mpeg2.ts"])
@pytest.mark.parametrize("percent", [50, 90, 97])
def test_cut_off_elsewhere(name: str, percent: int, folder: Path, tmp_path: Path) -> None:
    data = encoded(folder, name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) * percent // 100])
    assert_exact(path, made.decode(path))


def test_flipped_bytes_are_counted(folder: Path, tmp_path: Path) -> None:
    """Pictures may be lost; each frame served is one of the plain decode, and damage is counted."""
    data = bytearray(encoded(folder, "b_frames.mp4").read_bytes())
    generator = np.random.default_rng(2)
    start, end = data.index(b"mdat") + 1000, data.index(b"moov") - 4
    for place in generator.integers(start, end, 40):
        data[place] = generator.integers(256)
    path = tmp_path / "flipped.mp4"
    path.write_bytes(data)
    known = {image.tobytes() for image in made.decode(path)}
    with Video(path) as video:
        assert len(video) == 60
        frames = video.frames(range(60)).numpy()
        assert video.corrupt > 0
    assert {frame.tobytes() for frame in frames} <= known


def test_picture_that_cannot_be_decoded_is_stood_in_for(folder: Path, tmp_path: Path) -> None:
    source = encoded(folder, "all_key_frames.mov")
    data = bytearray(source.read_bytes())
    place, size = packet_of(source, 7)
    data[place : place + size] = bytes(size)
    path = tmp_path / "hole.mov"
    path.write_bytes(data)
    with Video(path) as video:
        shown = [made.number_of(image) for image in video.frames(range(60)).numpy()]
        assert shown == [*range(7), 6, *range(8, 60)]
        assert video.corrupt == 1
        assert made.number_of(video.frames([7])[0].numpy()) == 6
        assert video.corrupt == 1  # the same packet again


def test_picture_size_that_changes(folder: Path, tmp_path: Path) -> None:
    made.encode(tmp_path / "small.h264", container="h264", size=(48, 64), frames=20)
    path = tmp_path / "both.h264"
    both = encoded(folder, "raw.h264").read_bytes() + (tmp_path / "small.h264").read_bytes()
    path.write_bytes(both)
    with Video(path) as video:
        assert video.frames([3, 50]).shape == (2, 64, 96, 3)
        assert video.frames([70]).shape == (1, 48, 64, 3)
        with pytest.raises(VideoError, match=r"both\.h264: .* changes from 96x64 to 64x48"):
            video.frames([3, 70])


class Endless:
    """A demuxer whose index runs in circles."""

    def demux(self, stream: object) -> Iterator[av.Packet]:
        while True:
            yield av.Packet(100)


def test_endless_demuxer_ends() -> None:
    given = list(packets_module.packets(Endless(), None, size=1000))  # type: ignore[arg-type]
    assert given[-1] is None
    assert len(given) < 20_000


def write(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def sound_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as out:
        made.write_silence(out, out.add_stream("aac", rate=16000, layout="mono"))


def sound_with_cover(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = out.add_stream("aac", rate=16000, layout="mono")
        image = av.VideoFrame.from_ndarray(made.picture(1)).reformat(format="yuvj420p")
        out.mux(cover.encode(image))
        out.mux(cover.encode(None))
        made.write_silence(out, sound)


def header_only(path: Path) -> None:
    made.encode(path)
    path.write_bytes(path.read_bytes()[:60])


def no_picture_left(path: Path) -> None:
    data = faststart(path.parent)
    path.write_bytes(data[: data.index(b"mdat") + 4])


def png(path: Path) -> None:
    av.VideoFrame.from_ndarray(made.picture(1)).to_image().save(path, format="png")


BAD: dict[str, tuple[str, Callable[[Path], object]]] = {
    "zero.mp4": ("is empty", write(b"")),
    "random.mp4": ("not a video", write(np.random.default_rng(0).bytes(30_000))),
    "page.mp4": ("not a video", write(b"<!DOCTYPE html><html>404 not found</html>" * 50)),
    "header.mp4": ("without its index", header_only),
    "hollow.mp4": ("no frame can be decoded", no_picture_left),
    "folder.mp4": ("is a folder", lambda path: path.mkdir()),
    "pipe.mp4": ("not a regular file", lambda path: os.mkfifo(path)),
    "missing.mp4": ("No such file", lambda path: None),
    "sound.mp4": ("no video stream, only audio", sound_only),
    "cover.mp4": ("no video stream, only a still picture and audio", sound_with_cover),
    "still.png": ("still image", png),
    "still%03d.mp4": ("still image", png),
    "list.m3u8": ("playlist", write(b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nb.ts\n")),
    "list.mp4": ("playlist", write(b"ffconcat version 1.0\nfile other.mp4\n")),
    "words.txt": ("a text", write(b"hello\n" * 300)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_say_why(name: str, tmp_path: Path) -> None:
    reason, make = BAD[name]
    path = tmp_path / name
    make(path)
    with pytest.raises(VideoError) as caught:
        Video(path)
    assert reason in caught.value.reason
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert "\n" not in str(caught.value)


def test_unreadable_file() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "secret.mp4"
        made.encode(path, frames=2)
        Path(name).chmod(0o755)
        path.chmod(0)
        root = os.geteuid() == 0  # for whom no file is unreadable
        try:
            if root:
                os.seteuid(65534)
            with pytest.raises(VideoError, match=r"secret\.mp4: cannot be read: Permission denied"):
                Video(path)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("name", ["a:b.mp4", "http:x.mp4", "100% %d.mp4", "ü 视频.mp4"])
def test_odd_names(name: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(encoded(folder, "five_frames.mp4").read_bytes())
    with Video(path) as video:
        assert len(video) == 5
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert Video(name).frames([0]).shape == (1, 64, 96, 3)


def test_title_in_a_foreign_encoding(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "title.avi"
    data = encoded(folder, "no_b_frames.avi").read_bytes()
    assert b"Lavf" in data
    path.write_bytes(data.replace(b"Lavf", b"\xe9\xe8\xff\xfe"))
    with Video(path) as video:
        assert len(video) == 60


def test_wrong_numbers(folder: Path) -> None:
    with Video(encoded(folder, "five_frames.mp4")) as video:
        assert video.frames([]).shape == (0, 64, 96, 3)
        for order in ([5], [-1], [0, 99]):
            with pytest.raises(IndexError, match=r"five_frames\.mp4"):
                video.frames(order)


def test_error_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "is empty")))
    assert (str(error), error.path, error.reason) == ("a.mp4: is empty", "a.mp4", "is empty")


# writing


@pytest.mark.parametrize("shape", [(20, 64, 96), (3, 63, 95), (1, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_written_frames_come_back(shape: tuple[int, int, int], suffix: str, tmp_path: Path) -> None:
    count, *size = shape
    frames = torch.from_numpy(np.stack([made.picture(n, *size) for n in range(count)]))
    frames = frames // 4 + frames.float().mean((1, 2, 3), keepdim=True).to(torch.uint8) // 2
    path = tmp_path / f"written{suffix}"
    write_video(path, frames, fps=29.97, crf=1)
    with Video(path) as video:
        assert len(video) == count
        back = video.frames(range(count))
        assert video.info.fps == pytest.approx(29.97, rel=1e-4)
    # 4:2:0 shares colour among four pixels, so only the mean over them is close
    assert (back.float() - frames.float()).abs().mean() < 6
    assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_written_key_frames(tmp_path: Path) -> None:
    path = tmp_path / "keys.mp4"
    frames = torch.from_numpy(np.stack([made.picture(n) for n in range(30)]))
    write_video(path, frames, 25, gop=5)
    with av.open(str(path)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert sum(keys) >= 6


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    frames = torch.from_numpy(np.stack([made.picture(n) for n in range(30)]))
    files = set()
    for _ in range(10):
        write_video(tmp_path / "again.mp4", frames, 25)
        files.add((tmp_path / "again.mp4").read_bytes())
    assert len(files) == 1


def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.mp4"
    path.write_bytes(b"the old file")
    noise = torch.randint(256, (20, 64, 96, 3), dtype=torch.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(VideoError, match=r"kept\.mp4: cannot be written: File too large"):
            write_video(path, noise, 25)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"the old file"
    assert [found.name for found in tmp_path.iterdir()] == ["kept.mp4"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    frames = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    with pytest.raises(VideoError, match="No such file or directory"):
        write_video(tmp_path / "no" / "a.mp4", frames)
    with pytest.raises(VideoError, match=r"cannot write \.xyz; use \.mp4"):
        write_video(tmp_path / "a.xyz", frames)
    for wrong in (frames.float(), frames[0], frames[:0], frames[..., :1]):
        with pytest.raises(ValueError, match=r"expected uint8 of shape \(T, H, W, 3\)"):
            write_video(tmp_path / "a.mp4", wrong)

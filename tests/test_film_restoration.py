"""Videos without their noise, from files to files."""

from __future__ import annotations

import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from nonlocalnet import film_restoration
from nonlocalnet.denoise import Options, Plan, nl_means
from nonlocalnet.errors import UserError
from nonlocalnet.film_restoration import denoised, middle_of, restore_video, sight_in_video
from nonlocalnet.restoration import Wish
from nonlocalnet.video import Video, VideoError, write_video

SMALL = Options(patch=3, window=5)
WISH = Wish(10.0, 8.0, SMALL)


def levels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(85, 127, shape).astype(np.uint8)


def film(path: Path, frames: int = 11, sound: bool = False) -> Tensor:
    x = torch.from_numpy(levels(frames, 32, 48, 3))
    write_video(path, x, fps=10, qp=0)
    if sound:
        _add_sound(path)
    return x


def _add_sound(path: Path) -> None:
    """The same file with a second of a tone."""
    with_sound = path.with_name("sound.mp4")
    with av.open(str(path)) as source, av.open(str(with_sound), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0])
        audio = out.add_stream("aac", rate=8000, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                out.mux(packet)
        wave = (np.sin(np.arange(8000) / 3) * 9000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate = 8000
        out.mux([*audio.encode(frame), *audio.encode(None)])
    with_sound.replace(path)


@pytest.mark.parametrize(
    "options",
    [SMALL, Options(patch=3, window=5, frames=3), Options(3, 5, patch_frames=3, frames=5)],
)
@pytest.mark.parametrize("frames", [3, 8, 21])
def test_frame_by_frame_equals_the_whole(options: Options, frames: int) -> None:
    x = torch.from_numpy(levels(1, 2, frames, 9, 10))
    plan = Plan.of(x.float(), x.dtype, 20.0, 15.0, options)
    stream = torch.stack(list(denoised(iter(x.unbind(2)), plan)), 2)
    whole = nl_means(x, 20.0, 15.0, **vars(options))
    assert torch.equal(stream, whole)


def test_few_frames_are_in_memory_at_once() -> None:
    given = 0

    def frames() -> list[Tensor]:
        nonlocal given
        for _ in range(60):
            given += 1
            yield torch.zeros(1, 1, 8, 8, dtype=torch.uint8)

    plan = Plan.of(torch.zeros(1, 1, 1, 8, 8), torch.uint8, 5.0, 5.0, Options(3, 3, frames=3))
    ahead = [given - n for n, _ in enumerate(denoised(frames(), plan))]
    assert max(ahead) <= film_restoration.CHUNK + plan.around


def test_a_video_keeps_its_times_and_its_sound(tmp_path: Path) -> None:
    x = film(tmp_path / "in.mp4", sound=True)
    done: list[tuple[int, int | None]] = []
    found = restore_video(
        tmp_path / "in.mp4", tmp_path / "out.mp4", WISH, lambda *at: done.append(at)
    )
    assert (found.frames, found.sigma, found.h) == (11, 10.0, 8.0)
    assert done[-1] == (11, 11)
    with Video(tmp_path / "in.mp4") as old, Video(tmp_path / "out.mp4") as new:
        assert np.allclose(old.timestamps, new.timestamps)
        want = nl_means(
            old.frames(range(11)).permute(3, 0, 1, 2)[None], 10.0, 8.0, patch=3, window=5
        )
        ours = new.frames(range(11)).permute(3, 0, 1, 2)
        # H.264 at crf 16 and 4:2:0 are what is lost
        assert (ours.float() - want[0].float()).abs().mean() < 6
        assert (ours.float() - x.permute(3, 0, 1, 2).float()).abs().mean() > 8
    packets = []
    for name in ("in.mp4", "out.mp4"):
        with av.open(str(tmp_path / name)) as container:
            packets.append([bytes(p) for p in container.demux(audio=0) if p.dts is not None])
    assert packets[0] == packets[1]


def test_noise_of_a_video_is_estimated_from_all_over_it(tmp_path: Path) -> None:
    x = torch.full((12, 32, 48, 3), 128.0)
    x[2:] += 20 * torch.randn(10, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    write_video(tmp_path / "in.mp4", x.clamp(0, 255).byte(), qp=0)  # black and still at first
    found = film_restoration.estimated(tmp_path / "in.mp4", Wish("auto", None, SMALL))
    with Video(tmp_path / "in.mp4") as video:
        spread = video.frames([5]).float().std()
    assert found.sigma == pytest.approx(float(spread), rel=0.4)  # 4:2:0 takes some of it


def test_black_frames_have_no_noise(tmp_path: Path) -> None:
    x = torch.zeros(9, 32, 48, 3)
    x[3:] += 100 + 20 * torch.randn(6, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    write_video(tmp_path / "in.mp4", x.clamp(0, 255).byte(), qp=0)
    assert film_restoration.estimated(tmp_path / "in.mp4", Wish("auto", None, SMALL)).sigma > 5
    write_video(tmp_path / "black.mp4", torch.zeros(9, 32, 48, 3).byte(), qp=0)
    with pytest.raises(UserError, match="no noise was found in most of 9 frames; give --sigma"):
        film_restoration.estimated(tmp_path / "black.mp4", Wish("auto", None, SMALL))


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with pytest.raises(UserError):
        restore_video(tmp_path / "no.mp4", tmp_path / "out.mp4", WISH, lambda *_: None)
    film(tmp_path / "in.mp4", 3)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_video(tmp_path / "in.mp4", tmp_path / "out.mp4", WISH, stop)
    wish = Wish(10.0, 8.0, Options(3, 5, patch_frames=5))
    with pytest.raises(UserError, match="3 frames are fewer than a patch has, 5"):
        restore_video(tmp_path / "in.mp4", tmp_path / "out.mp4", wish, lambda *_: None)
    with pytest.raises(VideoError, match="cannot write"):
        restore_video(tmp_path / "in.mp4", tmp_path / "out.gif", WISH, lambda *_: None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "no.mp4"]


def test_a_pixel_of_a_frame(tmp_path: Path) -> None:
    film(tmp_path / "in.mp4")
    wish = Wish(10.0, 8.0, Options(patch=3, window=5, frames=3))
    sight = sight_in_video(tmp_path / "in.mp4", wish, 0.55, 40, 30)
    assert sight.look.query == (1, 30, 40)
    assert sight.seconds == pytest.approx((0.4, 0.5, 0.6))
    for seconds, x, words in ((9, 0, "outside the video"), (0, 48, "no pixel x 48")):
        with pytest.raises(UserError, match=words):
            sight_in_video(tmp_path / "in.mp4", wish, seconds, x, 0)


KILLED = """
import os, sys
from pathlib import Path
from nonlocalnet.denoise import Options
from nonlocalnet.film_restoration import restore_video
from nonlocalnet.restoration import Wish

def dying(done, total):
    if done == 45:
        os.kill(os.getpid(), 9)

wish = Wish(10.0, 8.0, Options(3, 5, frames=3))
restore_video(Path(sys.argv[1]), Path(sys.argv[2]), wish, dying)
"""


def test_stopped_and_killed_it_goes_on(tmp_path: Path) -> None:
    """As if nothing had been: the same bytes, and nothing beside them."""
    film(tmp_path / "in.mp4", 50, sound=True)
    wish = Wish(10.0, 8.0, Options(3, 5, frames=3))
    whole = restore_video(tmp_path / "in.mp4", tmp_path / "whole.mp4", wish, lambda *_: None)
    out = tmp_path / "out" / "film.mp4"

    def stop(done: int, total: int | None) -> None:
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_video(tmp_path / "in.mp4", out, wish, stop)
    code = [sys.executable, "-c", KILLED, str(tmp_path / "in.mp4"), str(out)]
    assert subprocess.run(code, check=False).returncode == -signal.SIGKILL
    assert not out.exists()
    done: list[int] = []
    found = restore_video(tmp_path / "in.mp4", out, wish, lambda n, _: done.append(n))
    assert (done[0], done[-1], found.frames) == (41, 50, whole.frames)  # parts of 20
    assert out.read_bytes() == whole.path.read_bytes()
    assert list(out.parent.iterdir()) == [out]


def test_parts_of_something_else_are_thrown_away(tmp_path: Path) -> None:
    film(tmp_path / "in.mp4", 25)

    def stop(done: int, total: int | None) -> None:
        if done == 22:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_video(tmp_path / "in.mp4", tmp_path / "out.mp4", WISH, stop)
    assert len(list(tmp_path.glob(".out.mp4.parts/0*.mp4"))) == 1
    done: list[int] = []
    other = Wish(10.0, 9.0, SMALL)
    restore_video(tmp_path / "in.mp4", tmp_path / "out.mp4", other, lambda n, _: done.append(n))
    assert done[0] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_the_middle_frame_is_that_of_both(tmp_path: Path) -> None:
    x = torch.zeros(9, 32, 48, 3, dtype=torch.uint8)
    x += (torch.arange(9, dtype=torch.uint8) * 25)[:, None, None, None]
    write_video(tmp_path / "in.mp4", x, fps=10, qp=0)
    restore_video(tmp_path / "in.mp4", tmp_path / "out.mp4", WISH, lambda *_: None)
    before, after = middle_of(tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert before.mean() == pytest.approx(100, abs=3)
    assert after.mean() == pytest.approx(100, abs=3)


def test_times_that_are_not_even_stay(tmp_path: Path) -> None:
    ticks = np.cumsum([0, 1, 7, 1, 1, 30, 2, 2, 2, 9, 1, 1])
    with av.open(str(tmp_path / "in.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for tick, picture in zip(ticks, levels(12, 32, 48, 3), strict=True):
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = int(tick), Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    restore_video(tmp_path / "in.mp4", tmp_path / "out.mkv", WISH, lambda *_: None)
    with Video(tmp_path / "in.mp4") as old, Video(tmp_path / "out.mkv") as new:
        assert np.allclose(old.timestamps, new.timestamps, atol=1e-3)  # Matroska's milliseconds

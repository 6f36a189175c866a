"""Images and videos without their noise, from files to files."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nonlocalnet import restoration
from nonlocalnet.denoise import Options, Plan, nl_means
from nonlocalnet.errors import UserError
from nonlocalnet.restoration import (
    Wish,
    denoised,
    find_files,
    place_of,
    read_image,
    restore_image,
    restore_video,
    sight_in_image,
    sight_in_video,
)
from nonlocalnet.video import Video, VideoError, write_video

SMALL = Options(patch=3, window=5)
WISH = Wish(10.0, 8.0, SMALL)


def levels(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(top // 3, top // 2, shape).astype(dtype)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("grey.png", levels(20, 24)),
        ("colour.png", levels(20, 24, 3)),
        ("alpha.png", levels(20, 24, 4)),
        ("deep.png", levels(20, 24, dtype=np.uint16)),
        ("float.tif", np.random.default_rng(0).random((20, 24)).astype(np.float32)),
    ],
)
def test_images_of_every_kind(name: str, pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    white = {"uint8": 255, "uint16": 65535, "float32": 1}[pixels.dtype.name]
    wish = Wish(0.1 * white, 0.08 * white, SMALL)
    done = restore_image(tmp_path / name, tmp_path / "new" / name, wish)
    found = np.asarray(Image.open(done.path))
    assert (found.dtype, found.shape) == (pixels.dtype, pixels.shape)
    colours = pixels[..., :3] if pixels.ndim == 3 else pixels[..., None]
    x = torch.from_numpy(colours.copy()).permute(2, 0, 1)
    want = nl_means(x, 0.1 * white, 0.08 * white, patch=3, window=5).permute(1, 2, 0).numpy()
    whole = found[..., None] if found.ndim == 2 else found
    assert np.array_equal(whole[..., :3], want)
    if name == "alpha.png":
        assert np.array_equal(found[..., 3], pixels[..., 3])


def test_an_image_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    cut = tmp_path / "cut.png"
    Image.fromarray(levels(64, 64)).save(cut)
    cut.write_bytes(cut.read_bytes()[:1500])
    tiny = tmp_path / "tiny.png"
    Image.fromarray(levels(2, 2)).save(tiny)
    for path, words in ((bad, "cannot be read"), (cut, "cannot be read"), (tiny, "give a smaller")):
        with pytest.raises(UserError, match=words):
            restore_image(path, tmp_path / "out" / "x.png", WISH)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


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
    assert max(ahead) <= restoration.CHUNK + plan.around


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
    found = restoration.estimated(tmp_path / "in.mp4", Wish("auto", None, SMALL))
    with Video(tmp_path / "in.mp4") as video:
        spread = video.frames([5]).float().std()
    assert found.sigma == pytest.approx(float(spread), rel=0.4)  # 4:2:0 takes some of it


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


def test_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/x.jpg", "b.mp4", "c.txt", ".d.png", "e.avi"):
        (tmp_path / name).write_bytes(b"")
    found = find_files(tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in found] == ["a/x.jpg", "b.mp4", "e.avi"]
    assert [place_of(p, Path(p.name)).name for p in found] == ["x.png", "b.mp4", "e.mp4"]
    with pytest.raises(UserError, match="neither an image nor a video"):
        find_files(tmp_path / "a" / "none")


def test_sights(tmp_path: Path) -> None:
    Image.fromarray(levels(20, 24, dtype=np.uint16)).save(tmp_path / "x.png")
    sight = sight_in_image(tmp_path / "x.png", Wish(5000.0, 4000.0, SMALL), 3, 5)
    assert sight.look.query == (0, 5, 3)
    assert sight.frames.shape == (1, 20, 24, 3)
    assert sight.frames.dtype == torch.uint8
    assert sight.look.weights.sum() == pytest.approx(1)
    film(tmp_path / "in.mp4")
    wish = Wish(10.0, 8.0, Options(patch=3, window=5, frames=3))
    sight = sight_in_video(tmp_path / "in.mp4", wish, 0.55, 40, 30)
    assert sight.look.query == (1, 30, 40)
    assert sight.seconds == pytest.approx((0.4, 0.5, 0.6))
    for seconds, x, words in ((9, 0, "outside the video"), (0, 48, "no pixel x 48")):
        with pytest.raises(UserError, match=words):
            sight_in_video(tmp_path / "in.mp4", wish, seconds, x, 0)


def test_read_image_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_image(tmp_path / "none.png")

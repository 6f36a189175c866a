"""Images and videos without their noise: from files to files, `nonlocalnet denoise`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from .denoise import Options, Plan, Sigma, as_type, as_video, check_numbers, scale_of
from .errors import UserError
from .feeds import Feed, open_feed
from .files import check_place, replacing
from .folders import VIDEO_SUFFIXES
from .look import Sight
from .neighbours import Pixel, sight_of
from .timeline.annotate import GOP_SECONDS, MUXING, TICK
from .timeline.sound import Sound
from .video import Video, VideoError
from .video_writing import WRITABLE, PictureWriter

IMAGES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))
LOSSLESS = frozenset((".png", ".tif", ".tiff", ".bmp"))
MODES = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "PA": "RGBA"}  # read as
CHUNK = 4  # frames that are denoised at a time
ESTIMATED = 9  # frames of a video whose noise is estimated
QUALITY = {"crf": "16", "preset": "veryfast"}
RATE = 30.0  # frames per second where a file does not tell

Pixels = NDArray[np.generic]
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Wish:
    """What is asked for: sigma and h in levels of the file, such as 0 to 255."""

    sigma: Sigma
    h: float | None
    options: Options


@dataclass(frozen=True)
class Restored:
    """A file that was written: sigma and h as used; an image, or one frame, before and after."""

    path: Path
    sigma: float
    h: float
    frames: int
    before: Pixels
    after: Pixels


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its name."""
    return path.suffix.lower() in IMAGES


def find_files(folder: Path) -> list[Path]:
    """Every image and video below a folder, sorted. Raises `UserError` if there is none."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.startswith(".")
        and (is_image(path) or path.suffix.lower() in VIDEO_SUFFIXES)
    ]
    if not found:
        raise UserError(f"{folder}: there is neither an image nor a video file in this folder")
    return found


def place_of(path: Path, out: Path) -> Path:
    """Where a file of a folder is written: as `out`, with an ending that can be written."""
    if is_image(path):
        return out if out.suffix.lower() in LOSSLESS else out.with_suffix(".png")
    return out if out.suffix.lower() in WRITABLE else out.with_suffix(".mp4")


def read_image(path: Path) -> tuple[Pixels, Pixels | None]:
    """(H, W) or (H, W, C) as stored, uint8, uint16 or float32, and the alpha channel if there is.

    Raises `UserError`.
    """
    try:
        with Image.open(path) as image:
            mode = MODES.get(image.mode, image.mode)
            pixels = np.asarray(image.convert(mode) if mode != image.mode else image)
    except (
        OSError,
        UnidentifiedImageError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        reason = getattr(error, "strerror", None) or "it is damaged, or no image that is known"
        raise UserError(f"{path} cannot be read: {reason}") from error
    if pixels.dtype == np.int32:  # 16 bits, in some files
        pixels = pixels.clip(0, 65535).astype(np.uint16)
    if pixels.ndim == 3 and mode in ("RGBA", "LA"):
        alpha = pixels[..., -1]
        pixels = pixels[..., :-1]
        return (pixels[..., 0] if pixels.shape[2] == 1 else pixels), alpha
    return pixels, None


def restore_image(path: Path, out: Path, wish: Wish) -> Restored:
    """An image without its noise, written whole or not at all. Raises `UserError`."""
    pixels, alpha = read_image(path)
    x = as_tensor(pixels)
    plan = plan_for(path, x, wish)
    y = as_type(plan.denoise(as_video(x)), x.dtype)[0, :, 0]
    after = y.permute(1, 2, 0).numpy().reshape(pixels.shape)
    whole = after if alpha is None else np.dstack((after, alpha))
    with replacing(out) as unfinished:
        try:
            Image.fromarray(whole).save(unfinished, format=_format(out))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{out} cannot hold such pixels ({whole.dtype}); use .png or .tif"
            ) from error
    return Restored(out, plan.sigma, float(plan.h), 1, pixels, after)


def _format(out: Path) -> str:
    return Image.registered_extensions()[out.suffix.lower()]


def as_tensor(pixels: Pixels) -> Tensor:
    """(H, W) or (H, W, C) -> (1, C, 1, H, W)."""
    x = torch.from_numpy(np.array(pixels))
    x = x.unsqueeze(2) if x.dim() == 2 else x
    return x.permute(2, 0, 1)[None, :, None]


def white_of(pixels: Pixels) -> float:
    """The largest level of an image's type; 1 of floats."""
    return {"uint8": 255.0, "uint16": 65535.0}.get(pixels.dtype.name, 1.0)


def plan_for(path: Path, x: Tensor, wish: Wish) -> Plan:
    """What is done to x (1, C, T, H, W) of a file. Raises `UserError` with its name."""
    try:
        numbers = as_video(x)
        check_numbers(numbers)
        return Plan.of(numbers, x.dtype, wish.sigma, wish.h, wish.options)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def restore_video(path: Path, out: Path, wish: Wish, progress: Progress) -> Restored:
    """A video without its noise, with its sound and its times, written whole or not at all.

    Memory does not grow with its length. A damaged file is restored as far as it can be read.
    Raises `UserError`.
    """
    wish = estimated(path, wish)
    with open_feed(str(path)) as feed, ExitStack() as closing:
        shown = _Shown(feed)
        frames = iter(shown)
        some = list(islice(frames, wish.options.patch_frames))
        plan = plan_for(path, torch.stack(some, 2), wish)
        sound = Sound.of(path)
        if sound is not None:
            closing.callback(sound.close)
        check_place(out)
        writer = closing.enter_context(_writer(out, feed, sound))
        tick, middle = -1, (feed.frames or 1) // 2
        for number, after in enumerate(denoised(chain(some, frames), plan)):
            picture = np.ascontiguousarray(after[0].permute(1, 2, 0).numpy())
            seconds, before = shown.pop()
            if number <= middle:
                pair = before, picture
            tick = max(tick + 1, round(seconds / TICK))
            writer.add(picture, tick)
            _copy(sound, writer, seconds)
            progress(number + 1, feed.frames)
        _copy(sound, writer, math.inf)
    return Restored(out, plan.sigma, float(plan.h), number + 1, *pair)


def _writer(out: Path, feed: Feed, sound: Sound | None) -> PictureWriter:
    rate = Fraction(feed.fps or RATE).limit_denominator(1001)
    return PictureWriter(
        out,
        TICK,
        round(GOP_SECONDS * rate),
        QUALITY,
        rate=rate,
        sound=None if sound is None else sound.stream,
        muxing=MUXING if WRITABLE.get(out.suffix.lower()) == "mp4" else {},
    )


def _copy(sound: Sound | None, writer: PictureWriter, seconds: float) -> None:
    """The sound up to a time, as it is."""
    for packet in () if sound is None else sound.until(seconds):
        writer.add_sound(packet)


class _Shown:
    """The frames of a feed as (1, 3, H, W) float32; iterate once.

    `pop` gives the time and the picture of the oldest one that it was not yet asked for.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed, self._kept = feed, list[tuple[float, NDArray[np.uint8]]]()

    def __iter__(self) -> Iterator[Tensor]:
        size: tuple[int, ...] | None = None
        for frame in self._feed:
            size = size or frame.picture.shape
            if frame.picture.shape != size:
                raise VideoError(self._feed.name, "the picture size changes on the way")
            self._kept.append((frame.seconds, frame.picture))
            yield as_tensor(frame.picture)[:, :, 0]

    def pop(self) -> tuple[float, NDArray[np.uint8]]:
        return self._kept.pop(0)


def estimated(path: Path, wish: Wish) -> Wish:
    """The same with sigma estimated, from frames all over a video: their median."""
    if wish.sigma != "auto":
        return wish
    from .noise import estimate_sigma  # needs scikit-image

    with Video(path) as video:
        numbers = np.linspace(0, len(video) - 1, min(ESTIMATED, len(video))).round().astype(int)
        frames = video.frames(np.unique(numbers)).permute(0, 3, 1, 2)
    try:
        found = [estimate_sigma(frame[None, :, None].float()) for frame in frames]
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    sigma = float(np.median(found))
    return Wish(sigma, wish.h, wish.options)


def denoised(frames: Iterable[Tensor], plan: Plan) -> Iterator[Tensor]:
    """Each frame (1, C, H, W) of a video without its noise, a few kept in memory at a time.

    The same as of all frames together: a frame depends on `plan.around` before and after it.
    """
    kept: list[Tensor] = []
    done = 0
    for frame in frames:
        kept.append(frame)
        if len(kept) >= done + CHUNK + plan.around:
            yield from _some(kept, done, done + CHUNK, plan)
            gone = max(0, done + CHUNK - plan.around)
            del kept[:gone]
            done += CHUNK - gone
    if done < len(kept):
        yield from _some(kept, done, len(kept), plan)


def _some(kept: list[Tensor], first: int, last: int, plan: Plan) -> Iterator[Tensor]:
    x = as_video(torch.stack(kept, 2))
    yield from as_type(plan.denoise(x, first, last), kept[0].dtype).unbind(2)


def sight_in_image(path: Path, wish: Wish, x: int, y: int) -> Sight:
    """What a pixel of an image is made of. Raises `UserError`."""
    pixels, _ = read_image(path)
    return _sight(path, as_tensor(pixels), wish, Pixel(0, y, x), None)


def sight_in_video(path: Path, wish: Wish, seconds: float, x: int, y: int) -> Sight:
    """What a pixel of the frame shown at a time is made of. Raises `UserError`."""
    wish = estimated(path, wish)
    with Video(path) as video:
        if not 0 <= seconds <= video.info.duration:
            raise UserError(
                f"{path}: {seconds:g} s lies outside the video, of {video.info.duration:.2f} s"
            )
        at = max(int(np.searchsorted(video.timestamps, seconds, side="right")) - 1, 0)
        around = wish.options.frames // 2 + wish.options.patch_frames // 2
        first, last = max(0, at - around), min(len(video), at + around + 1)
        numbers = np.arange(first, last)
        frames = video.frames(numbers)  # (T, H, W, 3)
        times = tuple(video.timestamps[numbers].tolist())
    return _sight(path, frames.permute(3, 0, 1, 2)[None], wish, Pixel(at - first, y, x), times)


def _sight(
    path: Path, x: Tensor, wish: Wish, pixel: Pixel, seconds: tuple[float, ...] | None
) -> Sight:
    plan = plan_for(path, x, wish)
    shown = (as_video(x)[0].permute(1, 2, 3, 0) * (255 / scale_of(x.dtype))).round().clamp(0, 255)
    shown = shown.byte().expand(*shown.shape[:3], 3) if shown.shape[3] == 1 else shown.byte()
    try:
        return sight_of(as_video(x), pixel, plan, shown, seconds, str(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None

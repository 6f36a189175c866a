"""Videos without their noise, in bounded memory; what is done is not done again."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .denoise import Plan, as_type, as_video
from .errors import UserError
from .feeds import Feed, open_feed
from .files import check_place
from .film_parts import FilmParts
from .look import Sight
from .neighbours import Pixel
from .restoration import Pixels, Restored, Wish, as_tensor, plan_for, sight_in, stamp_of
from .timeline.annotate import GOP_SECONDS, TICK
from .timeline.sound import Sound
from .video import Video, VideoError

CHUNK = 4  # frames that are denoised at a time
ESTIMATED = 9  # frames of a video whose noise is estimated
RATE = 30.0  # frames per second where a file does not tell

Progress = Callable[[int, int | None], None]


def restore_video(path: Path, out: Path, wish: Wish, progress: Progress) -> Restored:
    """A video without its noise, with its sound and its times, written whole or not at all.

    Memory does not grow with its length. Stopped or killed, the same call goes on where it was. A
    damaged file is restored as far as it can be read. Raises `UserError`.
    """
    wish = estimated(path, wish)
    check_place(out)
    with open_feed(str(path)) as feed:
        ticks = deque[int]()
        frames = _frames(feed, ticks)
        some = list(islice(frames, wish.options.patch_frames))
        plan = plan_for(path, torch.stack(some, 2), wish)
        rate = Fraction(feed.fps or RATE).limit_denominator(1001)
        parts = FilmParts(out, stamp_of(path, wish), rate, max(1, round(GOP_SECONDS * rate)))
        done = parts.frames
        seen, number = min(done, plan.around), done
        given = islice(chain(some, frames), done - seen, None)
        try:
            for after in denoised(given, plan, wish.device, seen):
                for _ in range(done if number == done else 0):
                    ticks.popleft()  # of frames that are in the parts
                parts.add(np.ascontiguousarray(after[0].permute(1, 2, 0).numpy()), ticks.popleft())
                number += 1
                progress(number, feed.frames)
            _join(parts, path)
        except BaseException as error:
            parts.stop()
            if isinstance(error, VideoError) and error.path == feed.name:
                parts.remove()  # it would end there again
            raise
    return Restored(out, plan.sigma, float(plan.h), number, feed.damaged)


def _join(parts: FilmParts, path: Path) -> None:
    sound = Sound.of(path)
    try:
        parts.join(sound)
    finally:
        if sound is not None:
            sound.close()


def _frames(feed: Feed, ticks: deque[int]) -> Iterator[Tensor]:
    """The frames of a feed as (1, 3, H, W) uint8, and when each is shown, in units of TICK."""
    size: tuple[int, ...] | None = None
    tick = -1
    for frame in feed:
        size = size or frame.picture.shape
        if frame.picture.shape != size:
            raise VideoError(feed.name, "the picture size changes on the way")
        tick = max(tick + 1, round(frame.seconds / TICK))
        ticks.append(tick)
        yield as_tensor(frame.picture)[:, :, 0]


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
    if sigma == 0:
        raise UserError(f"{path}: no noise was found in most of {len(found)} frames; give --sigma")
    return dataclasses.replace(wish, sigma=sigma)


def denoised(
    frames: Iterable[Tensor], plan: Plan, device: str = "cpu", seen: int = 0
) -> Iterator[Tensor]:
    """Each frame (1, C, H, W) of a video without its noise, a few kept in memory at a time.

    The same as of all frames together: a frame depends on `plan.around` before and after it. Of the
    first, `seen` are there to be seen alone.
    """
    kept: list[Tensor] = []
    done = seen
    for frame in frames:
        kept.append(frame)
        if len(kept) >= done + CHUNK + plan.around:
            yield from _some(kept, done, done + CHUNK, plan, device)
            gone = max(0, done + CHUNK - plan.around)
            del kept[:gone]
            done += CHUNK - gone
    if done < len(kept):
        yield from _some(kept, done, len(kept), plan, device)


def _some(kept: list[Tensor], first: int, last: int, plan: Plan, device: str) -> Iterator[Tensor]:
    x = as_video(torch.stack(kept, 2).to(device))
    yield from as_type(plan.denoise(x, first, last), kept[0].dtype).cpu().unbind(2)


def middle_of(path: Path, restored: Path) -> tuple[Pixels, Pixels]:
    """The middle frame of a video before and after, (H, W, 3) uint8, as it was written."""
    with Video(restored) as new, Video(path) as old:
        at = len(new) // 2
        before = int(np.abs(old.timestamps - new.timestamps[at]).argmin())
        return old.frames([before])[0].numpy(), new.frames([at])[0].numpy()


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
    return sight_in(path, frames.permute(3, 0, 1, 2)[None], wish, Pixel(at - first, y, x), times)

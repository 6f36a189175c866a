"""A video file and places in it -> what the network looks at from there, in the video's pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import nn

from .attention import attend
from .card import Card, card_of
from .clips import Indices, test_views
from .errors import UserError
from .look import Look, Sight
from .transforms import Box, crop_boxes, normalize, test_crops
from .video import Video

Place = tuple[float, float, float]  # seconds; x and y in fractions of the frame, from its top left

PLACE = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*s?\s*:\s*(\d*\.?\d+|\d+\.)\s*,\s*(\d*\.?\d+|\d+\.)\s*")


def parse_position(text: str) -> Place:
    """Seconds, then fractions of width and height: "1.2s:0.40,0.55" -> (1.2, 0.40, 0.55).

    Raises `UserError` for text of another form.
    """
    match = PLACE.fullmatch(text)
    if match is None:
        raise UserError(
            f"{text!r} is no place in a video; expected SECONDS:X,Y with X and Y in fractions of"
            " the frame's width and height, such as 1.2s:0.40,0.55"
        )
    seconds, across, down = map(float, match.groups())
    return seconds, across, down


def attend_video(
    model: nn.Module,
    path: str | os.PathLike[str],
    at: Sequence[Place] = (),
    block: str | None = None,
    top: int = 20,
    count: int = 3,
) -> tuple[Sight, ...]:
    """What the network looks at from places of a video: one `Sight` per place, in order.

    A place is seen in a clip that `evaluate` and `predict` show the network, its centre crop: of
    the card's test clips around that time the one whose middle is nearest. Where they leave the
    time out, as in long videos, a clip of the same frame steps is laid around it.

    at: (seconds, x, y), x and y in fractions of the original frame from its top left corner. None
        given: `count` places of the middle clip, chosen as `attend` does.
    block, top: as for `attend`.

    Raises `UserError` for a place outside the video or the crop, for a network without a card or
    that block, and, as `VideoError`, for a file that cannot be read.
    """
    card = card_of(model)
    look = partial(attend, model, block=block, top=top, count=count)
    with Video(path) as video:
        if not at:
            return _sights(look, video, card, test_views(len(video), card, 1)[0], None)
        for place in at:
            _check_time(video, place[0])
        clips = [_clip_around(video, card, seconds) for seconds, _, _ in at]
        found: dict[int, Sight] = {}
        for clip in {clip.tobytes(): clip for clip in clips}.values():
            here = [i for i, other in enumerate(clips) if np.array_equal(other, clip)]
            sights = _sights(look, video, card, clip, [at[i] for i in here])
            found.update(zip(here, sights, strict=True))
    return tuple(found[i] for i in range(len(at)))


def _sights(
    look: Callable[..., tuple[Look, ...]],
    video: Video,
    card: Card,
    clip: Indices,
    places: Sequence[Place] | None,
) -> tuple[Sight, ...]:
    """Look at places that share a clip; without any, `look` chooses."""
    frames = video.frames(clip)  # (T, H, W, 3)
    size = (frames.shape[1], frames.shape[2])
    box = crop_boxes(*size, card, 1)[0]
    crop = test_crops(frames, card, 1)[0]  # (3, T, S, S)
    queries = None
    if places is not None:
        queries = [
            (
                float(np.abs(clip - _frame_at(video, place[0])).argmin()),
                *_in_crop(place, size, box, crop.shape[-1]),
            )
            for place in places
        ]
    shown = crop.permute(1, 2, 3, 0)  # (T, S, S, 3)
    seconds = tuple(video.timestamps[clip].tolist())
    looks = look(normalize(crop, card), queries)
    return tuple(Sight(found, shown, seconds, video.path, box) for found in looks)


def _check_time(video: Video, seconds: float) -> None:
    length = video.info.duration
    if not 0 <= seconds <= length:
        raise UserError(
            f"{video.path}: {seconds:g} s lies outside the video, which lasts {length:.2f} s"
        )


def _frame_at(video: Video, seconds: float) -> int:
    """The frame shown at that time."""
    return max(int(np.searchsorted(video.timestamps, seconds, side="right")) - 1, 0)


def _clip_around(video: Video, card: Card, seconds: float) -> Indices:
    """The test clip whose middle is nearest to a time it covers, else one laid around the time."""
    number = _frame_at(video, seconds)
    clips = test_views(len(video), card, card.clips)  # (V, T)
    first, last = clips.min(1), clips.max(1)
    away = np.abs(first + last - 2 * number)
    around = (first <= number) & (number <= last)
    if around.any() or card.sampling == "segments":  # whose clips all span the video
        return clips[away.argmin()]  # all are alike long, so it covers the time if one does
    # the video is longer than its clips together
    length = int(last[0] - first[0])
    start = min(max(number - length // 2, 0), len(video) - 1 - length)
    return clips[0] - first[0] + start


def _in_crop(place: Place, size: tuple[int, int], box: Box, side: int) -> tuple[float, float]:
    """(y, x) of a place in pixels of the crop, `side` of them along each edge."""
    _, across, down = place
    if not (0 <= across <= 1 and 0 <= down <= 1):
        raise UserError(
            f"a place is given in fractions of the frame, 0 to 1, not x {across:g} and y {down:g}"
        )
    height, width = size
    y, x = (
        (fraction * length - start) / box.side * side - 0.5
        for fraction, length, start in ((down, height, box.top), (across, width, box.left))
    )
    if not (-0.5 <= y <= side - 0.5 and -0.5 <= x <= side - 0.5):
        raise UserError(
            f"x {across:g}, y {down:g} lies outside the square that the network sees of this"
            f" {width} x {height} video: x from {box.left / width:.2f} to"
            f" {(box.left + box.side) / width:.2f}, y from {box.top / height:.2f} to"
            f" {(box.top + box.side) / height:.2f}"
        )
    return y, x

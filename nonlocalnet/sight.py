"""A video file and places in it -> what the network looks at from there, in the video's pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from .attention import attend
from .card import Card, card_of
from .clips import Indices, test_views
from .errors import UserError
from .footage import Footage
from .look import Look, Point, Sight, View
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


@dataclass(frozen=True, eq=False)
class Shot:
    """A clip of a video as a network sees it.

    crop: (3, T, S, S) uint8. indices: (T,), its frames in the video; seconds: their times.
    size: (H, W) of the video; box: the square of it that the crop shows. path: the video.
    """

    crop: Tensor
    indices: Indices
    seconds: tuple[float, ...]
    size: tuple[int, int]
    box: Box
    path: str

    @cached_property
    def frames(self) -> Tensor:
        """(T, S, S, 3) uint8."""
        return self.crop.permute(1, 2, 3, 0)

    def sight(self, look: Look) -> Sight:
        """A look at this clip, with its frames."""
        return Sight(look, self.frames, self.seconds, self.path, self.box)


def shoot(video: Footage, card: Card, path: str, seconds: float | None = None) -> Shot:
    """The clip that `evaluate` and `predict` show the network, its centre crop.

    path: what the video is called.
    seconds: of the card's test clips around that time the one whose middle is nearest; where they
        leave the time out, as in long videos, a clip of the same frame steps laid around it. None:
        the clip in the middle.

    Raises `UserError` for a time outside the video.
    """
    if seconds is None:
        indices = test_views(len(video), card, 1)[0]
    else:
        _check_time(video, seconds, path)
        indices = _clip_around(video, card, seconds)
    return _shot(video, card, indices, path)


def _shot(video: Footage, card: Card, indices: Indices, path: str) -> Shot:
    frames = video.frames(indices)  # (T, H, W, 3)
    size = (frames.shape[1], frames.shape[2])
    box = crop_boxes(*size, card, 1)[0]
    times = tuple(video.timestamps[indices].tolist())
    return Shot(test_crops(frames, card, 1)[0], indices, times, size, box, path)


def attend_video(
    model: nn.Module,
    path: str | os.PathLike[str],
    at: Sequence[Place] = (),
    block: str | Sequence[str] | None = None,
    top: int = 20,
    count: int = 3,
    view: View = "row",
) -> tuple[Sight, ...]:
    """What the network looks at from places of a video: a `Sight` per place and block, in order.

    A place is seen in the clip that `shoot` gives for its time.

    at: (seconds, x, y), x and y in fractions of the original frame from its top left corner. None
        given: `count` places of the middle clip, chosen as `attend` does.
    block, top, view: as for `attend`.

    Raises `UserError` for a place outside the video or the crop, for a network without a card or
    that block, and, as `VideoError`, for a file that cannot be read.
    """
    card = card_of(model)

    def look(shot: Shot, queries: Sequence[Sequence[float]] | None) -> tuple[Sight, ...]:
        return attend_shot(model, shot, queries, block, top, count, view)

    with Video(path) as video:
        if not at:
            return look(shoot(video, card, video.path), None)
        for place in at:
            _check_time(video, place[0], video.path)
        clips = [_clip_around(video, card, seconds) for seconds, _, _ in at]
        found: dict[int, tuple[Sight, ...]] = {}
        for clip in {clip.tobytes(): clip for clip in clips}.values():
            here = [i for i, other in enumerate(clips) if np.array_equal(other, clip)]
            shot = _shot(video, card, clip, video.path)
            sights = look(shot, [point_of(at[i], shot, _frame_at(video, at[i][0])) for i in here])
            blocks = len(sights) // len(here)
            found |= {i: sights[k * blocks : (k + 1) * blocks] for k, i in enumerate(here)}
    return tuple(sight for i in range(len(at)) for sight in found[i])


def attend_shot(
    model: nn.Module,
    shot: Shot,
    queries: Sequence[Sequence[float]] | None = None,
    block: str | Sequence[str] | None = None,
    top: int = 20,
    count: int = 3,
    view: View = "row",
) -> tuple[Sight, ...]:
    """What the network looks at from points (frame, y, x) of a shot; all as `attend` has it."""
    clip = normalize(shot.crop, card_of(model))
    looks = attend(model, clip, queries, block, top, count=count, view=view)
    return tuple(shot.sight(look) for look in looks)


def point_of(place: Place, shot: Shot, frame: int) -> Point:
    """(frame, y, x) of a place in a shot; frame: of the video, the one that is shown then."""
    y, x = _in_crop(place, shot.size, shot.box, shot.crop.shape[-1])
    return float(np.abs(shot.indices - frame).argmin()), y, x


def _check_time(video: Footage, seconds: float, path: str) -> None:
    length = video.info.duration
    if not 0 <= seconds <= length:
        raise UserError(f"{path}: {seconds:g} s lies outside the video, which lasts {length:.2f} s")


def _frame_at(video: Footage, seconds: float) -> int:
    """The frame shown at that time."""
    return max(int(np.searchsorted(video.timestamps, seconds, side="right")) - 1, 0)


def _clip_around(video: Footage, card: Card, seconds: float) -> Indices:
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

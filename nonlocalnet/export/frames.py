"""The real clips that an exported network is calibrated and compared on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from ..card import Card
from ..datasets import Broken, ViewDataset
from ..errors import UserError
from ..inputs import Paths, find_videos
from ..synthetic import LEVELS, Reunion, draw_clip
from ..transforms import test_crops

MOST = 32  # videos; more of them change an int8 network's ranges little
LEAST = 4  # clips that are drawn where there are no videos
STEPS = 12  # frames of a stream

Progress = Callable[[int, int], None]


def real_clips(card: Card, videos: Paths | None, stream: bool, progress: Progress) -> Tensor:
    """Clips (V, 3, T, S, S) uint8, one out of the middle of each video, as the network takes them.

    videos: what `find_videos` takes; at most 32 are used, evenly chosen. None: clips of reunion
        are drawn. stream: at least 12 frames each.

    Raises `UserError` if none of the videos can be used.
    """
    if stream:
        card = dataclasses.replace(card, frames=max(card.frames, STEPS))
    if videos is None:
        level = dataclasses.replace(LEVELS["hard"], frames=32)
        return torch.cat([_drawn(card, level, i) for i in range(LEAST)])
    found = [item for item in find_videos(videos) if isinstance(item, str)]
    chosen = found[:: max(1, len(found) // MOST)][:MOST]
    views = ViewDataset(chosen, card, clips=1, crops=1)
    clips, reason = [], "there is none"
    for i in range(len(chosen)):
        view = views[i]
        if isinstance(view, Broken):
            reason = view.reason
        else:
            clips.append(view.clips)
        progress(i + 1, len(chosen))
    if not clips:
        raise UserError(
            f"no video of {videos} can be used ({reason}); --calibrate takes a folder of videos"
            " like those that the network is for"
        )
    return torch.cat(clips)


def _drawn(card: Card, level: Reunion, index: int) -> Tensor:
    """One drawn clip (1, 3, T, S, S); longer ones go on forwards and backwards."""
    frames = draw_clip(level, 0, "test", index).frames
    there = itertools.cycle([*range(len(frames)), *reversed(range(len(frames)))])
    return test_crops(frames[list(itertools.islice(there, card.frames))], card, 1)

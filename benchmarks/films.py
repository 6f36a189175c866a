"""The files that decoding.py and preparing.py read, and a training clip as ours makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from nonlocalnet.card import Card
from nonlocalnet.clips import training_clip
from nonlocalnet.transforms import train_transform
from nonlocalnet.video import Video, VideoError

HEIGHT, WIDTH, RATE, SECONDS = 256, 340, 30, 10
LONGEST = 300  # pictures of a video that are used


def pictures(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Iterator[av.VideoFrame]:
    """The pictures of a video forwards, backwards, forwards ... without end."""
    with av.open(str(path)) as container:
        found = [f.reformat(*size, "yuv420p") for f in islice(container.decode(video=0), LONGEST)]
    order = [*range(len(found)), *range(len(found) - 2, 0, -1)]
    while True:
        yield from (found[number] for number in order)


def rendered(seed: int) -> Iterator[av.VideoFrame]:
    """Soft waves that drift, discs that move before them, and the noise of a camera."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    waves = [(*rng.normal(0, 0.05, 2), rng.uniform(0, 6), rng.normal(0, 25, 3)) for _ in range(24)]
    discs = [
        (rng.uniform(0, 300, 2), rng.normal(0, 3, 2), rng.integers(256, size=3)) for _ in range(6)
    ]
    speed, time = rng.normal(0, 1.5, 2), 0
    while True:
        image = np.full((HEIGHT, WIDTH, 3), 120, np.float32)
        for a, b, phase, colour in waves:
            wave = np.sin(a * (y + time * speed[0]) + b * (x + time * speed[1]) + phase)
            image += wave[..., None] * colour.astype(np.float32)
        for place, step, colour in discs:
            v, h = (place + time * step) % (HEIGHT, WIDTH)
            image[(y - v) ** 2 + (x - h) ** 2 < 900] = colour
        image += rng.normal(0, 3, image.shape)
        frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8))
        yield frame.reformat(format="yuv420p")
        time += 1


def write(path: Path, given: Iterator[av.VideoFrame], gop: int, frames: int) -> None:
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"threads": "1"})
        stream.gop_size, stream.pix_fmt = gop, "yuv420p"
        first = next(given)
        stream.width, stream.height = first.width, first.height
        for number, frame in enumerate(chain([first], islice(given, frames - 1))):
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, RATE), 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def sources(videos: str | None) -> list[Callable[..., Iterator[av.VideoFrame]]]:
    """The pictures of every fit video of a folder, or four rendered ones."""
    if videos is None:
        return [partial(rendered, seed) for seed in range(4)]
    found = []
    for path in sorted(Path(videos).iterdir()):
        try:
            with Video(path) as video:
                fit = len(video) > RATE and min(video.info.height, video.info.width) >= 180
        except VideoError:  # a text, a folder
            continue
        found += [partial(pictures, path)] if fit else []
    return found


def ours(path: str, card: Card, seed: int) -> Tensor:
    """What `VideoDataset` does for an item."""
    generator = torch.Generator().manual_seed(seed)
    with Video(path) as video:
        frames = video.frames(training_clip(len(video), card, generator))
    return train_transform(frames, card, generator)

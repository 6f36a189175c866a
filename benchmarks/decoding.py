"""P15: from a file to a training clip, ours against the orders of work of PySlowFast and MMAction2.

    python benchmarks/decoding.py [--videos FOLDER] [--seconds 6] [--check]

The files are ten seconds of 340 x 256 at 30 frames per second, H.264 as FFmpeg's defaults write it
(preset medium, crf 23), with a key frame every 12 and every 250 frames: made from the videos of a
folder, else rendered. All read the same files, the same frames and the same crop, in turns, each in
a process that does what its loader's would; their forms are in orders.py, and need
`pip install opencv-python-headless decord`. One turn is every file four times; kept is the
CPU time per clip.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import orders
import torch
from films import HEIGHT, RATE, SECONDS, WIDTH, ours, sources, write
from goals import CLIPS, GOPS, ONE_THREAD, ORDERS
from measure import command_line, cpu_seconds, paired, report
from torch import Tensor

from nonlocalnet.card import Card
from nonlocalnet.children import end, start
from nonlocalnet.clips import training_clip
from nonlocalnet.opening import VideoFile
from nonlocalnet.reading import keep_memory
from nonlocalnet.transforms import normalize, train_box, train_transform
from nonlocalnet.upright import upright
from nonlocalnet.video import Video

THEIRS: dict[str, Callable[..., Tensor]] = {
    ORDERS[0]: orders.pyslowfast,
    ORDERS[1]: orders.mmaction2_pyav,
    ORDERS[2]: orders.mmaction2_decord,
    ONE_THREAD[0]: partial(orders.pyslowfast, rgb=orders.one_thread),
    ONE_THREAD[1]: partial(orders.mmaction2_pyav, rgb=orders.one_thread),
}


def make(folder: Path, videos: str | None, gop: int, check: bool) -> list[str]:
    """The files with this distance of key frames."""
    paths = []
    for number, source in enumerate(sources(videos)[: 1 if check else None]):
        paths.append(str(folder / f"{number}_{gop}.mp4"))
        write(Path(paths[-1]), source(), gop, 70 if check else RATE * SECONDS)
    return paths


def draw(path: str, card: Card, seed: int) -> orders.Draw:
    """The same as ours draws."""
    generator = torch.Generator().manual_seed(seed)
    with Video(path) as video:
        start = int(training_clip(len(video), card, generator)[0])
    box = train_box(HEIGHT, WIDTH, card, generator)
    return orders.Draw(start, *box, bool(torch.randint(2, (), generator=generator)))


def same(mine: Tensor, other: Tensor, card: Card) -> float:
    """Mean difference in grey levels: of the order of work, not of another frame or place."""
    if other.is_floating_point():
        other = (other * card.std[0] + card.mean[0]) * 255
    return float((mine.float() - other.float()).abs().mean())


def serve(pipe: Connection, act: Callable[[], None], begin: Callable[[], None]) -> None:
    """A process that reads as a loader's does: sends the CPU seconds of an act when asked."""
    torch.set_num_threads(1)
    begin()
    while pipe.recv():
        pipe.send(cpu_seconds(act))


@contextmanager
def asked(act: Callable[[], None], begin: Callable[[], None]) -> Iterator[Callable[[], float]]:
    pipe, process = start(serve, act, begin)

    def ask() -> float:
        pipe.send(True)
        seconds: float = pipe.recv()
        return seconds

    try:
        yield ask
    finally:
        end(pipe, process)


def measured(paths: list[str], card: Card, seconds: float) -> dict[str, Any]:
    """A row for each of the others."""
    keys = [(path, seed) for seed, path in enumerate(paths * 4)]  # the start decides the cost
    draws = [draw(path, card, seed) for path, seed in keys]
    rows = {}

    def all_ours() -> None:
        for path, seed in keys:
            ours(path, card, seed)

    for name, order in THEIRS.items():

        def all_theirs(order: Callable[..., Tensor] = order) -> None:
            for (path, _), drawn in zip(keys, draws, strict=True):
                order(path, card.frames, card.stride, drawn)

        with asked(all_ours, keep_memory) as mine, asked(all_theirs, lambda: None) as other:
            row = paired(mine, other, seconds, lambda ask, _: ask())
        (path, seed), drawn = keys[0], draws[0]
        apart = same(ours(path, card, seed), order(path, card.frames, card.stride, drawn), card)
        row |= {key: row[key] / len(keys) for key in ("ours_s", "theirs_s")}
        rows[name] = row | {"grey_levels_apart": apart}
    return rows


def breakdown(paths: list[str], card: Card, rounds: int) -> dict[str, float]:
    """Median CPU milliseconds per clip of each step of ours, measured one by one."""
    found: dict[str, list[float]] = {}
    for path in paths:
        for seed in range(rounds):
            file = VideoFile(path)
            container, stream = file.open()
            with Video(path) as video:
                clip = training_clip(len(video), card, torch.Generator().manual_seed(seed))
                pictures = [frame for _, frame in video._pictures(np.unique(clip))]
                whole = video.frames(clip)
                box = torch.Generator().manual_seed(seed)
                small = train_transform(whole, card, box)
                steps: dict[str, Callable[[], Any]] = {
                    "open": lambda file=file: file.open()[0].close(),
                    "scan": lambda f=file, c=container, s=stream: f.scan(c, s),
                    "decode": lambda v=video, c=clip: list(v._pictures(np.unique(c))),
                    "RGB": lambda v=video, p=pictures: [upright(f, v._rgb).copy() for f in p],
                    "crop, resize": lambda w=whole, g=box: train_transform(w, card, g),
                    "normalise (on the device, not here)": lambda s=small: normalize(s, card),
                }
                for name, step in steps.items():
                    found.setdefault(name, []).append(cpu_seconds(step) * 1e3)
            container.close()
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    told = command_line(__doc__.splitlines()[0], {"P15": None}, videos=True)
    torch.set_num_threads(1)
    orders.cv2.setNumThreads(1)
    keep_memory()
    kind = "made from real videos" if told.videos else "rendered"
    result: dict[str, Any] = {"files": kind, "rows": {}, "breakdown": {}}
    with tempfile.TemporaryDirectory() as folder:
        files = {gop: make(Path(folder), told.videos, gop, told.check) for gop in GOPS}
        for clip in CLIPS:
            frames, stride = map(int, clip.split("x"))
            card = Card(frames=frames, stride=stride)
            for gop, paths in files.items():
                for name, row in measured(paths, card, told.seconds).items():
                    result["rows"][f"{clip}, GOP {gop}, {name}"] = row
                result["breakdown"][f"{clip}, GOP {gop}"] = breakdown(paths, card, 5)
    report("P15", result, told.check)
    for name, steps in result["breakdown"].items():
        print(name, "  ".join(f"{step} {ms:.2f} ms" for step, ms in steps.items()))


if __name__ == "__main__":
    main()

"""Resident memory of a reading process over 10,000 training clips; keeps the curve as JSON.

    python benchmarks/worker_memory.py [--clips 10000]

One process of the loader that training uses reads clips of 60 small files of every kind: sizes
that differ, mp4 and Matroska, AVI, whose frames must be counted, one cut off and one that is no
video. Its memory is Linux's VmRSS from outside, every 250 clips.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import torch
from measure import keep

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import video_files  # noqa: E402

from nonlocalnet.card import Card  # noqa: E402
from nonlocalnet.datasets import VideoDataset  # noqa: E402
from nonlocalnet.reading import as_it_is, loader, read  # noqa: E402
from nonlocalnet.samples import Sample  # noqa: E402

EVERY = 250  # clips between two looks
CARD = Card(frames=8, stride=4, crop=56, jitter=(64, 80))


def files(folder: Path, count: int = 60) -> list[Path]:
    """Small videos of several sizes and containers, one of them cut off and one broken."""
    kinds = ({"container": "mp4"}, {"container": "matroska"}, {"container": "avi"})
    paths = []
    for number in range(count):
        path = folder / f"{number}.video"
        size = (64 + 16 * (number % 5), 96 + 16 * (number % 7))
        kind = kinds[0 if number % 3 else number // 3 % 3]
        video_files.encode(path, frames=40 + number, size=size, **kind)
        paths.append(path)
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    paths[2].write_text("no video")
    return paths


def resident(pid: int) -> int:
    """Bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def curve(paths: list[Path], clips: int, every: int = EVERY) -> Iterator[tuple[int, int]]:
    """(clips read, bytes of the process that reads them)."""
    data = VideoDataset([Sample(str(path), 0, "") for path in paths], CARD)
    keys = [divmod(number, len(paths)) for number in range(clips)]
    items = read(loader(data, 1, as_it_is, sampler=keys, batch_size=None), "")
    for number, _ in enumerate(items, 1):
        if number % every == 0 and number < clips:  # the process ends with its last clip
            (process,) = active_children()
            yield number, resident(process.pid or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=10_000)
    told = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for clips, size in curve(files(Path(folder)), told.clips + 1):
            found.append([clips, size])
            print(f"{clips:6} clips {size / 1e6:8.1f} MB", flush=True)
    keep("worker_memory", {"files": 60, "curve": found})


if __name__ == "__main__":
    main()

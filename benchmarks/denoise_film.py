"""Ten minutes of 480p through NL-means: memory by the minute.

    python benchmarks/denoise_film.py [--minutes 10]

The film, 854 x 480 at 10 frames a second, is a noisy minute that is stored again and again without
being encoded again. It is denoised by what `nonlocalnet denoise` calls, with patches and windows of
3 pixels over 3 frames, so that ten minutes do not take hours; what is kept in memory depends on
the frames and not on the window.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from long_video import repeat
from measure import keep

from nonlocalnet.denoise import Options
from nonlocalnet.film_restoration import restore_video
from nonlocalnet.restoration import Wish
from nonlocalnet.video_writing import PictureWriter

FPS, WIDTH, HEIGHT, NOISE = 10, 854, 480, 15.0
OPTIONS = {"crf": "30", "preset": "ultrafast"}


def film(path: Path, minutes: int) -> None:
    """Waves of grey that move under noise, for a minute, stored `minutes` times."""
    random = np.random.default_rng(0)
    waves = 128 + 60 * np.sin(np.arange(WIDTH) / 20)[None, :, None] + np.zeros((HEIGHT, 1, 3))
    noise = [random.normal(0, NOISE, waves.shape) for _ in range(7)]
    with tempfile.TemporaryDirectory() as folder:
        minute = Path(folder) / "minute.mp4"
        with PictureWriter(minute, Fraction(1, FPS), 12, OPTIONS) as out:
            for i in range(60 * FPS):
                moved = np.roll(waves, i, 1) + noise[i % 7]
                out.add(moved.clip(0, 255).astype(np.uint8), i)
        repeat(minute, path, minutes)


def resident() -> float:
    """Megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(minutes: int) -> dict[str, object]:
    after: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        film(path, minutes)
        began = time.monotonic()

        def progress(done: int, total: int | None) -> None:
            if done % (60 * FPS) == 0:
                after.append(round(resident(), 1))
                rate = done / (time.monotonic() - began)
                print(f"{len(after)} min: {after[-1]:.0f} MB, {rate:.1f} frames/s", flush=True)

        wish = Wish(NOISE, None, Options(patch=3, window=3, frames=3))
        restored = restore_video(path, Path(folder) / "clean.mp4", wish, progress)
    return {"minutes": minutes, "frames": restored.frames, "megabytes": after}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=int, default=10)
    torch.set_num_threads(1)
    keep("denoise_film", run(arguments.parse_args().minutes))

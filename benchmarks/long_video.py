"""Two hours through `nonlocalnet stream`: memory at one minute and at the end, and the speed.

    python benchmarks/long_video.py [--minutes 120]

The film, 160 x 120 at 10 frames a second, is a minute that is stored again and again without
being encoded again. The command itself runs, in a process of its own, once on the first minute and
once on all of it, with every output but the annotated film. Weights are random. Peak memory is
the most that was resident at once (Linux counts it for each process).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from measure import keep

from nonlocalnet.card import card_of, set_card
from nonlocalnet.models import create_model
from nonlocalnet.weights import save

FPS, WIDTH, HEIGHT = 10, 160, 120
MOST = 1.05  # goal: the peak at the end over that of the first minute
# name, and each how many frames are taken: a small network at every frame, a large one at some
NETWORKS = {"tsm_tiny": 4, "tsm_mobilenetv2": 40}


def film(path: Path, minutes: int) -> None:
    """A square that moves through noise, for a minute, stored `minutes` times."""
    with tempfile.TemporaryDirectory() as folder:
        minute = Path(folder) / "minute.mp4"
        still = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3), np.uint8)
        with av.open(str(minute), "w") as out:
            stream = out.add_stream("libx264", rate=FPS, options={"crf": "30"})
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = (
                WIDTH,
                HEIGHT,
                "yuv420p",
                50,
            )
            for number in range(60 * FPS):
                picture = still.copy()
                picture[40:60, number % (WIDTH - 20) :][:, :20] = 255
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            out.mux(stream.encode(None))
        repeat(minute, path, minutes)


def repeat(source: Path, path: Path, times: int) -> None:
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = given.streams.video[0]
        target = out.add_stream_from_template(stream)
        length = round(60 / (stream.time_base or Fraction(1)))
        for number in range(times):
            given.seek(0)
            for packet in given.demux(stream):
                if packet.dts is not None and packet.pts is not None:
                    packet.pts, packet.dts = (
                        packet.pts + number * length,
                        packet.dts + number * length,
                    )
                    packet.stream = target
                    out.mux(packet)


def watch(run: Path, video: Path, out: Path, seconds: float | None) -> dict[str, float]:
    """Peak memory in MB, seconds of the process, and lines of answers."""
    words = [sys.executable, "-m", "nonlocalnet", "stream", str(run), str(video)]
    words += ["-o", str(out), "-o", str(out / "features.npy")]
    words += [] if seconds is None else ["--seconds", str(seconds)]
    start = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(words)} failed")
    lines = sum(1 for _ in (out / "timeline.csv").open()) - 1
    return {
        "peak_mb": usage.ru_maxrss / 1024,
        "wall_s": time.monotonic() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "answers": lines,
    }


def measured(name: str, every: int, video: Path, folder: Path, minutes: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = create_model(name, num_classes=8, shift="past")
    set_card(model, dataclasses.replace(card_of(model), gap=every / FPS))
    run = folder / f"{name}.safetensors"
    save(model, run)
    first = watch(run, video, folder / f"{name}_first", 60.0)
    whole = watch(run, video, folder / f"{name}_whole", None)
    ratio = whole["peak_mb"] / first["peak_mb"]
    # what starting costs is in both
    rate = 60 * (minutes - 1) * FPS / (whole["wall_s"] - first["wall_s"])
    print(
        f"{name}, every {every}: {first['peak_mb']:.0f} MB after 1 minute,"
        f" {whole['peak_mb']:.0f} MB after {minutes} ({ratio:.3f}; goal {MOST}),"
        f" {whole['answers']:,} answers in {whole['wall_s']:.0f} s, {rate:.0f} frames/s",
        flush=True,
    )
    row = {"first_minute": first, "whole": whole, "ratio": ratio, "frames_per_s": rate}
    return {"every": every, "goal": MOST, **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=120)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        video = Path(name) / "film.mp4"
        film(video, told.minutes)
        rows = {
            network: measured(network, every, video, Path(name), told.minutes)
            for network, every in NETWORKS.items()
        }
    result = {"minutes": told.minutes, "fps": FPS, "size": [WIDTH, HEIGHT], "networks": rows}
    keep("long_video", result)


if __name__ == "__main__":
    main()

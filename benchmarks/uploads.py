"""The web app under load: rounds of 20 uploads at once, four of them broken.

    python benchmarks/uploads.py RUN VIDEO [VIDEO ...]

Starts `nonlocalnet serve RUN`, sends 16 of the videos (each as often as needed), an empty file, a
text, half a video and one that is too long, all at once, and asks about each as the page does.
Tells who was answered, how long it took, and the server's resident memory before, at most, and
after each round; in the end that its folder is gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import httpx  # which gradio brings
import torch
from measure import keep

from nonlocalnet.video import write_video

ROUNDS, GOOD, SECONDS = 3, 16, 60


def memory(process: int) -> float:
    """Resident megabytes of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def visit(url: str, network: str, path: Path) -> str:
    """The best class of a video, or the sentence that refuses it."""
    named = {"X-Clip": path.name}
    sent = httpx.post(f"{url}/clip", content=path.read_bytes(), headers=named, timeout=300)
    if sent.status_code != 200:
        return sent.text
    call = f"{url}/gradio_api/call/answer"
    event = httpx.post(call, json={"data": [sent.text, network]}, timeout=300).json()["event_id"]
    first = ""
    with httpx.stream("GET", f"{call}/{event}", timeout=900) as lines:
        for line in lines.iter_lines():
            if line.startswith("data: ["):
                first = first or str(json.loads(line.removeprefix("data: "))[0])
    return "answered" if "nl-verdict" in first else first


def broken(folder: Path, video: Path) -> list[Path]:
    """Four files that are no videos to answer."""
    found = [folder / name for name in ("empty.mp4", "text.mp4", "half.mp4", "long.mp4")]
    found[0].touch()
    found[1].write_text("not a video\n" * 1000)
    found[2].write_bytes(video.read_bytes()[:3000])
    write_video(found[3], torch.zeros(2 * SECONDS, 64, 64, 3, dtype=torch.uint8), 1.0)
    return found


def run(network: Path, videos: Sequence[Path]) -> list[dict[str, float]]:
    """Figures of each round."""
    with tempfile.TemporaryDirectory() as folder:
        bad, temporary = broken(Path(folder), videos[0]), Path(folder) / "tmp"
        temporary.mkdir()
        command = [sys.executable, "-m", "nonlocalnet", "serve", str(network)]
        command += ["--port", "0", "--seconds", str(SECONDS)]
        server = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
        )
        assert server.stdout is not None
        url = next(line for line in server.stdout if "http://" in line).split()[-1]
        found = [
            one_round(server.pid, url, network.resolve().name, videos, bad) for _ in range(ROUNDS)
        ]
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        left = sorted(path.name for path in temporary.rglob("*"))
        print(f"left in its temporary folder: {left}")
        return found


def one_round(
    server: int, url: str, network: str, videos: Sequence[Path], bad: Sequence[Path]
) -> dict[str, float]:
    files = [*islice(cycle(videos), GOOD), *bad]
    before, most, over = memory(server), [0.0], threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            most[0] = max(most[0], memory(server))

    watching = threading.Thread(target=look)
    watching.start()
    began = time.monotonic()
    with ThreadPoolExecutor(len(files)) as pool:
        told = list(pool.map(lambda path: visit(url, network, path), files))
    seconds = time.monotonic() - began
    time.sleep(2)
    over.set()
    watching.join()
    right = sum(word == "answered" for word in told[:GOOD])
    refused = sum(word != "answered" for word in told[GOOD:])
    figures = {"answered": right, "refused": refused, "seconds": round(seconds, 1)}
    figures |= {"before": before, "most": most[0], "after": memory(server)}
    print(*(f"{name} {value:.0f}" for name, value in figures.items()), flush=True)
    for word in sorted({w for w in told if w != "answered"}):
        print(f"  {word}")
    return figures


if __name__ == "__main__":
    rounds = run(Path(sys.argv[1]), [Path(video) for video in sys.argv[2:]])
    keep("uploads", {"rounds": rounds, "videos": len(sys.argv) - 2})

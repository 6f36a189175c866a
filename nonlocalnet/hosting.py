"""The command `serve`: the web app, on this machine."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from .flags import UsageError, find_run, parse_views
from .machine import Device
from .serve.limits import Limits, environment
from .terminal import say


def serve(
    runs: Positional[tuple[Path, ...]],
    limits: Annotated[Limits, arg(name="")],
    host: str = "127.0.0.1",
    port: int = 7860,
    root_path: str = "",
    views: str | None = None,
    device: Device | None = None,
) -> int:
    """A web app: drop a video or open a camera, see what it is, when, and what is looked at.

    Ctrl-C ends it. It loads nothing from elsewhere, and deletes videos once they are answered.

    Args:
        runs: Folders of runs, checkpoints, exported files or published models' names; the first is
            chosen at start.
        limits: What is taken in.
        host: Where to listen; 127.0.0.1 is this machine alone, 0.0.0.0 everybody who can reach it.
        port: Where to listen; 0 takes a free one.
        root_path: Where a reverse proxy puts the page, such as /videos.
        views: Views per video, CLIPSxCROPS, such as 10x3; None is up to three clips, middle square.
        device: Where the networks run; None is the best there is.
    """
    if not runs:
        raise UsageError("serve needs a network: a run, a checkpoint or a published model's name")
    if not 0 <= port <= 65535:
        raise UsageError(f"--port is 0 to 65535; it came as {port}")
    asked = parse_views(views)
    from .serve.networks import serve_network

    paths = [find_run(run) for run in dict.fromkeys(runs)]
    from .exported import open_network
    from .flags import best_device

    chosen = best_device(device)
    names = _names(list(dict.fromkeys(runs)))
    served = [
        serve_network(name, open_network(path, chosen), path, asked)
        for name, path in zip(names, paths, strict=True)
    ]
    with tempfile.TemporaryDirectory(prefix="nonlocalnet-") as folder:
        os.environ.update(environment(f"{folder}/gradio"))
        videos = Path(folder) / "videos"
        videos.mkdir()
        from .serve.app import running
        from .training.interrupt import stop_on_signals

        with running(served, limits, videos, host, port, root_path) as address:
            say(f"{', '.join(names)}: {address}")
            say("Ctrl-C ends it")
            with stop_on_signals() as stop:
                while stop.asked is None:
                    time.sleep(0.2)
    return 0


def _names(runs: list[Path]) -> list[str]:
    """What to call each: its last part, or all of it where that is another's too."""
    short = [run.resolve().name if run.exists() else str(run) for run in runs]
    return [s if short.count(s) == 1 else str(run) for s, run in zip(short, runs, strict=True)]

"""How every benchmark here measures: interleaved, on one thread, with the machine's name beside it.

Process CPU time, because other work on shared cores stretches wall time (events of the device on
CUDA); the ratio is the median of the ratios of neighbouring runs, because the machine's speed
drifts. Peak memory is that of a fresh process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from goals import parts_of
from peak import make
from torch import Tensor

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = 4096
SHORTEST = 0.005  # seconds: shorter calls are repeated until one timing lasts as long

Run = Callable[[], Any]
Timer = Callable[[Run, int], float]  # seconds of one call, over some calls
Row = dict[str, Any]


def cpu_seconds(run: Run, repeats: int = 1) -> float:
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats


def paired(
    ours: Run, theirs: Run, seconds: float = 6.0, timer: Timer = cpu_seconds, least: int = 5
) -> Row:
    """Both in turns after a warm-up each, until `seconds` are over and `least` rounds are done.

    The measured ratio is theirs / ours: how many times faster ours is.
    """
    runs = {"ours": ours, "theirs": theirs}
    for run in runs.values():
        run()
    repeats = {which: max(1, int(SHORTEST / timer(run, 1))) for which, run in runs.items()}
    times: list[dict[str, float]] = []
    end = time.monotonic() + seconds
    while len(times) < least or time.monotonic() < end:
        order = list(runs)[:: 1 if len(times) % 2 else -1]
        times.append({which: timer(runs[which], repeats[which]) for which in order})
    return {
        "measured": spread([t["theirs"] / t["ours"] for t in times]),
        "ours_s": statistics.median(t["ours"] for t in times),
        "theirs_s": statistics.median(t["theirs"] for t in times),
        "rounds": len(times),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def relative(y: Tensor, want: Tensor) -> float:
    """|y - want| / |want|, in float64."""
    return float((y.double() - want).norm() / want.norm())


def peak(step: str, small: dict[str, Any], check: bool = False, **arguments: Any) -> int:
    """Bytes, a page at least, by which a fresh process's resident memory grows in a step (Linux).

    `step` is "module:function" of this folder, a function that makes the step from `arguments`:
    what it makes before it returns the step is not counted. `small` replaces some of the arguments
    for a first step, whose lasting traces (loaded libraries, compiled code) are no growth. A check
    takes the first step only, in this process, and measures nothing.

    Every tensor is mapped by itself, since which holes of a heap it would fill changes from run
    to run.
    """
    if check:
        make(step)(**{**arguments, **small})()
        return PAGE
    given = json.dumps(arguments), json.dumps({**arguments, **small})
    found = subprocess.run(
        [sys.executable, str(HERE / "peak.py"), step, *given],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    return max(PAGE, int(found.stdout))


def machine(device: str = "cpu") -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), cpu)
    found = {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    for package in ("numba", "triton"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def keep(name: str, result: dict[str, Any], device: str = "cpu") -> None:
    """Write benchmarks/results/NAME.json, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    partial = RESULTS / f"{name}.json.partial"
    partial.write_text(json.dumps({"machine": machine(device), **result}, indent=1) + "\n")
    partial.replace(RESULTS / f"{name}.json")


def command_line(does: str, measures: dict[str, Any], videos: bool = False) -> argparse.Namespace:
    """--check, --seconds and the goals to measure, all of `measures` unless some are named.

    videos: with --videos too.
    """
    parser = argparse.ArgumentParser(description=does)
    parser.add_argument("goals", nargs="*", help=f"{', '.join(measures)}; all unless named")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each pair (default 6)")
    parser.add_argument("--check", action="store_true", help="tiny sizes; nothing is kept")
    if videos:
        parser.add_argument("--videos", help="folder of videos to make the files from")
    options = parser.parse_args()
    if unknown := set(options.goals) - set(measures):
        parser.error(f"no goal {', '.join(sorted(unknown))} here, only {', '.join(measures)}")
    options.goals = options.goals or list(measures)
    if options.check:
        options.seconds = 0.0
    return options


def report(goal: str, found: dict[str, Any], check: bool, device: str = "cpu") -> None:
    """Print the rows of a goal, and keep them as its JSON unless this is only a check."""
    rows = found["rows"]
    if set(rows) != set(parts_of(goal)):
        odd = sorted(set(rows) ^ set(parts_of(goal)))
        raise ValueError(f"the rows of {goal} and those of goals.py differ in {odd}")
    for part, row in rows.items():
        figures = "  ".join(f"{row['measured'][k]:9.3g}" for k in ("median", "min", "max"))
        errors = "".join(
            f"  {row[k]:.1e}" for k in ("error_ours", "error_theirs") if row.get(k) is not None
        )
        print(f"{goal:4} {part:62} {figures} {errors}", flush=True)
    if not check:
        keep(goal, found, device)

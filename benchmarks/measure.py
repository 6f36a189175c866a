"""How every benchmark here measures: interleaved, on one thread, with the machine's name beside it.

Process CPU time, because other work on shared cores stretches wall time; the ratio is the median
of the ratios of neighbouring runs, because the machine's speed drifts.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> dict[str, float]:
    """CPU seconds of both, run in turns after one warm-up each, and the median of theirs / ours."""
    ours(), theirs()
    times: list[tuple[float, float]] = []
    for i in range(rounds):
        pair = {}
        for which, run in (("ours", ours), ("theirs", theirs))[:: 1 if i % 2 else -1]:
            start = time.process_time()
            run()
            pair[which] = time.process_time() - start
        times.append((pair["ours"], pair["theirs"]))
    ratios = [b / a for a, b in times]
    return {
        "ours_s": statistics.median(a for a, _ in times),
        "theirs_s": statistics.median(b for _, b in times),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "rounds": rounds,
    }


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def keep(name: str, result: dict[str, Any]) -> None:
    """Write benchmarks/results/NAME.json, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    partial = RESULTS / f"{name}.json.partial"
    partial.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    partial.replace(RESULTS / f"{name}.json")

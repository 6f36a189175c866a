"""The process in which `measure.peak` takes a peak of memory; it prints bytes.

python benchmarks/peak.py MODULE:FUNCTION ARGUMENTS SMALL_ARGUMENTS    (both JSON)
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def make(name: str) -> Callable[..., Callable[[], object]]:
    """The function that makes a step, by its "module:function"."""
    module, function = name.split(":")
    found: Callable[..., Callable[[], object]] = getattr(import_module(module), function)
    return found


def growth(name: str, arguments: str, small: str) -> int:
    make(name)(**json.loads(small))()  # what the first call loads or compiles is no growth
    step = make(name)(**json.loads(arguments))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # nor is what it has left free
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = status("VmRSS")
    step()
    return status("VmHWM") - before


if __name__ == "__main__":
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("peak memory is read from Linux's /proc, which this machine does not have")
    torch.set_num_threads(1)
    print(growth(*sys.argv[1:]))

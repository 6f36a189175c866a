"""Peak memory of the operation, forward and backward, at N and 2 N positions.

    python benchmarks/memory.py [N]

Growth of the resident memory of a fresh process around one step, after a small one (Linux);
embeddings of 32 channels, g of 64 (wider than theta, so "gaussian" takes a few rows at a time).
"""

from __future__ import annotations

import subprocess
import sys

import torch
from measure import keep

from nonlocalnet.ops import PAIRWISE

STEP = """
import ctypes, sys, torch
torch.set_num_threads(1)
from nonlocalnet import non_local
pairwise, n = sys.argv[1], int(sys.argv[2])
def step(n):
    t = [torch.randn(1, n, width, requires_grad=True) for width in (32, 32, 64)]
    weight = torch.randn(64, requires_grad=True) if pairwise == "concatenation" else None
    non_local(*t, pairwise, weight=weight).square().mean().backward()
def status(key):
    return next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith(key))
step(64)  # what the first call loads is no part of the growth
ctypes.CDLL(None).malloc_trim(0)  # nor is what imports have left free
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from here
before = status("VmRSS")
step(n)
print(status("VmHWM") - before)
"""


def peak(pairwise: str, n: int) -> float:
    """Growth in MB."""
    command = [sys.executable, "-c", STEP, pairwise, str(n)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1e3


if __name__ == "__main__":
    torch.set_num_threads(1)
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    found = {}
    for pairwise in PAIRWISE:
        small, large = peak(pairwise, n), peak(pairwise, 2 * n)
        found[pairwise] = {"MB at N": small, "MB at 2 N": large, "growth": large / small}
        print(f"{pairwise:18} {small:6.1f} MB  {large:6.1f} MB  {large / small:.2f}x")
    keep("memory", {"N": n, "functions": found})

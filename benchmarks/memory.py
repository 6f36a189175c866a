"""Peak memory of the operation, forward and backward, at N and 2 N positions.

    python benchmarks/memory.py [N]

Growth of the resident memory of a fresh process around one step, after a small one; embeddings
of 32 channels, g of 64 (wider than theta, so "gaussian" takes the rows a few at a time).
"""

from __future__ import annotations

import subprocess
import sys

import torch
from measure import keep

from nonlocalnet.ops import PAIRWISE

STEP = """
import resource, sys, torch
torch.set_num_threads(1)
from nonlocalnet import non_local
pairwise, n = sys.argv[1], int(sys.argv[2])
def step(n):
    t = [torch.randn(1, n, width, requires_grad=True) for width in (32, 32, 64)]
    weight = torch.randn(64, requires_grad=True) if pairwise == "concatenation" else None
    non_local(*t, pairwise, weight=weight).square().mean().backward()
step(64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(n)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
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

"""The demo's table for three seeds: what four small networks learn of reunion.

    python benchmarks/reunion.py [folder [seed ...]]

Each seed renders its own clips, draws its own weights and is `nonlocalnet demo --seed SEED`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import keep

from nonlocalnet.demo import CLIPS, run
from nonlocalnet.trial import GROUPS


def one(folder: Path, seed: int) -> dict[str, Any]:
    start = time.monotonic()
    demo = run(folder, seed, quiet=True)
    networks = {}
    for name, result in demo.results.items():
        by_group = result.group_accuracy()
        networks[name] = {
            "total": result.accuracy().value,
            **{group: by_group[group].value for group in GROUPS},
        }
    return {"minutes": round((time.monotonic() - start) / 60, 1), "networks": networks}


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    seeds = [int(s) for s in sys.argv[2:]] or [0, 1, 2]
    found = {}
    for seed in seeds:
        found[f"seed {seed}"] = one(where / f"seed{seed}", seed)
        print(f"seed {seed}, {found[f'seed {seed}']['minutes']} minutes")
        for name, rates in found[f"seed {seed}"]["networks"].items():
            print(f"  {name:16}", *(f"{what} {rate:.3f}" for what, rate in rates.items()))
    train, val, test = CLIPS
    keep("reunion", {"training": train, "validation": val, "test": test, "seeds": found})

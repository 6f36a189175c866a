"""Reunion at its hard level, 32 frames of 64 x 64, with each pairwise function: made for a GPU.

    python benchmarks/reunion_hard.py [folder] [--clips N] [--epochs N] [--seeds 0 1 2] [--quick]

Each run is `nonlocalnet train` with the recipe "reunion" on a larger clip, and goes on where it was
stopped. `--quick` is a trial of the script on a CPU: 64 clips, one epoch, nothing is kept.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import keep

from nonlocalnet.evaluate import evaluate
from nonlocalnet.folders import read_test_folder
from nonlocalnet.ops import PAIRWISE
from nonlocalnet.protocols import RECIPES
from nonlocalnet.synthetic import LEVELS, render_reunion
from nonlocalnet.train import train
from nonlocalnet.trial import GROUPS
from nonlocalnet.weights import load

LEVEL = LEVELS["hard"]
ROWS: dict[str, dict[str, Any]] = {
    "I3D": {"non_local": 0},
    **{f"I3D + {name}": {"pairwise": name} for name in PAIRWISE},
}


def one(data: Path, out: Path, changes: dict[str, Any], epochs: int, seed: int) -> dict[str, float]:
    side = {"crop": LEVEL.size, "short_side": LEVEL.size, "test_crop": LEVEL.size}
    recipe = replace(
        RECIPES["reunion"],
        **side,
        **changes,
        frames=LEVEL.frames,
        jitter=(LEVEL.size, LEVEL.size),
        epochs=epochs,
        seed=seed,
    )
    start = time.monotonic()
    train(data, recipe, out, resume=(out / "last.ckpt").exists())
    result = evaluate(load(out), read_test_folder(data / "test").val, groups=GROUPS)
    found = {name: rate.value for name, rate in result.group_accuracy().items()}
    minutes = (time.monotonic() - start) / 60
    return {"total": result.accuracy().value, **found, "minutes": round(minutes, 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--clips", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    clips, epochs, seeds = args.clips, args.epochs, args.seeds
    if args.quick:
        clips, epochs, seeds = 64, 1, [0]
    found: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        data = args.folder / f"reunion_hard_{clips}_{seed}"
        render_reunion(data, clips, max(16, clips // 16), LEVEL, seed, max(16, clips // 8))
        for name, changes in ROWS.items():
            out = args.folder / f"runs_{clips}_{epochs}_{seed}" / name.replace(" + ", "_")
            found.setdefault(name, {})[f"seed {seed}"] = one(data, out, changes, epochs, seed)
            print(f"seed {seed}, {name}:", found[name][f"seed {seed}"], flush=True)
    if not args.quick:
        keep("reunion_hard", {"training": clips, "epochs": epochs, "networks": found})

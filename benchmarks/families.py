"""Every family's checkpoints against their own codebase's logits; writes docs/checkpoints.md.

    python benchmarks/families.py [NAME ...] [--backend inductor] [--loading]
    python benchmarks/families.py --table      # only the page, from the kept results

Each network of tests/golden is rebuilt as a file, loaded, and run on its two clips: as it is, with
weights and clips in torch's default order of memory, with clips channels-last, and compiled.
Errors are the largest difference of a logit over the logits' standard deviation. --loading
measures time and peak memory of loading, in a fresh process each, instead.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import machine
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from rebuilt import Peer, peer  # noqa: E402
from test_families import NETWORKS, error, run  # noqa: E402

from nonlocalnet import load  # noqa: E402
from nonlocalnet.card import card_of  # noqa: E402
from nonlocalnet.weights import save  # noqa: E402

RESULT = HERE / "results" / "families.json"
PAGE = HERE.parent / "docs" / "checkpoints.md"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"
TITLES = {
    "caffe2": "video-nonlocal-net (Caffe2)",
    "pyslowfast": "PySlowFast",
    "pytorchvideo": "PyTorchVideo",
    "mmaction2": "MMAction2",
    "tsm": "mit-han-lab TSM",
    "tsm_online": "mit-han-lab TSM, online",
    "alexhex7": "AlexHex7 Non-local_pytorch",
}


def measured(name: str, backend: str) -> dict[str, Any]:
    golden, (preset, _) = peer(name), NETWORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        golden.write(path)
        model = load(path, preset=preset)
    row: dict[str, Any] = {
        "family": golden.meta["facts"]["family"],
        "network": card_of(model).architecture["name"],
        "blocks": len(card_of(model).architecture["non_local"]),
        "preset": preset,
        "eager": error(golden, run(model, golden)),
    }
    if golden.clip().dim() == 5:
        row["channels_last clips"] = error(golden, given(model, golden, torch.channels_last_3d))
    if backend != "none":
        torch.compiler.reset()
        row["compiled"] = error(golden, compiled(model, golden, backend))
        row["backend"] = backend
    model.to(memory_format=torch.contiguous_format)
    row["channels-first weights"] = error(golden, run(model, golden))
    return row


def given(model: nn.Module, golden: Peer, layout: torch.memory_format) -> Tensor:
    x = golden.clip().contiguous(memory_format=layout)
    with torch.inference_mode():
        return model.frames(x) if golden.logits.dim() == 3 else model(x)


def compiled(model: nn.Module, golden: Peer, backend: str) -> Tensor:
    forward = model.frames if golden.logits.dim() == 3 else model.forward
    with torch.no_grad():
        return torch.compile(forward, backend=backend, fullgraph=True)(golden.clip())


LOAD = """
import re, sys, time, torch
from pathlib import Path
torch.set_num_threads(1)
from nonlocalnet import create_model
from nonlocalnet.weights import load
import pickle
kind, path, preset = sys.argv[1:]
with torch.device("meta"):
    create_model("i3d_tiny", non_local=1)  # what the first call imports
def status(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
Path("/proc/self/clear_refs").write_text("5")
before, start = status("VmRSS"), time.perf_counter()
if kind == "load":
    made = load(path, preset=preset or None)
elif path.endswith(".pkl"):
    made = pickle.load(open(path, "rb"), encoding="latin1")
else:
    made = torch.load(path, map_location="cpu", weights_only=True)
print(time.perf_counter() - start, status("VmHWM") - before)
"""


def loading(rounds: int = 9) -> list[dict[str, Any]]:
    """Seconds and bytes of load() and of the plain reader of the same file, in turns."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = [(Path(folder) / "x.pyth", ""), (Path(folder) / "x.pkl", "caffe2-8x8")]
        peer("slowfast_i3d_nln_8x8_r50").write(files[0][0])
        peer("c2_i3d_nonlocal_8x8_r50").write(files[1][0])
        files.append((Path(folder) / "x.safetensors", ""))
        save(load(files[0][0]), files[2][0])
        for path, preset in files:
            kinds = ("load", "plain") if path.suffix != ".safetensors" else ("load",)
            told: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
            for _ in range(rounds):
                for kind in kinds:
                    command = [sys.executable, "-c", LOAD, kind, str(path), preset]
                    out = subprocess.run(command, capture_output=True, text=True, check=True)
                    told[kind].append([float(word) for word in out.stdout.split()])
            row: dict[str, Any] = {"file": path.suffix, "bytes": path.stat().st_size}
            for kind, runs in told.items():
                row[kind] = {
                    "seconds": statistics.median(r[0] for r in runs),
                    "range": [min(r[0] for r in runs), max(r[0] for r in runs)],
                    "peak": statistics.median(r[1] for r in runs),
                }
            rows.append(row)
            print(row, flush=True)
    return rows


ERRORS = ("eager", "compiled", "channels_last clips", "channels-first weights")


def table(result: dict[str, Any]) -> str:
    networks = result["networks"]
    lines = ["| family | networks | largest error | compiled |", "|---|---|---|---|"]
    for family, title in TITLES.items():
        rows = [row for row in networks.values() if row["family"] == family]
        with_blocks = sum(row["blocks"] > 0 for row in rows)
        told = f"{len(rows)}, {with_blocks} with blocks"
        worst = [f"{max(row[key] for row in rows):.1e}" for key in ERRORS[:2]]
        lines.append(f"| {title} | {told} | {' | '.join(worst)} |")
    lines += [
        "",
        "| network | error | compiled | channels-last clips | channels-first weights |",
        "|---|---|---|---|---|",
    ]
    for name, row in networks.items():
        errors = [f"{row[key]:.1e}" if key in row else "" for key in ERRORS]
        lines.append(f"| {name} | {' | '.join(errors)} |")
    backends = sorted({row["backend"] for row in networks.values() if "backend" in row})
    on = result["machine"]
    lines.append("")
    lines.append(
        f"{on['cpu']}, {on['threads']} thread, torch {on['torch']}, {on['date']};"
        f" compiled by {', '.join(backends)}."
    )
    return "\n".join(lines) + "\n\n" + loading_table(result.get("loading", []))


def loading_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| file of an I3D R50 with 5 blocks | MB | `load`, s | plain reader, s | ratio |"
        " peak of `load` / file |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, plain = row["load"], row.get("plain")
        told = [f"{ours['seconds']:.3f} ({ours['range'][0]:.3f} to {ours['range'][1]:.3f})"]
        told += [f"{plain['seconds']:.3f}" if plain else ""]
        told += [f"{ours['seconds'] / plain['seconds']:.2f}" if plain else ""]
        told += [f"{ours['peak'] / row['bytes']:.2f}"]
        lines.append(f"| `{row['file']}` | {row['bytes'] / 1e6:.0f} | {' | '.join(told)} |")
    return "\n".join(lines)


def write_page(result: dict[str, Any]) -> None:
    page = PAGE.read_text("utf-8")
    between = f"{BEGIN}\n{table(result)}\n{END}"
    pattern = re.escape(BEGIN) + ".*" + re.escape(END)
    PAGE.write_text(re.sub(pattern, lambda _: between, page, flags=re.DOTALL), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--loading", action="store_true")
    parser.add_argument("--table", action="store_true")
    told = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"networks": {}}
    if not told.table:
        result["machine"] = machine()
        if told.loading:
            result["loading"] = loading()
        else:
            for name in told.names or NETWORKS:
                row = measured(name, told.backend)
                result["networks"][name] = row
                print(name, json.dumps(row), flush=True)
                ordered = {n: result["networks"][n] for n in NETWORKS if n in result["networks"]}
                result["networks"] = ordered
                RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    write_page(result)


if __name__ == "__main__":
    main()

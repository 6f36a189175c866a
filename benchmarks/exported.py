"""Online networks frame by frame: our eager, exported in fp32 and int8, and a plain eager peer.

    python benchmarks/exported.py [--seconds 20] [--check]

Goal P11. All of a network's rows take turns in one process on one thread; the figures are process
CPU time, the ratios medians over neighbouring runs. "eager" is `Streaming` as a user gets it, in
inference mode. "peer" is what it stands beside elsewhere: torchvision's MobileNetV2 in eager mode
and torch's default layout, its blocks shifted from caches, as mit-han-lab's online demo runs it.
Errors are against eager over a stream of real frames with a restart, see `export`. Weights are
drawn: what is timed does not depend on them, and int8's error would be another with trained ones.
The table goes into docs/export.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import HERE, keep, spread
from torch import Tensor, nn

from nonlocalnet import create_model
from nonlocalnet.bench import WARM_UP, Step, in_turns, stepping
from nonlocalnet.card import card_of
from nonlocalnet.export import export
from nonlocalnet.export.frames import real_clips
from nonlocalnet.exported import open_network
from nonlocalnet.streaming import Streaming
from nonlocalnet.synthetic import render_reunion
from nonlocalnet.transforms import normalize

NETWORKS: dict[str, dict[str, Any]] = {
    "tsm_mobilenetv2": {},
    "tsm_resnet50": {},
    "tsm_resnet50, 5 causal blocks": {"non_local": 5, "causal": 8, "zero_init": "none"},
}
PAGE = HERE.parent / "docs" / "export.md"
BEGIN, END = "<!-- exported: begin -->\n", "<!-- exported: end -->\n"


def network(name: str, **options: Any) -> nn.Module:
    """A network with norms as after training."""
    torch.manual_seed(0)
    model = create_model(name.partition(",")[0], 27, shift="past", **options)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return model.eval()


def peer(frames: list[Tensor]) -> Step:
    """torchvision's network with the caches of mit's online demo."""
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    model = mobilenet_v2(num_classes=27).eval()
    turn, caches = [0], dict[nn.Module, Tensor]()

    def shifted(conv: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (x,) = args
        fold = x.shape[1] // 8
        before = caches.get(conv, torch.zeros_like(x[:, :fold]))
        caches[conv] = x[:, :fold]
        return (torch.cat((before, x[:, fold:]), 1),)

    for block in model.features:
        if getattr(block, "use_res_connect", False):
            block.conv[0].register_forward_pre_hook(shifted)

    def step() -> Tensor:
        turn[0] += 1
        with torch.inference_mode():
            return model(frames[turn[0] % len(frames)])

    return step


def measured(
    name: str, options: dict[str, Any], seconds: float, size: int | None
) -> dict[str, Any]:
    model = network(name, **options)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        videos = render_reunion(Path(folder) / "reunion", train=4, val=8) / "val"
        opened: dict[str, nn.Module] = {}
        for precision in ("fp32", "int8"):
            file = Path(folder) / f"{precision}.onnx"
            done = export(
                model,
                file,
                stream=True,
                precision=precision,
                size=size,
                calibrate=[videos] if precision == "int8" else None,
            )
            opened[precision] = open_network(file)
            rows[precision] = {"bytes": file.stat().st_size, **done.proof.to_dict()}
        card = card_of(opened["fp32"])
        clip = normalize(real_clips(card, None, True, lambda done, total: None)[:1], card)
        frames = [frame.contiguous() for frame in clip.unbind(2)]
        steps = {key: stepping(stream, frames) for key, stream in opened.items()}
        steps = {"eager": stepping(Streaming(model), frames), **steps}
        if name == "tsm_mobilenetv2":
            steps["peer"] = peer(frames)
        for step in steps.values():
            for _ in range(WARM_UP):
                step()
        _, cpu = in_turns(list(steps.values()), seconds / len(steps))
        times = dict(zip(steps, zip(*cpu, strict=True), strict=True))
    for key, taken in times.items():
        row = rows.setdefault(key, {})
        row["milliseconds"] = 1e3 * statistics.median(taken)
        for against in {"eager", "peer"} & set(times) - {key}:
            pairs = zip(times[against], taken, strict=True)
            row[f"faster than {against}"] = spread([a / b for a, b in pairs])
    rows["rounds"] = len(times["eager"])
    return rows


def table(networks: dict[str, Any]) -> str:
    """The figures as Markdown."""
    text = [
        "| network | form | ms | faster than eager | than the peer | largest difference | file |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in networks.items():
        for form in ("eager", "peer", "fp32", "int8"):
            if (row := rows.get(form)) is None:
                continue
            faster = [_range(row.get(f"faster than {against}")) for against in ("eager", "peer")]
            error = f"{row['error']:.1e}" if "error" in row else ""
            size = f"{row['bytes'] / 1e6:.1f} MB" if "bytes" in row else ""
            cells = (f"`{name}`", form, f"{row['milliseconds']:.1f}", *faster, error, size)
            text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def _range(ratio: dict[str, float] | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each network")
    parser.add_argument("--check", action="store_true", help="tiny pictures; nothing is kept")
    told = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name, options in list(NETWORKS.items())[: 1 if told.check else None]:
        size = 32 if told.check else 224
        found[name] = measured(name, options, 0.0 if told.check else told.seconds, size)
        for key, row in found[name].items():
            if key != "rounds":
                ratio = row.get("faster than eager", {}).get("median", 1.0)
                other = row.get("faster than peer", {}).get("median")
                beside = "" if other is None else f", {other:.2f} x the peer's"
                error = f", error {row['error']:.1e}" if "error" in row else ""
                taken = f"{row['milliseconds']:.2f} ms, {ratio:.2f} x eager"
                print(f"{name}: {key} {taken}{beside}{error}", flush=True)
    if not told.check:
        keep("exported", {"networks": found})
        before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()

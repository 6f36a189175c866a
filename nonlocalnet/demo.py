"""The paper's Table 2f in miniature: four small networks on reunion, tested and compared.

C2D sums over frames, so nothing leads its training to either answer; I3D sees three frames, enough
for the direction; a non-local block relates two far places, enough for "same colour?"; both give
both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table

from .look import Look, Sight, percent
from .metrics import Result
from .picture import draw
from .protocols import RECIPES
from .report import Picture, Run, write_report
from .sight import attend_video
from .synthetic import CLASSES, FPS, Clip, Reunion, clip_path, draw_clip
from .trial import GROUPS, one_thread, render, trial
from .weights import load

NETWORKS = {
    "C2D": ("c2d_tiny", 0),
    "C2D + non-local": ("c2d_tiny", 1),
    "I3D": ("i3d_tiny", 0),
    "I3D + non-local": ("i3d_tiny", 1),
}
CLIPS, QUICK = (2000, 200, 500), (200, 40, 60)  # training, validation, test
PICTURED = 60  # test clips whose attention is averaged; two of them are drawn


@dataclass(frozen=True)
class Demo:
    """What the demo leaves: the report, and each network's result by name."""

    html: Path
    results: dict[str, Result]


def run(out: Path, seed: int = 0, quick: bool = False, quiet: bool = False) -> Demo:
    """Render reunion, train and test the four networks, write out/report.html and .json.

    Whatever is finished in `out` from an earlier call with the same arguments is kept, so a demo
    that was stopped goes on.

    Raises:
        UserError: `out` holds something else, or cannot be written.
    """
    with one_thread():
        return _run(out, seed, quick, Console(quiet=quiet))


def _run(out: Path, seed: int, quick: bool, console: Console) -> Demo:
    start, level = time.monotonic(), Reunion()
    data = out / "reunion"
    render(data, QUICK if quick else CLIPS, level, seed, console)
    runs = []
    for name, (model, blocks) in NETWORKS.items():
        console.print(f"[bold]{name}[/bold]")
        recipe = RECIPES["reunion"]
        epochs = 1 if quick else recipe.epochs
        recipe = replace(recipe, model=model, non_local=blocks, seed=seed, epochs=epochs)
        runs.append(trial(name, data, recipe, out / "runs" / _folder(name), console.quiet))
    pictured = out / "runs" / _folder("C2D + non-local")
    sights = _second_looks_at_first(pictured, data, level, seed, PICTURED)
    words = _words(runs, time.monotonic() - start, seed)
    telling, caption = _telling(sights, level, seed)
    picture = Picture(draw(telling, out / "attention.png"), caption)
    html, _ = write_report(
        out / "report.html", "Reunion: what a non-local block adds", runs,
        words=words, pictures=[picture],
    )  # fmt: skip
    results = {run.name: run.result for run in runs}
    console.print(
        _table(results), f"attention: {out / 'attention.png'}", f"report: {html}", sep="\n"
    )
    return Demo(html, results)


def _folder(name: str) -> str:
    return name.lower().replace(" + ", "_").replace("-", "_")


def amid(level: Reunion) -> int:
    """The frame in the middle of the second disc's passage."""
    return level.frames - (level.visible + 1) // 2


def _second_looks_at_first(
    folder: Path, data: Path, level: Reunion, seed: int, clips: int
) -> list[Sight]:
    """The first test clips, each seen from its second disc's centre amid its passage."""
    model, sights = load(folder), list[Sight]()
    frame = amid(level)
    for index in range(clips):
        clip = draw_clip(level, seed, "test", index)
        x, y = ((float(v) + 0.5) / level.size for v in clip.centres[1, frame])
        sights += attend_video(model, clip_path(data, "test", index), [(frame / FPS, x, y)])
    return sights


def on_disc(look: Look, disc: int, clip: Clip, level: Reunion) -> tuple[float, float]:
    """The part of a query's weight on keys that see a disc (0 or 1), and the part of such keys.

    A key sees the disc if its cell, half a stride around its centre, touches it.
    """
    axes = [
        offset + stride * torch.arange(cells)
        for (stride, offset), cells in zip(look.grid, look.weights.shape, strict=True)
    ]
    frame, y, x = torch.meshgrid(*axes, indexing="ij")  # (T', H', W') each
    centre = clip.centres[disc, frame.round().long().clamp(0, level.frames - 1)]  # (T', H', W', 2)
    reach = [level.radius[1] + stride / 2 for stride, _ in look.grid[1:]]
    on = ((y - centre[..., 1]).abs() < reach[0]) & ((x - centre[..., 0]).abs() < reach[1])
    weights = look.weights.abs()
    return float(weights[on].sum() / weights.sum()), float(on.float().mean())


def _telling(sights: list[Sight], level: Reunion, seed: int) -> tuple[list[Sight], str]:
    """The clip of either kind whose second disc looks at the first most, and how much all do."""
    kinds: dict[str, list[tuple[float, Sight]]] = {"different": [], "same": []}
    even = []
    for index, sight in enumerate(sights):
        clip = draw_clip(level, seed, "test", index)
        on, part = on_disc(sight.look, 0, clip, level)
        kinds[CLASSES[clip.label].partition("_")[0]].append((on, sight))
        even.append(part)
    best = [max(kind, key=lambda found: found[0])[1] for kind in kinds.values()]
    differ, agree = (percent(mean(on for on, _ in kind)) for kind in kinds.values())
    caption = (
        "What the second disc looks at, in the network C2D + non-local. Above, colours that differ,"
        f" below, colours that agree: of {len(sights)} test clips the one of either kind whose"
        " second disc puts most of its weight on the first. Mean weight on the first disc:"
        f" {differ} where the colours differ, {agree} where they agree; equal weights would put"
        f" {percent(mean(even))} there. How a network solves the task is its own choice and"
        " differs from seed to seed."
    )
    return best, caption


def _words(runs: list[Run[Result]], seconds: float, seed: int) -> list[str]:
    return [
        "Two coloured discs cross each clip one after the other, far apart and never in one frame."
        " Whether their colours agree shows only in relating two far places in space-time; whether"
        " they move left or right only between neighbouring frames. No sum over frames (C2D) has"
        " a lower cross-entropy than chance, so its training stays there.",
        f"Four networks trained from nothing with seed {seed}; of each, the epoch that did best on"
        " the validation clips. The table counts test clips that had no part in either. What was"
        f" left to do in this call took {seconds / 60:.1f} minutes.",
    ]


def _table(results: dict[str, Result]) -> Table:
    count = next(iter(results.values())).count
    table = Table(title=f"accuracy on {count} test clips of reunion, {len(CLASSES)} classes")
    table.add_column("network")
    for head in ("total", *GROUPS):
        table.add_column(head, justify="right")
    for name, result in results.items():
        by_group = result.group_accuracy()
        rates = [result.accuracy(), *(by_group[g] for g in GROUPS)]
        table.add_row(name, *(f"{rate.value:.3f}" for rate in rates))
    return table

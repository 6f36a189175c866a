"""Reunion for online networks: what they learn, clip by clip and frame by frame, with three seeds.

    python benchmarks/online.py [folder [seed ...]]

Each network is trained by the recipe "reunion" and tested on 500 clips that neither trained it nor
chose its epoch: whole clips at once, then the same clips frame by frame through `Streaming`, with
the share of right answers after each frame. What is finished in the folder is not done again. The
table goes into docs/online.md, the picture beside it.
"""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measure import HERE, keep
from rich.console import Console
from torch import Tensor

from nonlocalnet.card import card_of
from nonlocalnet.datasets import Broken, ViewDataset
from nonlocalnet.errors import UserError
from nonlocalnet.files import replacing
from nonlocalnet.folders import read_test_folder
from nonlocalnet.picture import ink
from nonlocalnet.protocols import RECIPES
from nonlocalnet.scoring import score
from nonlocalnet.stepping import Agreement, score_frames
from nonlocalnet.streaming import Streaming
from nonlocalnet.synthetic import CLASSES, Reunion
from nonlocalnet.trial import GROUPS, render, trial
from nonlocalnet.weights import load

PAGE = HERE.parent / "docs" / "online.md"
PICTURE = PAGE.with_suffix(".png")
BEGIN, END = "<!-- online: begin -->\n", "<!-- online: end -->\n"
CLIPS = (2000, 200, 500)  # training, validation, test
PLAIN = replace(RECIPES["reunion"], model="tsm_tiny", non_local=0)
NETWORKS = {
    "C2D": replace(PLAIN, model="c2d_tiny"),
    "TSM, offline": replace(PLAIN, shift="offline"),
    "TSM, online": replace(PLAIN, shift="online"),
    "TSM, online + causal block": RECIPES["reunion_online"],
}
COLOURS = {"TSM, online": ink.POSITIVE, "TSM, online + causal block": ink.NEGATIVE}


def run(where: Path, seeds: list[int]) -> dict[str, Any]:
    """Per network and seed what `examine` finds."""
    console, found = Console(quiet=True), dict[str, Any]()
    for seed in seeds:
        folder = where / f"seed{seed}"
        render(folder / "reunion", CLIPS, Reunion(), seed, console)
        for name, recipe in NETWORKS.items():
            out = folder / "_".join(re.findall(r"\w+", name.lower()))
            trial(name, folder / "reunion", replace(recipe, seed=seed, workers=0), out, quiet=True)
            found.setdefault(name, {})[f"seed {seed}"] = examine(out, folder / "reunion" / "test")
            print(f"seed {seed}, {name}: {found[name][f'seed {seed}']['clip']}", flush=True)
    return found


def examine(trained: Path, folder: Path) -> dict[str, Any]:
    """Accuracies over whole clips, over frames one by one, and after each number of frames."""
    model, samples = load(trained), read_test_folder(folder).val
    views = list(map(ViewDataset(samples, card_of(model), 1, 1).__getitem__, range(len(samples))))
    clips = torch.cat([view.clips for view in views if not isinstance(view, Broken)])
    labels = torch.tensor([sample.label for sample in samples])
    whole = score(model, clips)  # (n, K)
    found: dict[str, Any] = {"clip": rates(whole, labels), "frames": None}
    try:
        stream = Streaming(model)
    except UserError:
        return found
    steps = score_frames(stream, clips)  # (n, T, K)
    so_far = steps.cumsum(1) / torch.arange(1, steps.shape[1] + 1)[:, None]
    found["frames"] = rates(so_far[:, -1], labels)
    found["difference"] = Agreement.of(whole, so_far[:, -1]).relative
    found["after"] = [rates(logits, labels) for logits in so_far.unbind(1)]
    return found


def rates(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Shares of right answers: to both questions, and to each."""
    pairs = list(zip(logits.argmax(1).tolist(), labels.tolist(), strict=True))
    found = {"total": sum(a == b for a, b in pairs) / len(pairs)}
    for question, of in GROUPS.items():
        right = sum(of(CLASSES[a]) == of(CLASSES[b]) for a, b in pairs)
        found[question] = right / len(pairs)
    return found


def table(found: dict[str, Any]) -> str:
    """The table as Markdown, the seeds of a figure side by side."""
    text = [
        "| network | total | same colour? | direction? | frame by frame: total | difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, by_seed in found.items():
        each = list(by_seed.values())
        cells = [_seeds(one["clip"][key] for one in each) for key in ("total", *GROUPS)]
        stepped = all(one["frames"] for one in each)
        cells.append(_seeds(one["frames"]["total"] for one in each) if stepped else "–")
        cells.append(f"{max(one['difference'] for one in each):.0e}" if stepped else "–")
        text.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def _seeds(values: Any) -> str:
    return " / ".join(f"{value:.3f}" for value in values)


def with_table(page: str, found: dict[str, Any]) -> str:
    """The page with its table replaced."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n" + table(found) + "\n" + END + rest.partition(END)[2]


def draw(found: dict[str, Any]) -> bytes:
    """Accuracy by frames seen, a panel per question; the line is the mean, the band all seeds."""
    figure = ink.blank(7.2, 3.0)
    for i, question in enumerate(GROUPS):
        part = figure.add_axes((0.08 + 0.48 * i, 0.18, 0.41, 0.68))
        _mark_discs(part)
        for name, colour in COLOURS.items():
            rows = torch.tensor(
                [[a[question] for a in one["after"]] for one in found[name].values()]
            )
            seen = range(1, rows.shape[1] + 1)
            part.fill_between(seen, rows.amin(0), rows.amax(0), color=colour, alpha=0.2, lw=0)
            part.plot(seen, rows.mean(0), color=colour, marker="o", ms=3, lw=1.5, label=name)
        part.axhline(0.5, color=ink.FAINT, lw=0.8, ls=":")
        part.set(ylim=(0.35, 1.04), xlim=(0.5, len(seen) + 0.5), xticks=list(seen))
        part.set_title(question, fontsize=ink.TEXT, color=ink.INK)
        part.set_xlabel("frames seen", fontsize=ink.SMALL)
        part.tick_params(labelsize=ink.SMALL)
        part.spines[["top", "right"]].set_visible(False)
        if not i:
            part.set_ylabel("accuracy", fontsize=ink.SMALL)
            part.legend(fontsize=ink.SMALL, frameon=False, loc="upper left")
    return ink.png(figure)


def _mark_discs(part: ink.Axes) -> None:
    """Which frames show a disc."""
    level = Reunion()
    for words, first in (("first disc", 1), ("second disc", 1 + level.visible + level.gap)):
        part.axvspan(first - 0.5, first + level.visible - 0.5, color=ink.FAINT, alpha=0.1, lw=0)
        middle = first + (level.visible - 1) / 2
        part.text(middle, 0.37, words, fontsize=ink.SMALL, color=ink.FAINT, ha="center")


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    found = run(where, [int(seed) for seed in sys.argv[2:]] or [0, 1, 2])
    train, val, test = CLIPS
    keep("online", {"training": train, "validation": val, "test": test, "networks": found})
    print(table(found))
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), found), "utf-8")
    with replacing(PICTURE) as unfinished:
        unfinished.write_bytes(draw(found))

"""What the second disc of reunion looks at, in trained networks, over 200 clips of either kind.

    python benchmarks/second_disc.py [folder [seed ...]]

For every seed a C2D and an I3D with one embedded Gaussian block are trained as `nonlocalnet demo`
does (what is finished in the folder is not done again). In each of the first 200 "same colour" and
200 "different" test clips the middle of the second disc, amid its passage, is asked what it looks
at: which share of its weight lies on keys that see the first disc, beside the share of such keys.
So is a place of the background in the same frame. The table goes into docs/attention.md, the
picture beside it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

import torch
from measure import HERE, keep
from rich.console import Console

from nonlocalnet.attention import attend
from nonlocalnet.card import card_of
from nonlocalnet.datasets import ViewDataset, Views
from nonlocalnet.demo import CLIPS, NETWORKS, amid, on_disc
from nonlocalnet.files import replacing
from nonlocalnet.picture import ink
from nonlocalnet.protocols import RECIPES
from nonlocalnet.synthetic import CLASSES, Reunion, clip_path, draw_clip
from nonlocalnet.transforms import normalize
from nonlocalnet.trial import GROUPS, one_thread, render, trial
from nonlocalnet.weights import load

PAGE = HERE.parent / "docs" / "attention.md"
PICTURE = PAGE.parent / "pictures" / "second_disc.png"
BEGIN, END = "<!-- second disc: begin -->\n", "<!-- second disc: end -->\n"
TRAINED = ("C2D + non-local", "I3D + non-local")
EACH = 200
KINDS = ("same", "different")
Found = dict[str, Any]


def run(where: Path, seeds: Sequence[int]) -> dict[str, Found]:
    """Per network and seed: accuracies, and per kind of clip the shares."""
    found: dict[str, Found] = {}
    level = Reunion()
    for seed in seeds:
        folder = where / f"seed{seed}"
        render(folder / "reunion", CLIPS, level, seed, Console(quiet=True))
        for name in TRAINED:
            model, blocks = NETWORKS[name]
            recipe = replace(RECIPES["reunion"], model=model, non_local=blocks, seed=seed)
            out = folder / "runs" / name.lower().replace(" + ", "_").replace("-", "_")
            result = trial(name, folder / "reunion", recipe, out, quiet=True).result
            rates = {g: rate.value for g, rate in result.group_accuracy().items()}
            found.setdefault(name, {})[f"seed {seed}"] = {
                **rates,
                **shares(out, folder / "reunion", level, seed),
            }
            print(f"seed {seed}, {name}", *(f"{g} {v:.3f}" for g, v in rates.items()), flush=True)
    return found


def shares(trained: Path, data: Path, level: Reunion, seed: int) -> Found:
    """Per kind of clip: of each clip the share of weight on each disc, and of such keys."""
    model, frame = load(trained), amid(level)
    card = card_of(model)
    found: Found = {
        kind: {"first": [], "uniform": [], "second": [], "background": [], "colours": []}
        for kind in KINDS
    }
    index = 0
    while min(len(found[kind]["first"]) for kind in KINDS) < EACH:
        clip = draw_clip(level, seed, "test", index)
        kind = CLASSES[clip.label].partition("_")[0]
        if len(found[kind]["first"]) < EACH:
            (view,) = views_of(clip_path(data, "test", index), card)
            x, y = (float(v) for v in clip.centres[1, frame])
            away = [0.0 if v > level.size / 2 else level.size - 1.0 for v in (y, x)]
            disc, nothing = attend(model, normalize(view, card), [(frame, y, x), (frame, *away)])
            on, uniform = on_disc(disc, 0, clip, level)
            values = (on, uniform, on_disc(disc, 1, clip, level)[0])
            values += (on_disc(nothing, 0, clip, level)[0],)
            for key, value in zip(found[kind], values, strict=False):
                found[kind][key].append(round(value, 4))
            found[kind]["colours"].append(clip.colours)
        index += 1
    return found


def views_of(path: Path, card: Any) -> torch.Tensor:
    views = ViewDataset([str(path)], card, 1, 1)[0]
    assert isinstance(views, Views)
    return views.clips


def table(found: dict[str, Found]) -> str:
    """As Markdown; a row per network, seed and kind."""
    text = [
        "| network, seed | right: colours, direction | clips | uniform | 10 % | 25 % | median"
        " | 75 % | 90 % | mean | on the second disc | from the background |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, by_seed in found.items():
        for seed, one in by_seed.items():
            rates = ", ".join(f"{one[group]:.3f}" for group in GROUPS)
            for kind in KINDS:
                values = one[kind]
                tenths = quantiles(values["first"], n=20)
                cells = [mean(values["uniform"]), *(tenths[i] for i in (1, 4, 9, 14, 17))]
                cells += [mean(values[key]) for key in ("first", "second", "background")]
                told = " | ".join(f"{100 * value:.1f} %" for value in cells)
                text.append(f"| {name}, {seed.split()[1]} | {rates} | {kind} | {told} |")
    return "\n".join(text) + "\n"


def by_pair(different: Found) -> str:
    """Of the pairs of different colours (of the first disc, of the second), how many see it so."""
    pairs: dict[tuple[int, int], list[float]] = {}
    for (first, second), share in zip(different["colours"], different["first"], strict=True):
        pairs.setdefault((first, second), []).append(share)
    means = {pair: mean(values) for pair, values in pairs.items()}
    all_of_it = {pair for pair, share in means.items() if share > 0.95}
    none = sum(share < 0.05 for share in means.values())
    either = {frozenset(pair) for pair in all_of_it}
    sets = {frozenset(pair) for pair in means}
    between = len(means) - len(all_of_it) - none
    return f"{len(all_of_it)} / {none} / {between} | {len(either)} of {len(sets)}"


def pairs_table(found: dict[str, Found]) -> str:
    text = [
        "| network, seed | ordered pairs of colours: all / none / between | one way all |",
        "|---|---|---|",
    ]
    for name, by_seed in found.items():
        for seed, one in by_seed.items():
            text.append(f"| {name}, {seed.split()[1]} | {by_pair(one['different'])} |")
    return "\n".join(text) + "\n"


def draw(found: dict[str, Found], path: Path) -> None:
    """The shares of all clips in order, each seed a line, against the uniform share."""
    figure = ink.blank(10.0, 3.4)
    title = "Share of the second disc's weight on the first disc, clips in order of it"
    ink.text(figure, ink.MARGIN, 3.4 - ink.MARGIN, title, ink.TITLE, va="top", weight="bold")
    for i, (name, by_seed) in enumerate(found.items()):
        left = 0.7 + 4.7 * i
        part = ink.axes(figure, left, 0.75, 4.2, 1.9)
        part.set(xlim=(0, EACH), ylim=(0, 1.02))
        for level in (0.0, 0.5, 1.0):
            part.axhline(level, color="#DDDDDD", linewidth=0.8)
            if i == 0:
                y = 0.75 + 1.9 * level / 1.02
                ink.text(figure, left - 0.08, y, f"{100 * level:.0f} %", ink.SMALL, ha="right",
                         va="center", color=ink.FAINT)  # fmt: skip
        for one in by_seed.values():
            for kind, colour in zip(KINDS, (ink.POSITIVE, ink.NEGATIVE), strict=True):
                part.plot(sorted(one[kind]["first"]), color=colour, linewidth=1.3)
            uniform = mean(one["same"]["uniform"])
            part.axhline(uniform, color=ink.INK, linewidth=0.9, linestyle=(0, (4, 3)))
        ink.text(figure, left, 2.72, name, ink.TEXT, weight="bold")
    legend = (
        f"blue: {EACH} clips of the same colour, orange: {EACH} of different ones; a line per seed"
    )
    ink.text(figure, 0.7, 0.4, legend, ink.SMALL, color=ink.FAINT)
    told = "dashed: the share of keys that see the first disc, which equal weights would put there"
    ink.text(figure, 0.7, 0.2, told, ink.SMALL, color=ink.FAINT)
    with replacing(path) as unfinished:
        unfinished.write_bytes(ink.png(figure))


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    seeds = [int(seed) for seed in sys.argv[2:]] or [0, 1, 2]
    with one_thread():
        found = run(where, seeds)
    keep("second_disc", found)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    if rest:
        after = rest.partition(END)[2]
        PAGE.write_text(
            before + BEGIN + table(found) + "\n" + pairs_table(found) + END + after,
            encoding="utf-8",
        )
    print(table(found), pairs_table(found), sep="\n", end="")
    draw(found, PICTURE)

"""The whole picture: a title, a strip per sight, a legend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..files import check_regular, replacing
from ..look import Sight, View
from . import ink
from .ink import FAINT, MARGIN, SMALL, TEXT, TITLE, Figure
from .strip import LINE, Strip

UNTRAINED = "this block is untrained: its output is still exactly its input"
ARROWS: dict[View, str] = {
    "row": "arrow or ring: to a heavy key, thicker if heavier",
    "column": "arrow or ring: from a query that looks there, thicker if it looks there more",
}
NARROWEST = 8.0  # inches; room for the words


def draw(sights: Sequence[Sight], path: str | os.PathLike[str] | None = None) -> bytes:
    """The picture of some sights as PNG bytes; also written to `path`, whole or not at all.

    What all sights share (network, block, video) makes the title, else it stands at each.

    Raises `UserError` if the file cannot be written or is none (a device, a folder), `ValueError`
    if there is no sight.
    """
    return _saved(compose(sights), path)


def draw_blocks(sights: Sequence[Sight], path: str | os.PathLike[str] | None = None) -> bytes:
    """Small pictures of the same queries in several blocks, one below the other; see `draw`."""
    return _saved(compose_blocks(sights), path)


def _saved(figure: Figure, path: str | os.PathLike[str] | None) -> bytes:
    data = ink.png(figure)
    if path is not None:
        check_regular(path)
        with replacing(path) as unfinished:
            unfinished.write_bytes(data)
    return data


def compose(sights: Sequence[Sight]) -> Figure:
    """The picture as a matplotlib figure."""
    if not sights:
        raise ValueError("there is no sight to draw")
    facts = [facts_of(sight) for sight in sights]
    shared = len(set(facts)) == 1
    title = facts[0] if shared else ("What positions look at",)
    strips = [
        Strip.of(sight, (f"{i + 1}   {sight.where()}", *(() if shared else facts[i])))
        for i, sight in enumerate(sights)
    ]
    return _stacked(title, strips)


def compose_blocks(sights: Sequence[Sight]) -> Figure:
    """The picture of `draw_blocks` as a matplotlib figure."""
    if not sights:
        raise ValueError("there is no sight to draw")
    queries = list(dict.fromkeys(sight.where() for sight in sights))
    strips = []
    for sight in sights:
        name, *more = facts_of(sight, whole=False)
        if len(queries) > 1:
            name = f"{queries.index(sight.where()) + 1}   {sight.where()}, {name}"
        strips.append(Strip.of(sight, (name, *more), compact=True))
    path = sights[0].path
    below = [*([Path(path).name] if path else []), *(queries if len(queries) == 1 else [])]
    return _stacked((f"{sights[0].look.network}, block by block", *below), strips)


def _stacked(title: Sequence[str], strips: Sequence[Strip]) -> Figure:
    """Strips below each other, under a title and over a legend."""
    name, *below = title
    width = max(NARROWEST, *(strip.width for strip in strips))
    titles = ink.lines([name], width - 2 * MARGIN, TITLE, bold=True)
    legend = ink.lines(_legend(strips), width - 2 * MARGIN, SMALL)
    head = MARGIN + LINE * (1.35 * len(titles) + len(below) + 0.5)
    foot = MARGIN + 0.16 * len(legend)
    figure = ink.blank(width, head + sum(strip.height(width) for strip in strips) + foot)
    top = float(figure.get_figheight()) - MARGIN
    for line in titles:
        ink.text(figure, MARGIN, top, line, TITLE, va="top", weight="bold")
        top -= 1.35 * LINE
    for line in below:
        weight = "bold" if line == UNTRAINED else "normal"
        ink.text(figure, MARGIN, top, line, TEXT, va="top", weight=weight)
        top -= LINE
    top -= 0.5 * LINE
    for strip in strips:
        strip.draw(figure, top)
        top -= strip.height(width)
    for line in legend:
        top -= 0.16
        ink.text(figure, MARGIN, top, line, SMALL, color=FAINT)
    return figure


def facts_of(sight: Sight, whole: bool = True) -> tuple[str, ...]:
    """What there is to know besides the map, the name first; whole: with network and video."""
    look = sight.look
    mode = "" if look.mode == "spacetime" else f", in {look.mode} only"
    name = f"non-local block after {look.block}: {look.pairwise}{mode}"
    if not look.block:  # no network's
        name = f"{look.pairwise}{mode}"
    facts = [f"{look.network}, {name}" if whole else name]
    if not look.awake:
        facts.append(UNTRAINED)
    if not look.exact:
        facts.append("places are approximate: the cells are taken to divide the frame evenly")
    if whole and sight.path:
        facts.append(Path(sight.path).name)
    return tuple(facts)


def _legend(strips: Sequence[Strip]) -> list[str]:
    views = {strip.sight.look.view for strip in strips}
    phrases = [f"yellow dot: the {'query' if 'row' in views else 'place'}"]
    if not all(strip.compact for strip in strips):
        phrases += [ARROWS[view] for view in ("row", "column") if view in views]
    if any(strip.sight.look.negative for strip in strips):
        dashed = "" if all(strip.compact for strip in strips) else ", dashed"
        phrases.append(f"orange{dashed}: negative weights")
    phrases.append("per cent: of all weight")
    if "row" in views:
        phrases.append("average map: of queries all over the clip")
    if any(strip.has_bars for strip in strips):
        phrases.append("dashed line: if all weights were equal")
    if any(strip.has_bars and strip.abridged for strip in strips):
        phrases.append("pale bars: frames not shown")
    return phrases

"""The whole picture: a title, a strip per sight, a legend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import UserError
from ..look import Sight
from . import ink
from .ink import FAINT, MARGIN, SMALL, TEXT, TITLE, Figure
from .strip import LINE, Strip

UNTRAINED = "this block is untrained: its output is still exactly its input"
NARROWEST = 8.0  # inches; room for the words


def draw(sights: Sequence[Sight], path: str | os.PathLike[str] | None = None) -> bytes:
    """The picture of some sights as PNG bytes; also written to `path`, whole or not at all.

    What all sights share (network, block, video) makes the title, else it stands at each.

    Raises `UserError` if the file cannot be written or is none (a device, a folder), `ValueError`
    if there is no sight.
    """
    data = ink.png(compose(sights))
    if path is not None:
        _write(Path(path), data)
    return data


def compose(sights: Sequence[Sight]) -> Figure:
    """The picture as a matplotlib figure."""
    if not sights:
        raise ValueError("there is no sight to draw")
    facts = [_facts(sight) for sight in sights]
    shared = len(set(facts)) == 1
    title, *below = facts[0] if shared else ("What positions look at",)
    strips = [
        Strip.of(sight, (f"{i + 1}   {sight.where()}", *(() if shared else facts[i])))
        for i, sight in enumerate(sights)
    ]
    width = max(NARROWEST, *(strip.width for strip in strips))
    titles = ink.lines([title], width - 2 * MARGIN, TITLE, bold=True)
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


def _facts(sight: Sight) -> tuple[str, ...]:
    """What there is to know besides the map itself, the name first."""
    look = sight.look
    mode = "" if look.mode == "spacetime" else f", in {look.mode} only"
    block = f", non-local block after {look.block}" if look.block else ""
    facts = [f"{look.network}{block}: {look.pairwise}{mode}"]
    if not look.awake:
        facts.append(UNTRAINED)
    if not look.exact:
        facts.append("places are approximate: the cells are taken to divide the frame evenly")
    if sight.path:
        facts.append(Path(sight.path).name)
    return tuple(facts)


def _legend(strips: Sequence[Strip]) -> list[str]:
    phrases = ["yellow dot: the query", "arrow or ring: to a heavy key, thicker if heavier"]
    if any(strip.sight.look.negative for strip in strips):
        phrases.append("orange, dashed: negative weights")
    phrases += ["per cent: of all weight", "average map: of queries all over the clip"]
    if any(len(strip.sight.look.weights) > 1 for strip in strips):
        phrases.append("dashed line: if all weights were equal")
    if any(strip.abridged for strip in strips):
        phrases.append("pale bars: frames not shown")
    return phrases


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: cannot be written: it is no regular file")
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # where nothing can be written, nothing can be removed
            temporary.unlink(missing_ok=True)

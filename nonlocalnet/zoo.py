"""The commands about checkpoints of others: `weights`, the published ones, and `convert`."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from .card import card_of, set_card
from .flags import PresetName, UsageError, check_output
from .labels import LISTS, class_names
from .terminal import download_bar, say, say_json, show_table
from .weights.published import PUBLISHED, Published, find


def weights(
    name: Positional[str | None] = None,
    family: str | None = None,
    json: bool = False,
) -> int:
    """The published models; or one of them, downloaded, converted and ready to be used.

    Their figures are the publishers', not measured here. `predict`, `test`, `attend`, `show` and
    `cost` take such a name where they take a run, and fetch it too.

    Args:
        name: A model of the table. It is kept in NONLOCALNET_HOME, or in the user's cache.
        family: Only models whose name or family has this in it, such as slowfast or nl.
        json: One line of JSON per model instead of the table.
    """
    if name is not None:
        return _get(find(name), json)
    wanted = (family or "").casefold()
    rows = [r for r in PUBLISHED.values() if wanted in f"{r.family} {r.name}".casefold()]
    if not rows:
        families = dict.fromkeys(r.family for r in PUBLISHED.values())
        raise UsageError(f"no model has {family!r} in it; families are {', '.join(families)}")
    if json:
        for row in rows:
            say_json(jsonlib.dumps(row.to_dict(), ensure_ascii=False))
    else:
        _show(rows)
    return 0


def _show(rows: list[Published]) -> None:
    """A table per family and licence, which would be the same words in every line."""
    heads = ("name", "input", "top-1", "top-5", "views")
    for family, licence in dict.fromkeys((row.family, row.licence) for row in rows):
        cells = [
            (row.name, row.input, _percent(row.top1), _percent(row.top5), row.views)
            for row in rows
            if (row.family, row.licence) == (family, licence)
        ]
        say(f"{family}, licence {licence}")
        show_table(heads, cells, right=(2, 3), whole=(0, 1, 2, 3))
        say("")
    say(
        "trained on Kinetics-400, or what the name says: sthv1, sthv2 (Something-Something), jester"
    )
    say("input: frames x stride, or frames spread over the whole video")
    say("top-1, top-5: percent, as published; --json tells where, and the address")


def _percent(value: float | None) -> str:
    """Up to two digits behind the point, as published."""
    return "" if value is None else f"{value:.2f}".removesuffix("0")


def _get(row: Published, json: bool) -> int:
    from .weights.download import ready

    with download_bar(row.name) as progress:
        path = ready(row.name, progress=progress)
    if json:
        say_json(jsonlib.dumps({**row.to_dict(), "path": str(path)}, ensure_ascii=False))
        return 0
    say(f"{row.name} of {row.family}: {path}")
    if row.top1 is not None:
        top5 = "" if row.top5 is None else f", top-5 {row.top5:g} %"
        say(f"published: top-1 {row.top1:g} %{top5} ({row.views}); {row.source}")
    if row.note:
        say(f"note: {row.note}")
    say(f"licence: {row.licence}")
    say(f"use it by its name: nonlocalnet predict {row.name} VIDEO")
    return 0


def convert(
    source: Positional[Path],
    out: Positional[Path],
    preset: PresetName | None = None,
    num_classes: int | None = None,
    classes: str | None = None,
    frames: int | None = None,
    stride: int | None = None,
    licence: str | None = None,
    verify: bool = True,
) -> int:
    """A checkpoint of another codebase, or of ours, as a file that says itself what it is.

    The new file holds the weights, the architecture, preprocessing, view rule and class names, and
    a self-test: what the network gives for a clip that can be made again. It is loaded again and
    compared before the command ends.

    Args:
        source: The checkpoint: .pkl, .pth, .pth.tar, .pyth, .safetensors, whatever its name is.
        out: The new file, ending in .safetensors.
        preset: Whose network it is, where the file fits several; without it they are listed.
        num_classes: A new, untrained head of so many classes.
        classes: Class names: a list such as kinetics400, or a text file with one per line.
        frames: Frames of a clip, where they are not the preset's.
        stride: Video frames from one frame of a clip to the next.
        licence: Of the weights, a note for those who get the file.
        verify: Write the self-test and check it.
    """
    check_output("OUT", out, ".safetensors")
    from .weights import load, save

    model = load(source, preset=preset, num_classes=num_classes)
    card = card_of(model)
    wanted: dict[str, Any] = {"frames": frames, "stride": stride, "licence": licence}
    for name in ("frames", "stride"):
        if (value := wanted[name]) is not None and value < 1:
            raise UsageError(f"--{name} is at least 1; it came as {value}")
    names = card.classes if classes is None else _class_names(classes)
    if names and len(names) != card.architecture["num_classes"]:
        raise UsageError(
            f"--classes {classes} has {len(names)} names, and the network has"
            f" {card.architecture['num_classes']} outputs"
        )
    changed = {key: value for key, value in wanted.items() if value is not None}
    set_card(model, dataclasses.replace(card, classes=names, **changed))
    save(model, out, prove=verify)
    if verify:
        load(out, verify=True)
    size = sum(p.numel() for p in model.parameters())
    blocks = len(card.architecture["non_local"])
    kind = card.architecture["name"]
    say(f"{card.source or source}: {kind}, {blocks} non-local blocks, {size:,} parameters")
    say("its self-test holds" if verify else "without a self-test")
    say(f"network: {out}")
    return 0


def _class_names(source: str) -> tuple[str, ...]:
    if source in LISTS:
        return class_names(source)
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--classes is {', '.join(LISTS)}, or a text file with a name per line;"
            f" {source!r} cannot be read: {error}"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())

"""The command that tells of published models and fetches one: `weights`."""

from __future__ import annotations

import json as jsonlib

from tyro.conf import Positional

from .flags import UsageError
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

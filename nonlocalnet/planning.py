"""The command about how results are obtained: `recipes`."""

from __future__ import annotations

import dataclasses

from tyro.conf import Positional

from .card import card_of
from .flags import UsageError
from .protocols import PROTOCOLS, SUSTAINED, VIDEOS, Protocol
from .recipes import Recipe
from .terminal import say, show_table


def recipes(name: Positional[str | None] = None) -> int:
    """The recipes of published results; or one of them: commands, cost, score to expect, settings.

    Args:
        name: A recipe of the table, which `train --recipe NAME` follows.
    """
    if name is None:
        rows = [(key, p.data, p.about, p.expect) for key, p in PROTOCOLS.items()]
        show_table(("recipe", "data", "what", "score to expect"), rows, right=(), whole=(0, 1))
        return 0
    if name not in PROTOCOLS:
        raise UsageError(f"no recipe {name!r}; `nonlocalnet recipes` lists them")
    protocol = PROTOCOLS[name]
    say(f"{name}: {protocol.about}")
    say("")
    for command in protocol.commands(name):
        say(f"    {command}")
    say("")
    facts = [("data", _data(protocol)), ("expect", protocol.expect)]
    facts += [("", protocol.measured), ("cost", _cost(protocol)), ("differs", protocol.differs)]
    show_table(("", ""), [fact for fact in facts if fact[1]], right=())
    plain = Recipe()
    changed = [
        (f"--{f.name.replace('_', '-')}", str(getattr(protocol.recipe, f.name)))
        for f in dataclasses.fields(Recipe)
        if getattr(protocol.recipe, f.name) != getattr(plain, f.name)
    ]
    if changed:
        show_table(("setting", ""), changed, right=())
    return 0


def _data(protocol: Protocol) -> str:
    count = VIDEOS.get(protocol.data)
    return protocol.data if count is None else f"{protocol.data}, {count:,} training videos"


def _cost(protocol: Protocol) -> str:
    """What the training takes, computed from the network and not measured."""
    if protocol.data not in VIDEOS:
        return ""
    from .cost import cost
    from .models import create_model
    from .training.plan import architecture

    recipe = protocol.recipe
    model = create_model(**architecture(recipe, 400))
    card = card_of(model)
    frames, side = recipe.frames or card.frames, recipe.crop or card.crop
    macs = cost(model, (3, frames, side, side))[-1].multiply_adds
    work = protocol.operations(macs)
    return (
        f"{macs / 1e9:.1f} G multiply-adds a clip, {work:.2g} floating-point operations in all:"
        f" {work / SUSTAINED / 3600:,.0f} GPU hours at {SUSTAINED / 1e12:.0f} TFLOP/s sustained"
        " (computed)"
    )

"""How the clips of a run are cut and coloured: the network's card, and what the recipe changes."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from ..card import Card
from ..errors import UserError
from ..presets import IMAGENET_MEAN, IMAGENET_STD
from ..recipes import Recipe


def derive_card(recipe: Recipe, classes: tuple[str, ...], base: Card, words: list[str]) -> Card:
    """What the network's own card says, as far as the recipe does not say otherwise.

    Adds a sentence to `words` for what was derived. Raises `UserError` for sizes that do not fit
    each other.
    """
    sampling = recipe.sampling or base.sampling
    card = replace(
        base,
        architecture={},
        classes=classes,
        frames=recipe.frames or base.frames,
        stride=recipe.stride or (1 if sampling == "segments" else base.stride),
        sampling=sampling,
        window=recipe.window or base.window,
        starts=recipe.starts or base.starts,
        beyond=recipe.beyond or base.beyond,
        clips=recipe.clips or base.clips,
        crops=base.crops if recipe.crops is None else recipe.crops,
        aggregate=recipe.aggregate or base.aggregate,
        cropping=recipe.cropping or base.cropping,
        flip=_flip(recipe, classes, words),
    )
    if (recipe.frames, recipe.stride, recipe.sampling) == (None, None, None):
        taken = f"{card.stride} apart" if sampling == "dense" else "one from each segment"
        words.append(f"clips of {card.frames} frames, {taken}: what {recipe.model} is made for")
    card = _square(recipe, card)
    if recipe.colours == "imagenet":
        card = replace(card, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    elif recipe.colours == "paper":
        card = replace(card, mean=Card().mean, std=Card().std)
    return card


def _flip(recipe: Recipe, classes: tuple[str, ...], words: list[str]) -> bool:
    if recipe.flip is not None:
        return recipe.flip
    sided = [name for name in classes if _sided(name)]
    if sided:
        words.append(f"no mirrored clips: class names such as {sided[0]!r} tell left from right")
    return not sided


def _sided(name: str) -> bool:
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    return bool({part.lower() for part in parts} & {"left", "right"})


def _square(recipe: Recipe, card: Card) -> Card:
    """The sizes in pixels; where only the crop is given, the others in the network's ratio."""
    ratio = (recipe.crop or card.crop) / card.crop
    crop = recipe.crop or card.crop
    short = recipe.short_side or _even(card.short_side * ratio)
    low, high = recipe.jitter or (_even(card.jitter[0] * ratio), _even(card.jitter[1] * ratio))
    test = recipe.test_crop or min(short, _even(card.test_crop * ratio))
    if not crop <= low <= high:
        raise UserError(
            f"--jitter {low} {high} is the range of the short side that a crop of {crop} is cut"
            " from: it must rise and begin at the crop or above"
        )
    if test > short:
        raise UserError(f"--test-crop {test} does not fit into frames whose short side is {short}")
    return replace(card, crop=crop, short_side=short, jitter=(low, high), test_crop=test)


def _even(value: float) -> int:
    return 2 * math.ceil(value / 2)  # never below a crop in the same ratio

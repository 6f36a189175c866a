"""How the pictures in a folder are numbered."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ..errors import UserError

NUMBERED = re.compile(r"(.*?)(\d+)(\.(?:jpe?g|png|webp|bmp))", re.IGNORECASE)


def template_of(names: Sequence[str], folder: str) -> str | None:
    """img_{:05d}.jpg for img_00001.jpg and so on; {name} stands for the name of their folder.

    Optical flow beside the pictures is passed over. None where nothing is a numbered picture.
    Raises `UserError` for two kinds in equal right.
    """
    kinds: dict[tuple[str, str], list[str]] = {}
    for name in names:
        match = NUMBERED.fullmatch(name)
        if match and not match[1].lower().startswith(("flow", "._")):
            kinds.setdefault((match[1], match[3]), []).append(match[2])
    found = Counter({kind: len(numbers) for kind, numbers in kinds.items()}).most_common(2)
    if not found:
        return None
    if len(found) > 1 and found[0][1] == found[1][1]:
        raise UserError(
            f"{folder} holds two kinds of pictures, {found[0][0][0]}…{found[0][0][1]} and"
            f" {found[1][0][0]}…{found[1][0][1]}; say which by --template, such as img_{{:05d}}.jpg"
        )
    (prefix, suffix), _ = found[0]
    numbers = kinds[prefix, suffix]
    widths = {len(number) for number in numbers}
    padded = len(widths) == 1 and any(number.startswith("0") for number in numbers)
    number = f"{{:0{widths.pop()}d}}" if padded else "{:d}"
    before = escape(prefix)
    if folder and prefix.startswith(folder):
        before = "{name}" + escape(prefix[len(folder) :])
    return before + number + suffix


def fill(template: str, folder: str) -> str:
    """The template for one folder."""
    return template.replace("{name}", escape(folder))


def escape(text: str) -> str:
    """Braces doubled, for `str.format`."""
    return text.replace("{", "{{").replace("}", "}}")


def check_template(template: str) -> str:
    """Raises `UserError` for what gives no name with a number."""
    try:
        good = fill(template, "x").format(1) != fill(template, "x").format(2)
    except (ValueError, IndexError, KeyError):
        good = False
    if not good or "/" in template:
        raise UserError(
            f"--template is the name of a picture with {{:05d}} for its number, such as"
            f" img_{{:05d}}.jpg, not {template!r}"
        )
    return template


def count(names: Sequence[str], template: str, folder: str) -> int:
    """How many of the names are pictures of this template."""
    before, after = fill(template, folder).format(1).rsplit("1", 1)
    before = before.rstrip("0") if ":0" in template else before
    return sum(
        name.startswith(before)
        and name.endswith(after)
        and name[len(before) : len(name) - len(after)].isdigit()
        for name in names
    )

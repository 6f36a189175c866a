"""What a family of checkpoints is: a table of names, and what its files leave open."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .names import Names

# of the arguments told by the tensors and of what else the file says: names of PRESETS
Presets = Callable[[Mapping[str, Any], Mapping[str, str]], tuple[str, ...]]

Notes = Callable[[Mapping[str, str]], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """One codebase's checkpoints.

    title: how messages call it. names: its tensors and ours. presets: which networks the tensors
    fit; one of them is taken, of several the caller chooses. shift: how the name of a tensor shows
    that its layer is shifted. card: what the file says of its clips, as fields of `Card`.
    options: what it says of the architecture, as arguments of `create_model`; raises UserError for
    what no network here can be. pooled: how the name of a block's g shows that its keys are pooled,
    "" where it does not. constants: whether its norms may be constants, without statistics.
    """

    title: str
    names: Names
    presets: Presets
    shift: str = ""
    card: Notes = lambda notes: {}
    options: Notes = lambda notes: {}
    pooled: str = ""
    constants: bool = False


def has_dot(told: Mapping[str, Any]) -> bool:
    """Whether theta and phi are there, which embedded Gaussian and dot product have alike."""
    return bool(told["non_local"]) and "pairwise" not in told


def setting(text: str, key: str) -> str | None:
    """The value of a key in the text of a configuration (YAML or Python); None if it has none."""
    match = re.search(rf"""\b{key}['"]?\s*[:=]\s*['"]?(\w+)""", text)
    return match[1] if match else None


def numbers(text: str, section: str, key: str) -> list[float]:
    """All numbers of a list, however nested, under section and key of a YAML text."""
    block = re.search(rf"^{section}:\n((?:[ \t].*\n?)*)", text, re.MULTILINE)
    value = re.search(rf"^ +{key}:(.*\n?(?: *-.*\n?)*)", block[1], re.MULTILINE) if block else None
    return [float(n) for n in re.findall(r"\d+(?:\.\d+)?", value[1])] if value else []

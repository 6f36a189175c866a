"""What a family of checkpoints is: a table of names, and what its files leave open."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .names import Names

# of the arguments told by the tensors and of what else the file says: names of PRESETS
Presets = Callable[[Mapping[str, Any], Mapping[str, str]], tuple[str, ...]]


@dataclass(frozen=True)
class Family:
    """One codebase's checkpoints.

    title: how messages call it. names: its tensors and ours. presets: which networks the tensors
    fit; one of them is taken, of several the caller chooses. shift: how the name of a tensor shows
    that its layer is shifted. card: what the file says of its clips, as fields of `Card`.
    """

    title: str
    names: Names
    presets: Presets
    shift: str = ""
    card: Callable[[Mapping[str, str]], dict[str, Any]] = lambda notes: {}


def has_dot(told: Mapping[str, Any]) -> bool:
    """Whether theta and phi are there, which embedded Gaussian and dot product have alike."""
    return bool(told["non_local"]) and "pairwise" not in told


def setting(text: str, key: str) -> str | None:
    """The value of a key in the text of a configuration (YAML or Python); None if it has none."""
    match = re.search(rf"""\b{key}['"]?\s*[:=]\s*['"]?(\w+)""", text)
    return match[1] if match else None

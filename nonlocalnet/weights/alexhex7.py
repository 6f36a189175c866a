"""AlexHex7/Non-local_pytorch: its network for digits, and its blocks by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .family import Family, has_dot
from .names import Names

# Of a block: ".0" where a pooling (g, phi) or a norm (W) follows.
BLOCK = [
    ("g.0.{p}", "g.{p}"),
    ("g.{p}", "g.{p}"),
    ("phi.0.{p}", "phi.{p}"),
    ("phi.{p}", "phi.{p}"),
    ("theta.{p}", "theta.{p}"),
    ("W.0.{p}", "out.{p}"),
    ("W.{p}", "out.{p}"),
    ("W.1.{p}", "norm.{p}"),
    ("concat_project.0.weight", "w_f"),
]


def _rows() -> list[tuple[str, str]]:
    rows = [("fc.0.{p}", "fc.0.{p}"), ("fc.3.{p}", "fc.3.{p}")]
    rows += [(f"conv_{n}.{j}.{{p}}", f"conv_{n}.{j}.{{p}}") for n in (1, 2, 3) for j in (0, 1)]
    for n in (1, 2):
        rows += [(f"nl_{n}.{theirs}", f"conv_{n}.non_local.{ours}") for theirs, ours in BLOCK]
    return rows


def _presets(told: Mapping[str, Any], notes: Mapping[str, str]) -> tuple[str, ...]:
    return ("alexhex7", "alexhex7-dot") if has_dot(told) else ("alexhex7",)


FAMILY = Family("AlexHex7's Non-local_pytorch", Names(_rows()), _presets, pooled=".g.0.")

"""Learning curves from the lines of a training log."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

KEY = re.compile(r"(?:(\w+?)[_/ ])?(loss|top1|top5|accuracy|mean average precision)|block (.+)")
QUANTITIES = {
    "loss": "loss",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "accuracy": "accuracy",
    "mean average precision": "mean average precision",
}
PARTS = {
    None: "training",
    "train": "training",
    "training": "training",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
BLOCKS = "change made by each block"  # the length of what it adds over that of its input

Log = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """One logged quantity: `part` is training, validation, test or a block; `over` names x.

    share: the values are shares of 1.
    """

    quantity: str
    part: str
    over: str
    points: tuple[tuple[float, float], ...]

    @property
    def share(self) -> bool:
        return self.quantity.endswith(("accuracy", "precision"))


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl; a line cut short by a crash is left out.

    Raises `UserError` if the file cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"the log {os.fspath(path)} cannot be read: {error.strerror or error}"
        ) from error
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def curves(log: Log) -> dict[str, Curve]:
    """The curves of a log by name ("validation loss").

    Read are numbers under the keys loss, top1, top5 and accuracy, with "train_", "val_", "test_",
    "validation " ... before them (without, training is meant), and under "block NAME", the share
    a non-local block adds to its input. All else is left alone.

    x is "epoch" where no curve has two values in one epoch, otherwise "step"; without either, the
    line. Where a resumed run wrote the same x twice, the last value counts.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in log:
        for key, value in row.items():
            if _meaning(key) and _number(value):
                rows.setdefault(key, []).append(row)
    over = _axis(rows)
    found = []
    for key, lines in rows.items():
        meaning = _meaning(key)
        assert meaning  # only such keys were taken
        by_x = {_x(row, over, i): float(row[key]) for i, row in enumerate(lines)}
        found.append(Curve(*meaning, over, tuple(sorted(by_x.items()))))
    order = [*QUANTITIES.values(), BLOCKS]
    found.sort(key=lambda c: (order.index(c.quantity), c.part != "training"))
    return {f"{c.part} {c.quantity}": c for c in found}


def _meaning(key: str) -> tuple[str, str] | None:
    """(quantity, part) of a log's key."""
    match = KEY.fullmatch(key)
    if match is None:
        return None
    if match[3]:
        return BLOCKS, match[3].removesuffix(".non_local")
    return (QUANTITIES[match[2]], PARTS[match[1]]) if match[1] in PARTS else None


def finite(value: Any) -> Any:
    """The same JSON value with `None` for numbers JSON does not know (a loss of NaN)."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _axis(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    for name in ("epoch", "step"):
        if all(_number(row.get(name)) for found in rows.values() for row in found):
            once = all(len({r[name] for r in found}) == len(found) for found in rows.values())
            if once or name == "step":
                return name
    return "line"


def _x(row: Mapping[str, Any], over: str, i: int) -> float:
    return float(i + 1) if over == "line" else float(row[over])


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

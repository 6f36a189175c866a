"""What a test found where a video may have several labels: how well each class is ranked."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .metrics import Rule, Skipped


@dataclass(frozen=True)
class TagResult:
    """A finished test of a network with several labels at once (Charades).

    precisions: average precision of each class under each rule, (rules, K); NaN for a class that
    no video has. counts: videos of each class. videos: how many were tested. obtained: how these
    figures came about, in words, in reading order.
    """

    classes: tuple[str, ...]
    rules: tuple[Rule, ...]
    precisions: tuple[tuple[float, ...], ...]
    counts: tuple[int, ...]
    videos: int
    skipped: tuple[Skipped, ...] = ()
    obtained: dict[str, str] = dataclasses.field(default_factory=dict)

    def mean(self, rule: int = -1) -> float:
        """Mean average precision over the classes that some video has."""
        there = [value for value in self.precisions[rule] if not math.isnan(value)]
        return float(np.mean(there)) if there else math.nan

    def guess(self) -> float:
        """What scores drawn at random give on average, nearly: the mean share of a class."""
        there = [count for count in self.counts if count]
        return sum(there) / len(there) / self.videos if there else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `None` for NaN."""
        return {
            "mean_average_precision": [
                {"name": rule.name, "value": _plain(self.mean(i))}
                for i, rule in enumerate(self.rules)
            ],
            "per_class": [
                {"name": name, "average_precision": _plain(value), "videos": count}
                for name, value, count in zip(
                    self.classes, self.precisions[-1], self.counts, strict=True
                )
            ],
            "videos": self.videos,
            "skipped": [dataclasses.asdict(each) for each in self.skipped],
            "obtained": self.obtained,
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), allow_nan=False)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value

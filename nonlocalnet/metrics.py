"""What a test found, video by video, and every figure that is counted from it.

A `Result` stores the raw outcome of each video under each view rule. All accuracies, intervals and
tables are counted from those rows when asked for, so no two figures can contradict each other.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .card import WHOLE
from .errors import UserError

KEPT = 5  # best classes remembered per video: enough for top-5, bounded for 400 classes
Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Rate:
    """So many right out of so many, with its 95 % interval by Wilson's score method.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927). Unlike
    the textbook interval it stays inside 0..1 and does not collapse when all or none are right.
    It treats videos as independent: clips cut from one recording make it too narrow.
    """

    hits: int
    count: int

    @property
    def value(self) -> float:
        """The share; NaN when nothing was counted."""
        return self.hits / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end, on the scale 0..1; (0, 1) when nothing was counted."""
        if self.count == 0:
            return 0.0, 1.0
        n, p, zz = self.count, self.hits / self.count, Z95 * Z95
        centre = (p + zz / (2 * n)) / (1 + zz / n)
        half = Z95 * math.sqrt(p * (1 - p) / n + zz / (4 * n * n)) / (1 + zz / n)
        # rounding must not put 0 of n or n of n outside their own interval
        return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval
        value = self.value if self.count else None
        return {"value": value, "low": low, "high": high, "hits": self.hits, "count": self.count}


@dataclass(frozen=True)
class Outcome:
    """What one view rule said about one video.

    top, scores: the best classes and their scores, best first, `KEPT` at most.
    rank: of the right class; 0 when the answer is right. truth: the right class's score.
    """

    top: tuple[int, ...]
    scores: tuple[float, ...]
    rank: int
    truth: float


@dataclass(frozen=True)
class Scored:
    """One video: its right label and one outcome per view rule; source is what it was cut from."""

    path: str
    label: int
    source: str
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Skipped:
    """A video that could not be used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Rule:
    """Which views one score was made of; crops as in `card.CROPS`.

    framewise: the network got the frames of a view one by one, and its answers were averaged.
    """

    clips: int
    crops: int
    framewise: bool = False

    @property
    def name(self) -> str:
        name = "1 clip" if self.clips == 1 else f"{self.clips} clips"
        if self.crops == WHOLE:
            name += " × the whole frame"
        elif self.crops > 1:
            name += f" × {self.crops} crops"
        return f"{name}, frame by frame" if self.framewise else name

    @property
    def views(self) -> int:
        """Views per video."""
        return self.clips * max(1, self.crops)


@dataclass(frozen=True)
class ClassRow:
    """One class: how many of its videos were found, how many answers of this class were right."""

    name: str
    recall: Rate  # of the videos of this class
    precision: Rate  # of the answers "this class"


@dataclass(frozen=True)
class Calibration:
    """Does "90 % sure" mean right nine times out of ten?

    error: expected calibration error, Σ (n_b / n) |accuracy_b - confidence_b| over equally wide
    bins of the best score (Guo et al., "On calibration of modern neural networks", 2017).
    bins: (mean confidence, accuracy as a Rate) of every bin that is not empty.
    """

    error: float
    bins: tuple[tuple[float, Rate], ...]


def outcome(scores: torch.Tensor, label: int) -> Outcome:
    """The outcome of one video from its class scores (K,); equal scores rank by class number."""
    ordered, classes = scores.sort(descending=True, stable=True)
    rank = int((classes == label).nonzero()[0])
    return Outcome(
        top=tuple(classes[:KEPT].tolist()),
        scores=tuple(ordered[:KEPT].tolist()),
        rank=rank,
        truth=float(scores[label]),
    )


@dataclass(frozen=True)
class Result:
    """A finished test.

    rules: the view rules, fewest views first; every video has one outcome per rule, and where a
    method takes `rule` it is an index into them (the last, fullest one when not given).
    groups: coarser labels counted from the same answers, a group name per class.
    obtained: how these figures came about, in words, in reading order.
    """

    classes: tuple[str, ...]
    rules: tuple[Rule, ...]
    videos: tuple[Scored, ...]
    skipped: tuple[Skipped, ...] = ()
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    obtained: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Videos tested; the skipped ones are not among them."""
        return len(self.videos)

    @property
    def sources(self) -> int:
        """Different recordings the videos were cut from."""
        return len({video.source for video in self.videos})

    def accuracy(self, rule: int = -1, k: int = 1) -> Rate:
        """How often the right class is among the best k."""
        return Rate(sum(v.outcomes[rule].rank < k for v in self.videos), self.count)

    def class_rows(self, rule: int = -1) -> list[ClassRow]:
        """One row per class, in label order."""
        table = self.confusion(rule)
        right, present, said = np.diag(table), table.sum(1), table.sum(0)
        return [
            ClassRow(
                name,
                recall=Rate(int(right[i]), int(present[i])),
                precision=Rate(int(right[i]), int(said[i])),
            )
            for i, name in enumerate(self.classes)
        ]

    def mean_class_accuracy(self, rule: int = -1) -> float:
        """Accuracy of each class that has videos, averaged over classes."""
        rows = [row.recall.value for row in self.class_rows(rule) if row.recall.count]
        return float(np.mean(rows)) if rows else math.nan

    def confusion(self, rule: int = -1) -> npt.NDArray[np.int64]:
        """(K, K) counts: row = right class, column = answer."""
        table = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        for video in self.videos:
            table[video.label, video.outcomes[rule].top[0]] += 1
        return table

    def confused_pairs(self, rule: int = -1) -> list[tuple[str, str, int, int]]:
        """(right class, answer, how often, videos of the right class); most frequent first."""
        table = self.confusion(rule)
        present = table.sum(1)
        pairs = [
            (int(i), int(j)) for i, j in zip(*np.nonzero(table), strict=True) if int(i) != int(j)
        ]
        pairs.sort(key=lambda p: (-table[p], -table[p] / present[p[0]], p))
        return [
            (self.classes[i], self.classes[j], int(table[i, j]), int(present[i])) for i, j in pairs
        ]

    def group_accuracy(self, rule: int = -1) -> dict[str, Rate]:
        """How often the answer lies in the right group, for every grouping."""
        return {
            name: Rate(
                sum(group[v.outcomes[rule].top[0]] == group[v.label] for v in self.videos),
                self.count,
            )
            for name, group in self.groups.items()
        }

    def guess(self, group: str | None = None) -> Rate:
        """What answering the most frequent class (or group) every time would give."""
        names = self.groups[group] if group else tuple(map(str, range(len(self.classes))))
        counts = Counter(names[v.label] for v in self.videos)
        return Rate(max(counts.values(), default=0), self.count)

    def calibration(self, rule: int = -1, bins: int = 15) -> Calibration:
        """The expected calibration error with its bins."""
        sure = np.array([v.outcomes[rule].scores[0] for v in self.videos])
        right = np.array([v.outcomes[rule].rank == 0 for v in self.videos])
        # bins are open below and closed above, so that a score of exactly 1 has its bin
        place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
        error, rows = 0.0, []
        for b in range(bins):
            inside = place == b
            if count := int(inside.sum()):
                rate = Rate(int(right[inside].sum()), count)
                confidence = float(sure[inside].mean())
                error += count / self.count * abs(rate.value - confidence)
                rows.append((confidence, rate))
        return Calibration(error, tuple(rows))

    def worst(self, count: int, rule: int = -1) -> list[Scored]:
        """The wrong answers given with the highest score, surest first."""
        wrong = [v for v in self.videos if v.outcomes[rule].rank]
        return sorted(wrong, key=lambda v: (-v.outcomes[rule].scores[0], v.path))[:count]

    def summary(self) -> dict[str, Any]:
        """Every figure as plain JSON values; `None` where nothing was counted."""
        rules = []
        for i, rule in enumerate(self.rules):
            row: dict[str, Any] = {"name": rule.name, "clips": rule.clips, "crops": rule.crops}
            row["top1"] = self.accuracy(i).to_dict()
            if len(self.classes) > 5:
                row["top5"] = self.accuracy(i, k=5).to_dict()
            row["mean_class_accuracy"] = self.mean_class_accuracy(i)
            row["expected_calibration_error"] = self.calibration(i).error
            row["groups"] = {k: rate.to_dict() for k, rate in self.group_accuracy(i).items()}
            rules.append(row)
        return {
            "videos": self.count,
            "sources": self.sources,
            "skipped": len(self.skipped),
            "guess": self.guess().to_dict(),
            "group_guess": {name: self.guess(name).to_dict() for name in self.groups},
            "rules": rules,
            "per_class": [
                {"name": r.name, "recall": r.recall.to_dict(), "precision": r.precision.to_dict()}
                for r in self.class_rows()
            ],
            "confusion": self.confusion().tolist(),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the summary for readers, and the rows `from_dict` needs."""
        return {"summary": self.summary(), **dataclasses.asdict(self)}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Result:
        """The result that `to_dict` wrote; its summary is ignored, for it is counted anew."""
        try:
            return cls(
                classes=tuple(data["classes"]),
                rules=tuple(Rule(**rule) for rule in data["rules"]),
                videos=tuple(_scored(video) for video in data["videos"]),
                skipped=tuple(Skipped(**item) for item in data["skipped"]),
                groups={name: tuple(group) for name, group in data["groups"].items()},
                obtained=dict(data["obtained"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"this is not a test result of nonlocalnet ({type(error).__name__}: {error});"
                " expected the JSON that `nonlocalnet test` writes"
            ) from error

    @classmethod
    def from_json(cls, text: str) -> Result:
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"this is not JSON: {error}") from error
        return cls.from_dict(data)


def _scored(data: dict[str, Any]) -> Scored:
    outcomes: Sequence[dict[str, Any]] = data["outcomes"]
    return Scored(
        path=data["path"],
        label=data["label"],
        source=data["source"],
        outcomes=tuple(
            Outcome(tuple(o["top"]), tuple(o["scores"]), o["rank"], o["truth"]) for o in outcomes
        ),
    )

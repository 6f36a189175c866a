"""The scores of many videos: what a test is counted from, kept in a file, and fused with others."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from .card import Activation
from .errors import UserError
from .files import replacing
from .metrics import Result, Rule, Scored, Skipped, outcome
from .precision import average_precisions
from .samples import Sample, Split, multi_hot
from .tags import TagResult

# what numpy and zipfile make of other files has many kinds
UNREADABLE = (ValueError, LookupError, TypeError, EOFError, OSError, RuntimeError, BadZipFile)


@dataclass(frozen=True)
class Scores:
    """What a network said of each video under each view rule.

    samples: the videos, n; those without a label may be fused with others. values: (rules, n, K)
    float32, the rules as in `Result`. activation: whether the scores of a video sum to 1, or each
    stands by itself.
    """

    classes: tuple[str, ...]
    rules: tuple[Rule, ...]
    samples: tuple[Sample, ...]
    values: Tensor
    activation: Activation = "softmax"
    skipped: tuple[Skipped, ...] = ()
    obtained: Mapping[str, str] = field(default_factory=dict)

    @property
    def several(self) -> bool:
        """Whether a video may have several labels."""
        return any(sample.label < 0 for sample in self.samples)

    def result(self, groups: Mapping[str, Callable[[str], str]] | None = None) -> Result:
        """The figures of a test where each video has one label; groups as in `Result`."""
        videos = [
            Scored(
                sample.path,
                sample.label,
                sample.source,
                tuple(outcome(of_rule[i], sample.label) for of_rule in self.values),
            )
            for i, sample in enumerate(self.samples)
        ]
        named = {name: tuple(map(of, self.classes)) for name, of in (groups or {}).items()}
        return Result(
            self.classes, self.rules, tuple(videos), self.skipped, named, dict(self.obtained)
        )

    def tags(self) -> TagResult:
        """The figures of a test where a video may have several labels."""
        count = len(self.classes)
        truth = torch.stack([multi_hot(sample, count) for sample in self.samples])  # (n, K)
        return TagResult(
            self.classes,
            self.rules,
            tuple(tuple(average_precisions(values, truth).tolist()) for values in self.values),
            tuple(truth.sum(0).int().tolist()),
            len(self.samples),
            self.skipped,
            dict(self.obtained),
        )

    def save(self, path: Path) -> None:
        """Write an .npz file: `scores` (rules, n, K), and `about`, the rest as JSON."""
        about = {
            "samples": Split(self.classes, (), self.samples).to_json(),
            "rules": [dataclasses.asdict(rule) for rule in self.rules],
            "activation": self.activation,
            "skipped": [dataclasses.asdict(each) for each in self.skipped],
            "obtained": dict(self.obtained),
        }
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.savez_compressed(
                file,
                scores=self.values.numpy(),
                about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            )


def read_scores(path: Path) -> Scores:
    """What `Scores.save` wrote; or a CSV: `path` and the class names, then one line per video.

    A CSV has no labels: it is for fusion with a file that has. Raises `UserError` for other files.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if path.suffix.lower() == ".csv":
        return _from_csv(path, content)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            values, about = arrays["scores"], json.loads(arrays["about"].tobytes())
        split = Split.from_json(about["samples"])
        return Scores(
            split.classes,
            tuple(Rule(**rule) for rule in about["rules"]),
            split.val,
            torch.from_numpy(values).view(len(about["rules"]), len(split.val), len(split.classes)),
            about["activation"],
            tuple(Skipped(**each) for each in about["skipped"]),
            about["obtained"],
        )
    except UNREADABLE as error:
        raise UserError(
            f"{path} holds no scores of a test; expected the .npz that `nonlocalnet test` writes"
            " beside its report, or a .csv with a column of paths and one of scores per class"
        ) from error


def _from_csv(path: Path, content: bytes) -> Scores:
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig", "replace"))))
    if not rows or not rows[0] or rows[0][0] != "path" or len(rows[0]) < 3 or len(rows) < 2:
        raise UserError(
            f"{path}: expected a first line with path and the names of the classes, and one line of"
            " scores per video below"
        )
    values = []
    for number, row in enumerate(rows[1:], 2):
        try:
            if len(row) != len(rows[0]):
                raise ValueError
            values.append([float(cell) for cell in row[1:]])
        except ValueError:
            raise UserError(
                f"{path}, line {number}: expected a path and {len(rows[0]) - 1} numbers"
            ) from None
        if not all(map(math.isfinite, values[-1])):
            raise UserError(f"{path}, line {number}: a score is not finite")
    samples = tuple(Sample(row[0], -1, row[0]) for row in rows[1:])
    return Scores(tuple(rows[0][1:]), (Rule(1, 1),), samples, torch.tensor(values)[None])


def fuse(parts: Sequence[Scores], weights: Sequence[float] | None = None) -> Scores:
    """Late fusion: the weighted mean of the scores of several tests of the same videos.

    Streams such as RGB, flow and sound are trained by themselves and meet here (two-stream
    networks; TSM's ensembles). Videos are matched by path, or where the paths differ by the name
    of the file, or of the folder of numbered pictures; several of one file by their seconds too.
    What not every part has is left out. Parts with the same view rules are fused rule by rule,
    others by their fullest.

    weights: one per part, in any unit; equal where not given.

    Raises `UserError` for fewer than two parts, weights that make no mean, other classes, labels
    that contradict each other, or no video in common.
    """
    if len(parts) < 2:
        raise UserError("fusion takes the scores of two tests at least")
    shares = _shares(len(parts), weights)
    telling = [i for i, part in enumerate(parts) if any(sample.seen for sample in part.samples)]
    if not telling:
        raise UserError("none of the files has labels; give one that `nonlocalnet test` wrote")
    first = parts[telling[0]]
    columns = [_columns(part, first.classes) for part in parts]
    places = _common(parts)
    _agree(parts, places)
    alike = all(part.rules == first.rules for part in parts)
    rules = first.rules if alike else first.rules[-1:]
    values = sum(
        share * values[-len(rules) :, place]
        for values, place, share in zip(columns, places, shares, strict=True)
    )
    assert isinstance(values, Tensor)
    samples = tuple(first.samples[i] for i in places[telling[0]])
    told = ", ".join(
        f"{share:.3g} x {part.obtained.get('Network', 'scores')}"
        for part, share in zip(parts, shares, strict=True)
    )
    return Scores(
        first.classes,
        rules,
        samples,
        values.float(),
        first.activation,
        first.skipped,
        {
            "Fusion": f"weighted mean of scores, {told}",
            "Views": ", ".join(dict.fromkeys(part.rules[-1].name for part in parts)),
            "Videos": f"{len(samples):,}",
        },
    )


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    given = list(weights or [1.0] * count)
    if len(given) != count:
        raise UserError(f"{count} files take {count} weights, not {len(given)}")
    if not all(0 <= weight < math.inf for weight in given) or not sum(given):
        raise UserError(f"weights are numbers from 0 on, not all of them 0: {given}")
    return [weight / sum(given) for weight in given]


def _common(parts: Sequence[Scores]) -> list[list[int]]:
    """For each part the places of the videos that all have, in the order of the first."""
    for key in (_path, _part, _name, _named_part):
        found = [{key(sample): i for i, sample in enumerate(part.samples)} for part in parts]
        shared = [k for k in found[0] if all(k in other for other in found)]
        if shared and all(len(f) == len(p.samples) for f, p in zip(found, parts, strict=True)):
            return [[other[k] for k in shared] for other in found]
    raise UserError(
        "the files have no video in common, neither by path and seconds nor by a name that occurs"
        " once; fuse tests of the same videos"
    )


def _path(sample: Sample) -> str:
    return sample.path


def _part(sample: Sample) -> str:
    return f"{sample.path} {sample.start} {sample.end}"


def _named_part(sample: Sample) -> str:
    return f"{_name(sample)} {sample.start} {sample.end}"


def _name(sample: Sample) -> str:
    path = PurePosixPath(sample.path)
    return path.parent.name if sample.pictures or "{" in path.name else path.stem


def _columns(part: Scores, classes: tuple[str, ...]) -> Tensor:
    """The values with their classes in this order, float64."""
    if sorted(part.classes) != sorted(classes):
        odd = sorted(set(part.classes) ^ set(classes))
        raise UserError(
            f"the files are about other classes: {', '.join(odd[:5])} are not in each of them"
        )
    return part.values[:, :, [part.classes.index(name) for name in classes]].double()


def _agree(parts: Sequence[Scores], places: Sequence[Sequence[int]]) -> None:
    for video in zip(*places, strict=True):
        samples = [part.samples[i] for part, i in zip(parts, video, strict=True)]
        labels = [
            {part.classes[label] for label in sample.labels}
            for part, sample in zip(parts, samples, strict=True)
            if sample.seen
        ]
        if any(other != labels[0] for other in labels[1:]):
            paths = " and ".join(dict.fromkeys(sample.path for sample in samples))
            raise UserError(f"{paths} are one video with different labels")

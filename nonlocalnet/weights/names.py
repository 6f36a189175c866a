"""Two-way tables of names: another codebase's name of a tensor, and ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

# What a placeholder stands for, in terms of our stage layer1 ... layer4.
_STAGES: dict[str, dict[str, str]] = {
    "L": {"1": "1", "2": "2", "3": "3", "4": "4"},  # layer1 ...
    "S": {"2": "1", "3": "2", "4": "3", "5": "4"},  # the paper's res2 ...
    "B": {"1": "1", "3": "2", "4": "3", "5": "4"},  # PyTorchVideo's blocks, the second a pooling
}
_PARAMETERS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_PATTERNS = {
    "i": r"\d+",
    "c": "[123]",
    "p": "|".join(_PARAMETERS),
    **{letter: "|".join(numbers) for letter, numbers in _STAGES.items()},
}


@dataclass(frozen=True)
class Names:
    """Rows (theirs, ours) with placeholders: ("s{S}.res{i}.a.{p}", "layer{L}.{i}.conv1.{p}").

    {L} is the number in layer1 ... layer4, {S} the paper's res2 ... res5, {B} PyTorchVideo's block,
    {i} a residual block, {c} a convolution of it, {p} what torch calls a parameter or statistic.
    A row without {p} names a whole tensor. Of several rows for one of our names the first is the
    one `theirs` gives.
    """

    rows: Sequence[tuple[str, str]]

    def ours(self, name: str) -> str | None:
        """Our name of their tensor; None if the table does not know it."""
        return self._to_ours(name)

    def theirs(self, name: str) -> str | None:
        """Their name of our tensor; None if the table does not know it."""
        return self._to_theirs(name)

    @cached_property
    def _to_ours(self) -> Callable[[str], str | None]:
        return _translator(self.rows)

    @cached_property
    def _to_theirs(self) -> Callable[[str], str | None]:
        return _translator([(ours, theirs) for theirs, ours in self.rows])


def _translator(rows: Sequence[tuple[str, str]]) -> Callable[[str], str | None]:
    """The first row that a name fits; rows that are plain names but for {p} are looked up."""
    plain: dict[str, str] = {}
    patterns = []
    for source, target in rows:
        stem = source.removesuffix(".{p}")
        if stem != source and "{" not in stem:
            plain.setdefault(stem, target.removesuffix(".{p}"))
        else:
            patterns.append((_regex(source), target))

    def translate(name: str) -> str | None:
        stem, _, last = name.rpartition(".")
        if stem in plain and last in _PARAMETERS:
            return f"{plain[stem]}.{last}"
        for pattern, template in patterns:
            if match := pattern.fullmatch(name):
                return _fill(template, match.groupdict())
        return None

    return translate


def _regex(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w)\}", template)
    pattern = "".join(
        f"(?P<{part}>{_PATTERNS[part]})" if i % 2 else re.escape(part)
        for i, part in enumerate(parts)
    )
    return re.compile(pattern)


def _fill(template: str, values: Mapping[str, str]) -> str:
    filled = dict(values)
    for letter, numbers in _STAGES.items():
        if letter in values:
            layer = numbers[values[letter]]
            for other, theirs in _STAGES.items():
                filled[other] = next(number for number, ours in theirs.items() if ours == layer)
    return template.format(**filled)

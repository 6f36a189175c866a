"""Two-way tables of names: another codebase's name of a tensor, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# What a placeholder stands for, in terms of our stage layer1 ... layer4.
_STAGES: dict[str, dict[str, str]] = {
    "L": {"1": "1", "2": "2", "3": "3", "4": "4"},  # layer1 ...
    "S": {"2": "1", "3": "2", "4": "3", "5": "4"},  # the paper's res2 ...
    "B": {"1": "1", "3": "2", "4": "3", "5": "4"},  # PyTorchVideo's blocks, the second a pooling
}
_PATTERNS = {
    "i": r"\d+",
    "c": "[123]",
    "p": "weight|bias|running_mean|running_var|num_batches_tracked",
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
    _ours: list[tuple[re.Pattern[str], str]] = field(init=False, repr=False)
    _theirs: list[tuple[re.Pattern[str], str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ours", [(_regex(a), b) for a, b in self.rows])
        object.__setattr__(self, "_theirs", [(_regex(b), a) for a, b in self.rows])

    def ours(self, name: str) -> str | None:
        """Our name of their tensor; None if the table does not know it."""
        return _translate(name, self._ours)

    def theirs(self, name: str) -> str | None:
        """Their name of our tensor; None if the table does not know it."""
        return _translate(name, self._theirs)


def _regex(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w)\}", template)
    pattern = "".join(
        f"(?P<{part}>{_PATTERNS[part]})" if i % 2 else re.escape(part)
        for i, part in enumerate(parts)
    )
    return re.compile(pattern)


def _translate(name: str, table: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in table:
        if match := pattern.fullmatch(name):
            return _fill(template, match.groupdict())
    return None


def _fill(template: str, values: Mapping[str, str]) -> str:
    filled = dict(values)
    for letter, numbers in _STAGES.items():
        if letter in values:
            layer = numbers[values[letter]]
            for other, theirs in _STAGES.items():
                filled[other] = next(number for number, ours in theirs.items() if ours == layer)
    return template.format(**filled)

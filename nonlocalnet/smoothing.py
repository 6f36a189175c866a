"""Many answers over time -> fewer, steadier ones: means and hysteresis, their state a value.

Each is a frozen dataclass with `start` and `step`, as a network that is `streaming.Streaming`: the
state is a plain tuple of tensors whose first dimensions are those of the streams, and zeros
mean "nothing seen yet", so that `streaming.restart` begins some streams of a batch anew. Everything
works for one stream, values (K,), and for a batch, (N, K).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import UserError

State = tuple[Tensor, ...]
NONE = -1  # the label of what is none of the classes


@dataclass(frozen=True)
class WindowMean:
    """The mean of the last `count` answers, or of those there are: y_t = mean(x_{t-n+1} ... x_t).

    Over logits with n = 12 it is what the demo of TSM's authors sums. n = 1 changes nothing.
    """

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a mean is over 1 answer or more, not {self.count}")

    def start(self, values: Tensor) -> State:
        """values (..., K), of the kind that `step` gets -> last answers (..., n, K), seen (...)."""
        return values.new_zeros(*values.shape[:-1], self.count, values.shape[-1]), _zeros(values)

    def step(
        self, values: Tensor, state: State, elapsed: Tensor | float = 1.0
    ) -> tuple[Tensor, State]:
        """(..., K) -> (..., K); `elapsed` makes no difference to a mean of the last n."""
        last, seen = state
        last = torch.cat((last[..., 1:, :], values[..., None, :]), -2)
        seen = (seen + 1).clamp(max=self.count)
        return last.sum(-2) / seen[..., None], (last, seen)

    def middle(self, mean: float, oldest: float, newest: float, elapsed: float) -> float:
        """The time that a mean tells of, half of its weight being younger.

        mean: of the times, smoothed as the answers; oldest, newest: since the start; elapsed:
        between answers.
        """
        return mean


@dataclass(frozen=True)
class Exponential:
    """A mean in which an answer counts half as much as one that is `half_life` younger.

        y_t = sum_i w_i x_i / sum_i w_i,  w_i = 2^(-(t - t_i) / half_life)

    half_life is in the unit of `elapsed`: seconds, or steps where nothing is said. Dividing by the
    sum of the weights makes the first answers count in full.
    """

    half_life: float

    def __post_init__(self) -> None:
        if not 0 < self.half_life < math.inf:
            raise ValueError(f"a half-life is above 0, not {self.half_life}")

    def start(self, values: Tensor) -> State:
        """values (..., K) -> weighted sum (..., K), sum of weights (...)."""
        return torch.zeros_like(values), _zeros(values)

    def step(
        self, values: Tensor, state: State, elapsed: Tensor | float = 1.0
    ) -> tuple[Tensor, State]:
        """(..., K) -> (..., K). elapsed: since the step before; one number, or per stream (...)."""
        total, weight = state
        past = torch.as_tensor(elapsed, dtype=values.dtype, device=values.device)
        kept = torch.exp2(-past / self.half_life)
        total, weight = total * kept[..., None] + values, weight * kept + 1
        return total / weight[..., None], (total, weight)

    def middle(self, mean: float, oldest: float, newest: float, elapsed: float) -> float:
        """As for `WindowMean`: about a half-life ago, less where there is no such past.

        The mean of the times is older, for a little weight lies on what is long gone. Of N answers
        the last n have half of the weight where 2^(-n elapsed / h) = (1 + 2^(-N elapsed / h)) / 2.
        """
        share = (1 + 2 ** ((oldest - newest - elapsed) / self.half_life)) / 2
        return min(newest, newest + elapsed / 2 + self.half_life * math.log2(share))


def _zeros(values: Tensor) -> Tensor:
    return values.new_zeros(values.shape[:-1])


Smoothing = WindowMean | Exponential


@dataclass(frozen=True)
class Hysteresis:
    """A label is told once `agree` answers in a row say it, and stays until others do.

    The very first answer is told at once: there is no other to stay with.

    silent: classes that are never told: such an answer counts as one for what is told already.
    merged: class -> the class that it counts as.
    `NONE` is an answer as any other.

    TSM's demo on Jester has silent={7, 8, 21, 22, 3} and merged={0: 2}. (It lets a label change
    only where the two told before it were the same, so each stays for two answers at least.)
    """

    agree: int = 1
    silent: frozenset[int] = frozenset()
    merged: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.agree < 1:
            raise ValueError(f"1 answer or more must agree, not {self.agree}")

    def start(self, answers: Tensor) -> State:
        """answers (...), of the kind that `step` gets -> told + 1, said + 1, times said (...)."""
        return tuple(torch.zeros_like(answers) for _ in range(3))

    def step(self, answers: Tensor, state: State) -> tuple[Tensor, State]:
        """Classes or `NONE`, integers (...) -> what is told (...)."""
        told, said, times = state
        now = answers + 1  # so that zeros are a beginning
        for one in self.silent:
            now = torch.where(answers == one, told, now)
        for one, other in self.merged.items():
            now = torch.where(answers == one, other + 1, now)
        first = times == 0
        times = torch.where(now == said, times + 1, 1).clamp(max=self.agree)
        told = torch.where(first | (times >= self.agree), now, told)
        return told - 1, (told, now, times)


def parse_smoothing(text: str) -> Smoothing:
    """The smoothing of "none", "mean:12" (answers) or "exp:0.5s" (half-life, seconds).

    Raises `UserError` for other words.
    """
    if text == "none":
        return WindowMean(1)
    if match := re.fullmatch(r"mean:([1-9]\d{0,5})", text):
        return WindowMean(int(match[1]))
    if (match := re.fullmatch(r"exp:(\d{1,6}(?:\.\d{1,6})?)s", text)) and float(match[1]):
        return Exponential(float(match[1]))
    raise UserError(
        "smoothing is none, mean:N (of the last N answers) or exp:SECONDSs (the half-life of an"
        f" answer), such as mean:12 or exp:0.5s; it came as {text!r}"
    )

"""What is told at each moment: scores that are calibrated and smoothed, and labels that last."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..calibration import Calibration
from ..card import Activation, Aggregate, Card
from ..evaluate import class_names
from ..moments import Moment
from ..scoring import ACTIVATIONS
from ..smoothing import NONE, Exponential, Hysteresis, Smoothing, State, WindowMean

Before = tuple[State, State, float, float]  # of smoothing and hysteresis; when, and since when


@dataclass(frozen=True)
class Told:
    """What is told at one moment.

    about: the time in seconds that it tells of; the answer was there at `moment.seconds`.
    scores: (K,) float64. labels: the classes told, ascending; none of them where it is empty.
    """

    moment: Moment
    about: float
    scores: Tensor
    labels: tuple[int, ...]

    @property
    def best(self) -> int:
        """The class with the best score of those told, or `NONE`."""
        return max(self.labels, key=lambda label: float(self.scores[label]), default=NONE)

    @property
    def score(self) -> float:
        """That score; where no class is told, the best of all."""
        return float(self.scores[self.best] if self.labels else self.scores.max())


@dataclass(frozen=True)
class Telling:
    """How the logits of moments become what is told.

    scores = activation(logits / temperature), smoothed; where the card's aggregate is "logits" the
    logits are smoothed before. The best class is told if its score reaches the threshold and
    the hysteresis lets it; with several labels at once (sigmoid) each class by itself.

    thresholds: one for all classes, or one per class; 0 never says "none of these".
    windowed: the network sees a window at a time, so what it says is about the window's middle. One
        that goes frame by frame speaks about the newest. Smoothing puts that time
        back to where half of the weight is younger.
    """

    classes: tuple[str, ...]
    activation: Activation = "softmax"
    aggregate: Aggregate = "softmax"
    windowed: bool = True
    smoothing: Smoothing = field(default_factory=WindowMean)
    hysteresis: Hysteresis = field(default_factory=Hysteresis)
    temperature: float = 1.0
    thresholds: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        """Raises `ValueError` for thresholds or a temperature that no class could reach."""
        if len(self.thresholds) not in (1, len(self.classes)) or not self.temperature > 0:
            raise ValueError(
                f"1 or {len(self.classes)} thresholds and a temperature above 0, not"
                f" {len(self.thresholds)} and {self.temperature}"
            )

    @classmethod
    def of(
        cls,
        card: Card,
        windowed: bool,
        smoothing: Smoothing,
        hysteresis: Hysteresis,
        calibration: Calibration | None = None,
    ) -> Telling:
        """For the network of a card. Without a calibration, any score tells a class."""
        return cls(
            class_names(card),
            card.activation,
            card.aggregate,
            windowed,
            smoothing,
            hysteresis,
            calibration.temperature if calibration else 1.0,
            calibration.thresholds if calibration else (0.0,),
        )

    @property
    def tracks(self) -> int:
        """Rows of the timeline: one, or one per class where several may be told at once."""
        return len(self.classes) if self.activation == "sigmoid" else 1

    def start(self) -> Before:
        """Before the first moment."""
        values = torch.zeros(len(self.classes) + 1, dtype=torch.float64)  # and the time
        answers = torch.zeros(self.tracks, dtype=torch.int64)
        return self.smoothing.start(values), self.hysteresis.start(answers), 0.0, math.nan

    def step(self, moment: Moment, before: Before) -> tuple[Told, Before]:
        """What is told at a moment, from it and, unless it is fresh, those before it."""
        smoothed, held, last, oldest = self.start() if moment.fresh else before
        newest = self.about(moment)
        oldest = newest if math.isnan(oldest) else oldest
        scored = self.activation_of(moment.logits.double().cpu())
        time = scored.new_tensor([newest])
        elapsed = max(moment.seconds - last, 0.0)
        mean, smoothed = self.smoothing.step(torch.cat((scored, time)), smoothed, elapsed)
        values = mean[:-1]
        about = self.smoothing.middle(float(mean[-1]), oldest, newest, elapsed)
        scores = ACTIVATIONS[self.activation](values) if self.aggregate == "logits" else values
        told, held = self.hysteresis.step(self.answers(scores), held)
        labels = tuple(told[told != NONE].tolist())
        return Told(moment, about, scores, labels), (smoothed, held, moment.seconds, oldest)

    def activation_of(self, logits: Tensor) -> Tensor:
        """What is smoothed: scores, or logits where the card says so."""
        tempered = logits / self.temperature
        return tempered if self.aggregate == "logits" else ACTIVATIONS[self.activation](tempered)

    def about(self, moment: Moment) -> float:
        """The time that a moment tells of, before any smoothing; seconds."""
        return (moment.start + moment.seconds) / 2 if self.windowed else moment.seconds

    def answers(self, scores: Tensor) -> Tensor:
        """Scores (K,) -> the class of each track or `NONE`, (tracks,)."""
        best = torch.arange(len(scores)) if self.tracks > 1 else scores.argmax(-1, keepdim=True)
        needed = scores.new_tensor(self.thresholds).expand(len(scores))
        return torch.where(scores[best] >= needed[best], best, NONE)

    def words(self) -> list[str]:
        """What is done to the answers."""
        agree, smoothing = self.hysteresis.agree, self.smoothing
        found = []
        if isinstance(smoothing, Exponential):
            found.append(f"an answer counts half as much after {smoothing.half_life:g} s")
        elif smoothing.count > 1:
            found.append(f"scores are means of the last {smoothing.count} answers")
        if agree > 1:
            found.append(f"a class is told once {agree} answers in a row say it")
        if len(self.thresholds) > 1:
            found.append("each class is told from its own score on")
        elif self.thresholds[0]:
            found.append(f"a score below {self.thresholds[0]:.3g} is none of the classes")
        return found

"""How a network watches a feed: what a user may choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .errors import UserError

By = Literal["frame", "clip"]


@dataclass(frozen=True)
class Manner:
    """The choices; None is derived from the network. Raises `UserError` for what makes no sense."""

    every: int | None = None
    """Take each N-th frame; None is the pace of training, as near as the feed allows."""
    by: By | None = None
    """Answer after each frame taken, or clip by clip; None is by frame for online networks."""
    hop: float = 0.5
    """How far clips are apart, in clips."""
    smooth: str | None = None
    """none, mean:N of N answers, or exp:SECONDSs; None is a clip's frames online, else none."""
    agree: int | None = None
    """Answers in a row that make a new label; None is 2 online, else 1."""
    unknown: str = "auto"
    """Score below which no class is told: auto, as calibrated; a number; a calibration; or off."""
    shortest: float = 0.0
    """Seconds that a segment lasts at least."""

    def __post_init__(self) -> None:
        checks = (
            ("every", self.every is None or self.every >= 1, "a number of frames, such as 2"),
            ("hop", 0 < self.hop <= 1, "a part of a clip above 0, such as 0.5"),
            ("agree", self.agree is None or self.agree >= 1, "a number of answers, such as 2"),
            ("shortest", 0 <= self.shortest < 1e9, "a number of seconds"),
        )
        for name, good, what in checks:
            if not good:
                raise UserError(f"--{name} is {what}; it came as {getattr(self, name)}")

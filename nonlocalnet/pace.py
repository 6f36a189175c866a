"""How often a network looks at a feed: every k-th frame, so that things move as in its training."""

from __future__ import annotations

from dataclasses import dataclass

from .card import Card
from .clips import spacing

NEAR = 0.05  # shares by which two rates may differ and count as one
# Where neither the network nor the user says: TSM's online demo takes every 2nd camera frame, and
# 8 segments of a 4 s video, as long as those of Something-Something, are half a second apart.
DEMO_FRAMES = 2.0
SEGMENT_SECONDS = 0.5


@dataclass(frozen=True)
class Pace:
    """Which frames of a feed a network takes.

    online: frame by frame, rather than clip by clip. every: take each n-th frame, whatever the
    network was trained on; None is what the card says.
    """

    card: Card
    online: bool = False
    every: float | None = None

    @property
    def phase(self) -> float:
        """Where the first frame lies, in steps: a clip of segments has the middle of each."""
        return 0.5 if self.card.sampling == "segments" and not self.online else 0.0

    def step(self, fps: float | None) -> float:
        """How many frames of a feed of that rate, None where unknown, the frames are apart.

        A whole number, but where the card's own rule for a video of this rate is not.
        """
        if self.every is not None:
            return self.every
        own, gap = spacing(self.card, fps or 0.0), self.card.gap
        if gap and fps:
            meant = gap * fps
            near = own is not None and abs(meant - own) <= NEAR * own
            return own if own is not None and near else max(1.0, round(meant))
        if own is not None:
            return max(1.0, own)
        return DEMO_FRAMES if self.online else max(1.0, round(SEGMENT_SECONDS * (fps or 0.0)))

    def words(self, fps: float | None) -> str:
        """What is taken, and how that differs from training, in a sentence."""
        step, gap = self.step(fps), self.card.gap
        trained = f"trained on a frame every {gap:.3f} s"
        words = trained if gap else "its pace in training is not known"
        if fps is None:
            return f"{words}; the feed does not tell its rate, {_ordinal(step)} is taken"
        here = step / fps
        words += f"; the feed gives one every {1 / fps:.3f} s,"
        words += f" {_ordinal(step)} is taken: {here:.3f} s"
        if not gap:
            return words
        slower = here / gap - 1
        if abs(slower) <= NEAR / 2:
            return words + ", as trained"
        how = "slower" if slower > 0 else "faster"
        return words + f", {100 * abs(slower):.0f} % {how} than trained"


def _ordinal(step: float) -> str:
    if step == 1:
        return "every frame"
    if step % 1:
        return f"one frame in {step:.3g}"
    ending = {1: "st", 2: "nd", 3: "rd"}.get(int(step) % 10, "th")
    ending = "th" if 10 < step % 100 < 20 else ending
    return f"every {step:.0f}{ending} frame"

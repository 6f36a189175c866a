"""A network as the web app asks it: of clips, over time, and without its blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..card import Card, card_of
from ..errors import UserError
from ..exported import of_clips
from ..manner import Manner
from ..moments import ready
from ..pace import Pace
from ..streaming import is_stream
from ..surgery import blocks, without_blocks
from ..timeline import Telling
from ..watching import tell

CLIPS = 3  # of a video at most, each its middle square, where nobody says: an answer in seconds
SCORE = "0.5"  # from which a class is told that stands by itself, where nobody has calibrated


@dataclass(frozen=True, eq=False)
class Served:
    """A network that answers.

    model: for clips. watching: as `ready` gives it. bare: `model` without its non-local blocks, or
    None where it has none. telling: how answers over time are told. views: clips and crops.
    """

    name: str
    model: nn.Module
    watching: nn.Module
    bare: nn.Module | None
    telling: Telling
    views: tuple[int, int]

    @property
    def card(self) -> Card:
        return card_of(self.model)

    @property
    def online(self) -> bool:
        """Whether it goes frame by frame."""
        return is_stream(self.watching)

    @property
    def pace(self) -> Pace:
        return Pace(self.card, self.online)


def serve_network(
    name: str, model: nn.Module, run: Path, views: tuple[int | None, int | None] = (None, None)
) -> Served:
    """A trained network, made ready.

    name: what to call it. run: what it was loaded from, where its calibration may lie. views: clips
        and crops; where not given, the card's, but at most three clips and one crop.

    Raises `UserError` for a network that cannot be asked about videos.
    """
    watching, clips = ready(model), of_clips(model)
    card = card_of(clips)
    try:
        telling, _ = tell(watching, run, Manner())
    except UserError:  # each class by itself, and no calibration
        telling, _ = tell(watching, run, Manner(unknown=SCORE))
    few = min(card.clips, CLIPS), 1
    return Served(
        name=name,
        model=clips,
        watching=watching,
        bare=without_blocks(clips) if blocks(clips) else None,
        telling=telling,
        views=(views[0] or few[0], few[1] if views[1] is None else views[1]),
    )

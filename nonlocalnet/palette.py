"""Colours of classes, wherever they are drawn."""

from __future__ import annotations

Colour = tuple[int, int, int]

# Okabe and Ito's ("Color Universal Design", 2008), told apart by every colour vision, the strongest
# ones first; yellow is left out, which no text beside it can be read with on white
CLASSES: tuple[Colour, ...] = (
    (11, 98, 196),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (230, 159, 0),
)
NOTHING: Colour = (150, 150, 150)  # none of the classes


def colour_of(label: int) -> Colour:
    """The colour of a class; they repeat after six, so a name stands beside each."""
    return CLASSES[label % len(CLASSES)] if label >= 0 else NOTHING

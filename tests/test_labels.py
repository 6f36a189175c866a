"""Class names: as many as the data sets have, each once, in the orders that were established."""

from __future__ import annotations

import pytest

from nonlocalnet.errors import UserError
from nonlocalnet.labels import LISTS, class_names

COUNTS = {
    "kinetics400": 400,
    "sthv1": 174,
    "sthv1-released": 174,
    "sthv2": 174,
    "jester": 27,
    "jester-released": 27,
}


@pytest.mark.parametrize("name", LISTS)
def test_counts(name: str) -> None:
    names = class_names(name)
    assert len(names) == len(set(names)) == COUNTS[name]
    assert all(n and n == n.strip() and n.isascii() for n in names)


# some numbers as the sources named in the docstring give them
@pytest.mark.parametrize(
    ("name", "label", "text"),
    [
        ("kinetics400", 0, "abseiling"),
        ("kinetics400", 5, "archery"),
        ("kinetics400", 209, "passing American football (not in game)"),
        ("kinetics400", 290, "sharpening knives"),
        ("kinetics400", 399, "zumba"),
        ("sthv2", 0, "Approaching something with your camera"),
        ("sthv2", 120, "Putting something, something and something on the table"),
        ("sthv2", 173, "Wiping something off of something"),
        ("sthv1-released", 0, "Holding something"),
        ("sthv1-released", 173, "Poking a hole into some substance"),
        ("jester", 0, "Doing other things"),
        ("jester", 7, "Rolling Hand Backward"),
        ("jester", 26, "Zooming Out With Two Fingers"),
        ("jester-released", 0, "Swiping Left"),
        ("jester-released", 26, "Doing other things"),
    ],
)
def test_orders(name: str, label: int, text: str) -> None:
    assert class_names(name)[label] == text


@pytest.mark.parametrize("name", ["kinetics400", "sthv1", "sthv2", "jester"])
def test_alphabetical_lists(name: str) -> None:
    names = class_names(name)
    assert names == tuple(sorted(names))


def test_kinetics_sorts_the_same_with_underscores() -> None:
    """MMAction2's parse_file_list.py numbers the folders, whose names have them."""
    names = class_names("kinetics400")
    assert names == tuple(sorted(names, key=lambda n: n.replace(" ", "_")))


@pytest.mark.parametrize("name", ["sthv1", "jester"])
def test_two_orders_of_the_same_classes(name: str) -> None:
    released = class_names(f"{name}-released")
    assert released != class_names(name)
    assert sorted(released) == sorted(class_names(name))


def test_unknown_list() -> None:
    with pytest.raises(UserError, match="'imagenet'; lists are kinetics400"):
        class_names("imagenet")

"""Class names of the data sets that published models were trained on, in the order of outputs.

Output k of a network is line k of its list, so a list belongs to an order, not to a data set:
Something-Something v1 and Jester were numbered in two ways. Where the orders come from:

kinetics400: alphabetical. video-nonlocal-net's process_data/kinetics/classids.json, MMAction2's
    tools/data/kinetics/label_map_k400.txt and TSM's tools/kinetics_label_map.txt agree in all 400
    places, and so does the kinetics_classnames.json that PySlowFast (VISUALIZATION_TOOLS.md) and
    PyTorchVideo (its torch.hub tutorial) point to.
sthv2: the numbers that came with the data set (something-something-v2-labels.json), which are
    alphabetical. MMAction2's tools/data/sthv2/label_map.txt; TSM's tools/gen_label_sthv2.py
    takes the data set's numbers.
sthv1: alphabetical, as TSM's tools/gen_label_sthv1.py sorts them: the same list as sthv2, whose
    classes are the same 174.
sthv1-released: the lines of something-something-v1-labels.csv as released, which MMAction2 uses
    (tools/data/sthv1/label_map.txt and tools/data/parse_file_list.py).
jester: alphabetical, as in TSM's online_demo/main.py.
jester-released: the lines of jester-v1-labels.csv as released, which MMAction2 uses
    (tools/data/jester/label_map.txt).

For the Kinetics weights of video-long-term-feature-banks no order is published, and whether they
still have a head is not either, so they go without names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files

from ..errors import UserError

LISTS = {
    "kinetics400": "kinetics400.txt",
    "sthv1": "something.txt",
    "sthv1-released": "something-v1-released.txt",
    "sthv2": "something.txt",
    "jester": "jester.txt",
    "jester-released": "jester-released.txt",
}


def class_names(name: str) -> tuple[str, ...]:
    """The class names of a list of `LISTS`, in the order of a network's outputs.

    Raises `UserError` for a name that no list has.
    """
    if name not in LISTS:
        raise UserError(f"there is no list of classes {name!r}; lists are {', '.join(LISTS)}")
    text = files(__package__).joinpath(LISTS[name]).read_text(encoding="utf-8")
    return tuple(text.splitlines())


def plain(name: str) -> str:
    """A class name without what codebases write differently: case, quotes, brackets, "_"."""
    return " ".join("".join(c if c.isalnum() else " " for c in name.lower() if c != "'").split())


def numbering(classes: Sequence[str]) -> dict[str, int]:
    """Name -> number; also the plain form of a name, where no other class has the same."""
    shared = Counter(map(plain, classes))
    by_plain = {plain(name): i for i, name in enumerate(classes) if shared[plain(name)] == 1}
    return by_plain | {name: i for i, name in enumerate(classes)}

"""What the paper's Tables 2a to 2d ask, of which networks, and what theory says before any run.

C2D on ResNet-50, as in the paper, with one embedded Gaussian block in res4 unless a row says
otherwise. What theory says is of reunion's two questions: `synthetic.py` has the proof for C2D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Network:
    """What differs from C2D with one block in res4, and what theory lets it answer.

    same, direction: whether it can; None where theory leaves it open.
    """

    changes: dict[str, Any]
    same: bool | None = True
    direction: bool = False


NETWORKS = {  # the names are those of the run folders
    "c2d": Network({"non_local": 0}, same=False),
    "i3d": Network({"model": "i3d_resnet50", "non_local": 0}, same=None, direction=True),
    "gaussian": Network({"pairwise": "gaussian"}),
    "one": Network({}),
    "dot_product": Network({"pairwise": "dot_product"}),
    "concatenation": Network({"pairwise": "concatenation"}),
    "res2": Network({"non_local": "res2"}),
    "res3": Network({"non_local": "res3"}),
    "res5": Network({"non_local": "res5"}),
    "five": Network({"non_local": 5}),
    "ten": Network({"non_local": 10}),
    "space": Network({"non_local": 5, "mode": "space"}, same=False),
    "time": Network({"non_local": 5, "mode": "time"}),
}


@dataclass(frozen=True)
class Question:
    """One of the paper's tables: rows of (name, key of `NETWORKS`, the paper's top-1), and why."""

    title: str
    paper: str
    theory: str
    rows: tuple[tuple[str, str, float | None], ...]


# paper, Table 2: top-1 of ResNet-50 on Kinetics-400, 32 frames, fully convolutional test
_C2D = ("C2D, no block", "c2d", 71.8)
_ORDER = (
    " None of these networks can answer the direction: blocks have no notion of order and C2D has"
    " no kernel over time, so a clip and its reverse get the same scores."
)
TABLES = {
    "functions": Question(
        "Which pairwise function?",
        "Table 2a",
        "Any function of two positions relates two colours, so each of the four can answer; C2D, a"
        " sum over frames, has no lower loss than chance." + _ORDER,
        (
            _C2D,
            ("Gaussian", "gaussian", 72.5),
            ("Gaussian, embedded", "one", 72.7),
            ("dot product", "dot_product", 72.9),
            ("concatenation", "concatenation", 72.8),
        ),
    ),
    "stages": Question(
        "Which stage?",
        "Table 2b",
        "A block in any stage sees all places and frames. The later the stage, the larger its cells"
        " and the fewer layers that can still use what the block finds." + _ORDER,
        (
            _C2D,
            ("res2", "res2", 72.7),
            ("res3", "res3", 72.9),
            ("res4", "one", 72.7),
            ("res5", "res5", 72.3),
        ),
    ),
    "depth": Question(
        "How many blocks?",
        "Table 2c",
        "One block is enough to relate two places, so what more of them change is how soon it is"
        " learned." + _ORDER,
        (
            _C2D,
            ("1 block", "one", 72.7),
            ("5 blocks", "five", 73.8),
            ("10 blocks", "ten", 74.3),
        ),
    ),
    "axes": Question(
        "Space, time or both?",
        "Table 2d",
        "With five blocks that look about their own frame only, a network stays a sum over frames:"
        " the proof for C2D holds, and neither question has a lower loss than chance. Blocks that"
        " look along time at their own place relate the frames, and the features of one place know"
        " of the whole picture by then, so they can tell the colours, as spacetime can." + _ORDER
        + " I3D, with kernels over time and no block, can answer the direction; its kernels reach"
        " over all frames in the end, so whether it finds the colours is open.",
        (
            _C2D,
            ("I3D, no block", "i3d", None),
            ("space only", "space", 72.9),
            ("time only", "time", 73.1),
            ("spacetime", "five", 73.8),
        ),
    ),
}  # fmt: skip

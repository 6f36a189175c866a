"""What the operation and its block should reach beside the forms of others: the rows to measure.

`must` and `aim` are factors, theirs / ours, unless the kind says otherwise. A row with neither is
measured for the reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["times", "growth", "error"]


@dataclass(frozen=True)
class Goal:
    """One row of the table.

    `kind` is "times": how many times faster or smaller ours is, the more the better; "growth":
    peak bytes at 2 N over those at N, the less the better; "error": relative to float64, the less
    the better, where the must is the error of the other form.
    """

    name: str
    part: str
    must: float | None = None
    aim: float | None = None
    kind: Kind = "times"


BOTH = "forward + backward"
FUNCTIONS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")

# P15: frames x stride of a clip, frames between key frames, and whose order of work
CLIPS = ("32x2", "8x8")
GOPS = (12, 250)
ORDERS = ("PySlowFast's order, PyAV", "MMAction2's order, PyAV", "MMAction2's order, decord")
ONE_THREAD = tuple(f"{order}, RGB on one thread" for order in ORDERS[:2])
P15_LIMITS: dict[str, tuple[float, ...]] = dict(
    zip(ORDERS, ((1.6, 2), (2.5, 3), (1.1, 1.3)), strict=True)  # of 32x2, GOP 250
)

# P9: size, channels and window of an image, and what it is measured against
PEERS = {"OpenCV": (1.7, 3), "scikit-image fast": (4.5, 10), "scikit-image slow": (60, 150)}
DENOISED = tuple(
    (peer, size, colour, window)
    for peer in PEERS
    for size, window in ((256, 21), (512, 21), (1024, 21), (128, 61), (256, 61))
    for colour in ("grey", "colour")
    if (peer, size, window) != ("scikit-image slow", 256, 61)  # minutes a run
)
# on all threads; scikit-image has but one
THREADED = tuple(d for d in DENOISED if d[0] != "scikit-image slow" and d[3] == 21)


def denoised_part(peer: str, size: int, colour: str, window: int) -> str:
    return f"{peer}, {size} x {size} {colour}, window {window}"


def threaded_part(peer: str, size: int, colour: str, window: int) -> str:
    return f"{denoised_part(peer, size, colour, window)}, all threads"


# What each goal compares, in a line of the page.
TITLES: dict[str, str] = {
    "P1": "Concatenation, the operation, against ReLU(a + b) @ g",
    "P2": "Concatenation, the block, forward, against the tensor of pairs; N = 784, C = 1024",
    "P3": "Error of the operation, beside that of the N x M form; N = M = 1568, 256 wide",
    "P4": "Dot product, the block, against PySlowFast's form; N = 3136, C = 512 (res3)",
    "P5": "Dot product, the block, against PySlowFast's form; N = 16800, C = 256, keys not pooled",
    "P6": "Embedded Gaussian, the block, against PySlowFast's form; N = 3136, C = 512 (res3)",
    "P7": "Gaussian, the block, against mmcv's form; N = 3136, C = 512, keys not pooled",
    "P8": "Growth of the peak memory from N to 2 N positions, the operation",
    "P9": "NL-means, exact, patch 7, beside OpenCV and scikit-image; CPU time, wall of all threads",
    "P12": "CUDA, bf16: embedded Gaussian, the block, against PySlowFast's form, 8 clips",
    "P13": "CUDA, bf16: the operation against its N x M form; N = 12544, 256 wide, batch 8",
    "P14": "CUDA, bf16: I3D-NL R50, 32 x 224 x 224, train step, against PySlowFast's form, 8 clips",
    "P15": "From a file to a training clip of 224 x 224, CPU time; 340 x 256, 30 fps, 10 s, H.264",
}

GOALS: tuple[Goal, ...] = (
    Goal("P1", "forward, N = 784, 256 wide", 8, 12),
    Goal("P1", "forward, N = 784, 512 wide", 8, 12),
    Goal("P1", "forward, N = 3136, 256 wide", 50, 90),
    Goal("P1", "forward, N = 3136, 512 wide", 50, 90),
    Goal("P1", f"{BOTH}, N = 784, 256 wide", 8, 12),
    Goal("P1", f"{BOTH}, N = 784, 512 wide", 8, 12),
    Goal("P1", f"{BOTH}, N = 3136, 256 wide", 50, 90),
    Goal("P1", f"{BOTH}, N = 3136, 512 wide", 50, 90),
    Goal("P2", "time, mmcv", 100, 150),
    Goal("P2", "time, AlexHex7", 100, 150),
    Goal("P2", "time, AlexHex7 with its default, pooled keys"),
    Goal("P2", "peak memory, mmcv", 300, 590),
    Goal("P2", "peak memory, AlexHex7", 300, 590),
    Goal("P2", "peak memory, AlexHex7 with its default, pooled keys"),
    Goal("P3", "gaussian, result", kind="error"),
    Goal("P3", "embedded_gaussian, result", kind="error"),
    Goal("P3", "dot_product, result", kind="error"),
    Goal("P3", "concatenation, result", aim=5e-8, kind="error"),
    Goal("P3", "concatenation with a near 10, b near -10, result", aim=5e-8, kind="error"),
    Goal("P3", "gaussian, worst gradient", kind="error"),
    Goal("P3", "embedded_gaussian, worst gradient", kind="error"),
    Goal("P3", "dot_product, worst gradient", kind="error"),
    Goal("P3", "concatenation, worst gradient", kind="error"),
    Goal("P3", "concatenation with a near 10, b near -10, worst gradient", kind="error"),
    Goal("P4", "forward, keys not pooled", 3.5, 4.2),
    Goal("P4", f"{BOTH}, keys not pooled", 3.5, 4.2),
    Goal("P4", "forward, keys pooled", 0.97),
    Goal("P4", f"{BOTH}, keys pooled", 0.97),
    Goal("P4", "forward, least of the sweep", 0.97),
    Goal("P4", f"{BOTH}, least of the sweep", 0.97),
    Goal("P5", "forward", 20, 35),
    Goal("P5", BOTH),
    Goal("P6", "time, forward, keys not pooled", 1.3, 1.5),
    Goal("P6", f"time, {BOTH}, keys not pooled", 1.3, 1.5),
    Goal("P6", "time, forward, least of the sweep", 0.95),
    Goal("P6", f"time, {BOTH}, least of the sweep", 0.95),
    Goal("P6", "peak memory, forward, keys not pooled", 4, 5),
    Goal("P6", f"peak memory, {BOTH}, keys not pooled", 4, 5),
    Goal("P7", "time, forward", 1.0, 1.2),
    Goal("P7", f"time, {BOTH}", 1.0, 1.2),
    Goal("P7", "peak memory, forward", 2.5, 4),
    Goal("P7", f"peak memory, {BOTH}", 2.5, 4),
    *(Goal("P8", f"{f}, forward", 2.1, 2.05, "growth") for f in FUNCTIONS),
    *(Goal("P8", f"{f}, {BOTH}", 2.1, 2.05, "growth") for f in FUNCTIONS),
    *(
        Goal("P9", denoised_part(peer, size, colour, window), *limits)
        for peer, size, colour, window in DENOISED
        for limits in [PEERS[peer] if window == 21 else ()]
    ),
    *(Goal("P9", threaded_part(*case)) for case in THREADED),
    Goal("P12", "res3 (N = 3136, C = 512), keys not pooled, forward", 2.3, 2.9),
    Goal("P12", f"res3 (N = 3136, C = 512), keys not pooled, {BOTH}", 2.3, 2.9),
    Goal("P12", "res4 (N = 784, C = 1024), keys not pooled, forward", 1.2, 1.6),
    Goal("P12", f"res4 (N = 784, C = 1024), keys not pooled, {BOTH}", 1.2, 1.6),
    Goal("P12", "res3 (N = 3136, C = 512), keys pooled, forward"),
    Goal("P12", f"res3 (N = 3136, C = 512), keys pooled, {BOTH}"),
    Goal("P12", "res4 (N = 784, C = 1024), keys pooled, forward"),
    Goal("P12", f"res4 (N = 784, C = 1024), keys pooled, {BOTH}"),
    Goal("P13", "concatenation, forward", 6, 11),
    Goal("P13", f"concatenation, {BOTH}", 6, 11),
    Goal("P13", "dot_product, forward", 8, 15),
    Goal("P13", f"dot_product, {BOTH}", 8, 15),
    Goal("P14", "clips per second", 1.5, 2.5),
    *(
        Goal("P15", f"{clip}, GOP {gop}, {order}", *limits)
        for clip in CLIPS
        for gop in GOPS
        for order in (*ORDERS, *ONE_THREAD)
        for limits in [P15_LIMITS.get(order, ()) if (clip, gop) == ("32x2", 250) else ()]
    ),
)


def parts_of(name: str) -> list[str]:
    return [goal.part for goal in GOALS if goal.name == name]

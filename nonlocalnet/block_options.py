"""The options of a non-local block: which there are, and which fit each other."""

from __future__ import annotations

from typing import Literal, TypedDict

from .ops import Pairwise, Scores
from .positions import Mode

Subsample = Literal["before", "after", "none"]
Norm = Literal["batch", "frozen", "none"]
ZeroInit = Literal["norm", "out", "none"]
Init = Literal["normal", "msra"]


class BlockOptions(TypedDict, total=False):
    """The keyword arguments of `NonLocalBlock`, for functions that hand them on."""

    inner: int | None
    pairwise: str | Pairwise | Scores
    mode: Mode
    subsample: Subsample
    scale: float | Literal["1/sqrt(d)"] | None
    norm: Norm
    zero_init: ZeroInit | None
    out_bias: bool
    temporal_group: int | None
    causal: int | None
    init: Init
    cells: tuple[int, ...] | None


def check_options(
    mode: Mode,
    subsample: Subsample,
    norm: Norm,
    zero_init: ZeroInit,
    temporal_group: int | None,
    causal: int | None,
    init: Init,
    cells: tuple[int, ...] | None,
) -> None:
    """Raises ValueError for options that do not exist, or that do not fit each other."""
    _one_of("mode", mode, Mode)
    _one_of("subsample", subsample, Subsample)
    _one_of("norm", norm, Norm)
    _one_of("init", init, Init)
    _one_of("zero_init", zero_init, ZeroInit)
    if zero_init == "norm" and norm != "batch":
        why = "would keep its gradient zero for ever" if norm == "frozen" else "does not exist"
        raise ValueError(
            f"norm={norm!r} with zero_init='norm': the gain of a {norm!r} norm {why};"
            " use zero_init='out'"
        )
    if temporal_group is not None and (mode != "spacetime" or temporal_group < 1):
        raise ValueError(
            "temporal_group is a positive number of frames and belongs to mode='spacetime';"
            f" it came as {temporal_group} with mode={mode!r}"
        )
    if causal is not None and (mode == "space" or temporal_group is not None or causal < 2):
        raise ValueError(
            "causal is a number of frames from 2 on (mode='space' is a block that sees one) and"
            f" belongs to the modes 'spacetime' and 'time' without a temporal_group; it came as"
            f" {causal} with mode={mode!r}, temporal_group={temporal_group}"
        )
    if cells is None:
        return
    if min(cells, default=0) < 1 or len(cells) > 3:
        raise ValueError(f"cells are one to three positive numbers, not {cells!r}")
    folds = mode != "spacetime" or temporal_group is not None or causal is not None
    if folds and (len(cells) != 3 or cells[0] != 1):
        raise ValueError(
            f"mode={mode!r}, temporal_group={temporal_group} and causal={causal} tell frames"
            f" apart, so keys are pooled in space alone: cells=(1, h, w), not {cells!r}"
        )


def _one_of(name: str, value: str, choice: object) -> None:
    allowed = choice.__args__  # type: ignore[attr-defined]
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(map(repr, allowed))}, not {value!r}")

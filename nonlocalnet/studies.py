"""The command `ablate`: which functions, stages, depths and axes matter on reunion."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from .errors import UserError
from .flags import Interrupted, Out, UsageError
from .questions import TABLES
from .terminal import say, show_table

if TYPE_CHECKING:
    from .ablation import Scale
    from .report import AblationTable

ScaleName = Literal["quick", "small", "medium", "large"]


def ablate(
    out: Out = Path("ablation"),
    size: ScaleName = "small",
    seeds: int = 3,
    table: Annotated[str, arg(metavar="NAME,NAME")] = ",".join(TABLES),
    clips: int | None = None,
    epochs: int | None = None,
    pixels: int | None = None,
    awake: bool = False,
) -> int:
    """The paper's Tables 2a to 2d on the embedded data set, with mean and deviation over seeds.

    Every network is trained once per seed, whatever the number of tables that show it. Stopped or
    killed, the same command goes on.

    Args:
        out: Folder for the data sets, the runs and the report.
        size: How much: quick shows that it works, small takes minutes a seed, medium and large are
            a GPU's work.
        seeds: How many; each has its own clips and weights.
        table: Which of functions (2a), stages (2b), depth (2c), axes (2d).
        clips: Training clips, if not the size's own number.
        epochs: Passes over them, if not the size's own number.
        pixels: Height and width of the clips, if not the size's own.
        awake: Let the blocks start awake instead of as the identity.
    """
    names = [name.strip() for name in table.split(",")]
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise UsageError(f"--table takes names out of {', '.join(TABLES)}; it came as {table!r}")
    if seeds < 1:
        raise UsageError(f"--seeds is at least 1; it came as {seeds}")
    from .ablation import SCALES, run
    from .training.interrupt import Stopped

    scale = _changed(SCALES[size], clips, epochs, pixels)
    try:
        ablation = run(out, names, scale, seeds, awake)
    except (KeyboardInterrupt, Stopped):
        raise Interrupted(f"stopped; the same command goes on where {out} is now") from None
    for found in ablation.tables:
        _show(found)
    say(f"report: {ablation.html}")
    return 0


def _changed(scale: Scale, clips: int | None, epochs: int | None, pixels: int | None) -> Scale:
    try:
        return dataclasses.replace(
            scale,
            train=scale.train if clips is None else clips,
            epochs=scale.epochs if epochs is None else epochs,
            level=scale.level if pixels is None else dataclasses.replace(scale.level, size=pixels),
        )
    except UserError as error:
        raise UsageError(f"--pixels: {error}") from None


def _show(table: AblationTable) -> None:
    from .report import deviation, outcome_words

    questions = list(table.rows[0].measured.rates)
    heads = ["network", *questions, "parameters", "multiply-adds", f"{table.paper}, Kinetics"]
    rows = []
    for row in table.rows:
        found = row.measured
        rates = [f"{mean(r):.3f} ± {deviation(r):.3f}" for r in found.rates.values()]
        cost = [f"{found.parameters:,}", f"{found.multiply_adds / 1e6:.1f} M"]
        rows.append([row.name, *rates, *cost, "-" if row.paper is None else f"{row.paper:.1f} %"])
    say(f"\n{table.title} ({table.paper})")
    show_table(heads, rows, right=range(1, len(heads)))
    say(outcome_words(table))

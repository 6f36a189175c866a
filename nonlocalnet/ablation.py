"""The paper's Tables 2a to 2d in miniature: which functions, stages, depths and axes matter.

The networks are the paper's own, C2D on ResNet-50 with blocks where the paper puts them, at a
fraction of its width, with a stem for small pictures; the videos are reunion's. `questions.py` says
which networks, and what theory says of each.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console

from .cost import Row as Cost
from .cost import cost
from .errors import UserError
from .metrics import Result
from .models import create_model
from .protocols import RECIPES
from .questions import NETWORKS, TABLES
from .recipes import Recipe
from .report import AblationRow, AblationTable, Measured, Run, write_ablation
from .synthetic import CLASSES, LEVELS, Reunion
from .training.plan import architecture
from .trial import GROUPS, one_thread, render, trial


@dataclass(frozen=True)
class Scale:
    """How much an ablation does.

    train, val, test: clips. step: clips per step of the optimiser; where there is little data, many
    small steps learn more. width: channels of res2's 1x3x3, the paper's being 64.
    """

    train: int
    val: int
    test: int
    epochs: int
    step: int = 8
    width: int = 4
    level: Reunion = field(default_factory=Reunion)

    @property
    def clips(self) -> tuple[int, int, int]:
        return self.train, self.val, self.test


SCALES = {
    "quick": Scale(160, 40, 200, 1),  # a minute a seed: it works, and nothing is learned
    "small": Scale(1200, 80, 200, 2),  # minutes a seed on one core
    # hours on cores; a GPU's work. NOT MEASURED HERE
    "medium": Scale(4000, 400, 1000, 8, 16, 8, LEVELS["medium"]),
    "large": Scale(20000, 1000, 2000, 20, 64, 16, LEVELS["hard"]),
}


@dataclass(frozen=True)
class Ablation:
    """The report, and its tables as they stand in it."""

    html: Path
    tables: tuple[AblationTable, ...]


def run(
    out: Path,
    tables: Sequence[str] = tuple(TABLES),
    scale: Scale | None = None,
    seeds: int = 3,
    awake: bool = False,
    quiet: bool = False,
) -> Ablation:
    """Train every network of the tables once per seed, write out/report.html and .json.

    Each seed renders its own clips and draws its own weights. What is finished in `out` from an
    earlier call is kept, so an ablation that was stopped goes on, and tables can be added later.
    The report is written after each seed.

    awake: blocks do not begin as the identity.

    Raises:
        UserError: no such table, no seed, or `out` holds work of another scale.
    """
    scale = scale or SCALES["small"]
    unknown = [name for name in tables if name not in TABLES]
    if unknown or not tables or seeds < 1:
        raise UserError(
            f"an ablation takes tables out of {', '.join(TABLES)} and at least one seed; it got"
            f" {', '.join(unknown or tables) or 'no table'} and {seeds}"
        )
    with one_thread():
        return _run(out, tables, scale, seeds, awake, Console(quiet=quiet))


def _run(
    out: Path, tables: Sequence[str], scale: Scale, seeds: int, awake: bool, console: Console
) -> Ablation:
    wanted = {key for name in tables for _, key, _ in TABLES[name].rows}
    keys = [key for key in NETWORKS if key in wanted]
    costs = {key: cost_of(key, scale) for key in keys}
    runs: dict[str, list[Run[Result]]] = {key: [] for key in keys}
    quiet = console.quiet or not console.is_terminal  # training's bar is for those who watch
    start, done, ablation = time.monotonic(), 0, None
    for seed in range(seeds):
        folder = out / f"seed{seed}"
        render(folder / "reunion", scale.clips, scale.level, seed, console)
        for key in keys:
            began = time.monotonic()
            recipe = recipe_of(key, scale, seed, awake)
            tested = trial(key, folder / "reunion", recipe, folder / "runs" / key, quiet)
            runs[key].append(tested)
            done += 1
            now = time.monotonic()
            left = (now - start) / done * (len(keys) * seeds - done) / 60
            console.print(
                f"{done:3} of {len(keys) * seeds}  seed {seed}  {key:14} {_rates(tested)}"
                f"  {now - began:4.0f} s, {left:.0f} minutes left",
                soft_wrap=True,
                highlight=False,
            )
            console.file.flush()  # a log file should not lag behind
        measured = {key: _measured(key, costs[key], found) for key, found in runs.items()}
        about = _about(scale, seed + 1, awake, runs[keys[0]][-1].result)
        ablation = _report(out, tables, measured, _words(scale, seed + 1, awake), about)
    assert ablation is not None  # there is a seed
    return ablation


def recipe_of(key: str, scale: Scale, seed: int, awake: bool = False) -> Recipe:
    """How a key of `NETWORKS` is trained: reunion's recipe, C2D R50 with a block in res4."""
    level = scale.level
    recipe = replace(
        RECIPES["reunion"],
        model="c2d_resnet50",
        stem="tiny",
        width=scale.width,
        zero_init="none" if awake else "norm",  # the paper's: MSRA's weights, a gain of zero
        frames=level.frames,
        crop=level.size,
        short_side=level.size,
        test_crop=level.size,
        jitter=(level.size, level.size),
        epochs=scale.epochs,
        accumulate_to=scale.step,
        seed=seed,
    )
    return replace(recipe, **NETWORKS[key].changes)


def _report(
    out: Path,
    tables: Sequence[str],
    measured: dict[str, Measured],
    words: list[str],
    about: dict[str, str],
) -> Ablation:
    made = tuple(
        AblationTable(
            question.title,
            question.paper,
            question.theory,
            tuple(AblationRow(name, measured[key], top1) for name, key, top1 in question.rows),
        )
        for question in (TABLES[name] for name in tables)
    )
    guess = {"total": 1 / len(CLASSES), **dict.fromkeys(GROUPS, 1 / 2)}
    html, _ = write_ablation(
        out / "report.html",
        "Reunion: functions, stages, depths, axes",
        made,
        guess=guess,
        words=words,
        obtained=about,
    )
    return Ablation(html, made)


def _measured(key: str, whole: Cost, runs: Sequence[Run[Result]]) -> Measured:
    rates = {"total": tuple(run.result.accuracy().value for run in runs)}
    for group in GROUPS:
        rates[group] = tuple(run.result.group_accuracy()[group].value for run in runs)
    network, count = NETWORKS[key], runs[0].result.count
    can = dict(zip(GROUPS, (network.same, network.direction), strict=True))
    return Measured(key, whole.parameters, whole.multiply_adds, count, rates, can)


def cost_of(key: str, scale: Scale) -> Cost:
    """Parameters and multiply-adds of a network for one clip."""
    level = scale.level
    with torch.device("meta"):
        model = create_model(**architecture(recipe_of(key, scale, 0), len(CLASSES)))
    return cost(model, (3, level.frames, level.size, level.size))[-1]


def _rates(run: Run[Result]) -> str:
    found = {"total": run.result.accuracy(), **run.result.group_accuracy()}
    return "  ".join(f"{name} {rate.value:.3f}" for name, rate in found.items())


def _about(scale: Scale, seeds: int, awake: bool, result: Result) -> dict[str, str]:
    figures = {name: value for name, value in asdict(scale).items() if name != "level"}
    return {
        "Seeds": ", ".join(map(str, range(seeds))),
        "Blocks start": "awake" if awake else "as the identity",
        "Scale": ", ".join(f"{name} {value}" for name, value in figures.items()),
        "Reunion": ", ".join(f"{name} {value}" for name, value in asdict(scale.level).items()),
        **{fact: result.obtained[fact] for fact in ("Device", "Date", "Versions")},
    }


def _words(scale: Scale, seeds: int, awake: bool) -> list[str]:
    level = scale.level
    cells = ", ".join(f"{level.size // 2**i}" for i in range(1, 5))
    start = "awake, with a gain of one" if awake else "as the identity, the paper's gain of zero"
    each = (
        f"the mean of {seeds} seeds, which differ in clips and weights, ± their standard deviation"
    )
    return [
        "Two coloured discs cross each clip one after the other, far apart and never in one frame."
        " Whether their colours agree shows only in relating two far places in space-time; whether"
        " they move left or right only in the order of frames.",
        "The networks are the paper's: C2D on ResNet-50 with blocks after the same residual blocks,"
        f" but {scale.width} channels where it has 64, and one 3x3 convolution of stride 2 before"
        f" them, so that res2 to res5 have {cells} cells a side. Trained from nothing; blocks start"
        f" {start}. {scale.train:,} clips of {level.frames} x {level.size} x {level.size} to learn"
        f" from, {scale.val:,} to choose the epoch by, {scale.epochs}"
        f" {'epochs' if scale.epochs > 1 else 'epoch'}; each row is"
        f" {each if seeds > 1 else 'one seed'}, on {scale.test:,} test clips that had no part in"
        " either.",
        "Reunion is not Kinetics. The paper's figures stand beside for their order, not for their"
        " size: there, most classes show in single frames, the weights came from ImageNet, and"
        " blocks add one to three points. Here nothing shows in a single frame, and a row says how"
        " well a network of this size learns to relate places in this little time; not what it"
        " could reach in the end.",
    ]

"""A run at its first step, or back at its last checkpoint: the folder, the parts, the position."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import nn

from ..card import Card, card_of, set_card
from ..cost import cost
from ..datasets import frame_gap
from ..errors import UserError
from ..files import write_text
from ..listings.data import Data
from ..listings.read import is_folder, read_data
from ..machine import Machine, clips_that_fit, this_machine
from ..models import create_model, is_model
from ..recipes import FREE, Recipe, check
from ..samples import SPLIT, Sample, Split
from . import checkpoint
from .norms import synchronize
from .plan import Plan, derive
from .prepare import (
    asleep,
    describe_pace,
    describe_start,
    freeze,
    make_network,
    make_optimizer,
    start_from,
)
from .state import BEST, LAST, RECIPE, Run, State, restore
from .watch import Watch

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class Opened(NamedTuple):
    """What the folder of a run says before anything is made."""

    recipe: Recipe
    saved: dict[str, Any] | None  # the last checkpoint, to go on from
    resume: bool


def open_run(recipe: Recipe, out: Path, resume: bool) -> Opened:
    """The recipe that holds, and where to go on.

    A run that torchrun or Slurm started again goes on by itself.

    Raises `UserError` for a folder that has a run already (without `resume`), and for a run of
    another recipe (with it).
    """
    if not is_model(recipe.model):  # a trained network: where this run starts
        recipe = replace(recipe, pretrained=recipe.model)
    again = any(int(os.environ.get(f"{by}_RESTART_COUNT", "0")) for by in ("TORCHELASTIC", "SLURM"))
    resume = resume or (again and (out / RECIPE).exists())
    check(recipe, resume)
    saved, recipe = _open(out, recipe, resume)
    return Opened(recipe, saved, resume)


def start(data: Data, opened: Opened, out: Path, fabric: Fabric, watch: Watch) -> Run:
    """A run ready for its next step. Every process calls it.

    Raises `UserError` for a run of other data, and for all that `derive`, `read_data` and the
    network refuse.
    """
    recipe, saved, resume = opened
    split = _videos(data, recipe, out, resume)
    machine = this_machine(recipe.device)
    torch.manual_seed(recipe.seed)
    network = _network(recipe, saved, len(split.classes))
    words = [f"{recipe.model} learns {_list(split.classes)}", *split.notes]
    if recipe.pretrained == recipe.model:
        words.append(f"starts from {recipe.model}, with a new head")
    elif recipe.pretrained is not None and saved is None:
        words.append(start_from(network, recipe.pretrained, recipe.pretrained_blocks))
    if saved is not None:
        recipe = replace(recipe, accumulate_to=saved["plan"]["step_clips"])
        mean, std = saved["plan"]["mean"], saved["plan"]["std"]
        set_card(network, replace(card_of(network), mean=mean, std=std))
        machine = replace(machine, fits=saved["plan"]["batch"])
    plan = _plan(recipe, split, machine, network, fabric)
    gap = _gap(saved, split, plan.card)
    set_card(network, replace(plan.card, architecture=card_of(network).architecture, gap=gap))
    if plan.sync_norm and plan.processes > 1:
        synchronize(network)
    freeze(network, plan)
    asleep_now, pace = asleep(network), describe_pace(network)
    model = fabric.setup_module(network)
    optimizer = make_optimizer(network, plan)
    words += [*plan.words, *pace, *describe_start(network, optimizer, asleep_now)]
    torch.manual_seed(plan.seed + 1 + fabric.global_rank)
    run = Run(out, recipe, plan, split, fabric, network, model, optimizer, State(), words, watch)
    if saved is not None:
        restore(run, saved)
    elif fabric.is_global_zero:
        checkpoint.make_folder(out)
        _write_start(run)
    fabric.barrier()
    return run


def _network(recipe: Recipe, saved: dict[str, Any] | None, classes: int) -> nn.Module:
    """The recipe's network; a run that began from a trained one goes on without its file."""
    if saved is None or is_model(recipe.model):
        return make_network(recipe, classes)
    card = Card.from_json(saved["plan"]["card"])
    network = create_model(**card.architecture)
    set_card(network, card)
    return network


def _gap(saved: dict[str, Any] | None, split: Split, card: Card) -> float:
    """A run that goes on keeps the gap that it began with."""
    if saved is None:
        return frame_gap(split.train, card)
    return Card.from_json(saved["plan"]["card"]).gap


def _plan(
    recipe: Recipe, split: Split, machine: Machine, network: nn.Module, fabric: Fabric
) -> Plan:
    draft = derive(recipe, split, machine, card_of(network))
    _check_clip(network, draft.card)
    if machine.fits is None and recipe.batch is None:
        c = draft.card
        share = draft.batch * draft.accumulate
        shape = (3, c.frames, c.crop, c.crop)
        fits = clips_that_fit(network, machine, shape, share, draft.precision)
        least = fabric.all_reduce(torch.tensor(fits, device=fabric.device), reduce_op="min")
        fits = int(cast(torch.Tensor, least))
        machine = replace(machine, fits=fits)
    return derive(recipe, split, machine, card_of(network))


def _check_clip(network: nn.Module, card: Card) -> None:
    """Raises `UserError` where the clips of a plan are too short or small for the network."""
    for side in {card.crop, card.test_crop}:
        try:
            cost(network, (3, card.frames, side, side))
        except ValueError as error:
            raise UserError(f"{error}; see --frames, --crop and --test-crop") from error


def _open(out: Path, recipe: Recipe, resume: bool) -> tuple[dict[str, Any] | None, Recipe]:
    """The checkpoint to go on from, if there is one, and the recipe that holds."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder for the run with -o")
    there = [name for name in (LAST, BEST, RECIPE) if (out / name).exists()]
    if not resume:
        if there:
            raise UserError(
                f"{out} holds a run already ({there[0]}): go on with it by --resume, or give"
                " another folder with -o"
            )
        return None, recipe
    if RECIPE not in there:
        raise UserError(f"there is nothing to resume in {out}: no {RECIPE}; start without --resume")
    if LAST in there:
        saved = checkpoint.read(out / LAST)
        return saved, _agree(out, recipe, _recipe(out, saved["recipe"]))
    stored = json.loads((out / RECIPE).read_text(encoding="utf-8"))["recipe"]
    return None, _agree(out, recipe, _recipe(out, stored))


def _recipe(out: Path, stored: dict[str, Any]) -> Recipe:
    unknown = sorted(set(stored) - {f.name for f in fields(Recipe)})
    if unknown:
        raise UserError(
            f"the run in {out} has settings unknown to this version: {', '.join(unknown)}; resume"
            " it with the version that began it"
        )
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v  # JSON knows no tuples
        for name, v in stored.items()
    }
    return Recipe(**values)


def _agree(out: Path, given: Recipe, stored: Recipe) -> Recipe:
    default, changes = Recipe(), {}
    for name in (f.name for f in fields(Recipe)):
        new, old = getattr(given, name), getattr(stored, name)
        if new == old or new == getattr(default, name):
            continue
        if name not in FREE:
            raise UserError(
                f"the run in {out} has {name.replace('_', ' ')} {old!r} and this call says {new!r}:"
                " leave that out to go on with the run, or start another one with -o"
            )
        changes[name] = new
    return replace(stored, **changes)


def _videos(data: Data, recipe: Recipe, out: Path, resume: bool) -> Split:
    """What the run learns from; one over a list goes on with what it keeps, for lists change."""
    if not resume:
        return read_data(data, recipe.seed, recipe.val_fraction)
    if not is_folder(data):
        split = _began(out, data.root)
        kept = f"goes on with the {len(split.train):,} training and {len(split.val):,} validation"
        return replace(split, notes=(f"{kept} videos in {out / SPLIT}; {data.path} is not read",))
    split = read_data(data, recipe.seed, recipe.val_fraction)
    _same_data(out, split)
    return split


def _began(out: Path, root: str | None) -> Split:
    """The split of a run; its videos may have moved since, to another root."""
    if not (out / SPLIT).exists():
        raise UserError(f"{out} lacks its {SPLIT}, so it is no run to go on with; take another -o")
    return Split.from_json((out / SPLIT).read_text(encoding="utf-8"), root)


def _same_data(out: Path, split: Split) -> None:
    began = _began(out, split.root)
    if began.classes != split.classes:
        raise UserError(
            f"the run in {out} learns {_list(began.classes)}, and this folder has"
            f" {_list(split.classes)}: give the folder the run began with, or another -o"
        )
    for part in ("train", "val"):
        before, now = getattr(began, part), getattr(split, part)
        if before != now:
            raise UserError(
                f"the run in {out} began with {len(before)} {part} videos, {_first(before, now)},"
                f" and {split.root} has {len(now)}, {_first(now, before)}: a run goes on only with"
                " the videos it began with; start a new one with -o"
            )


def _first(these: tuple[Sample, ...], those: tuple[Sample, ...]) -> str:
    known = set(those)
    other = next((s.path for s in these if s not in known), None)
    return f"among them {other}" if other else "none others"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" ... ({len(names)} classes)" if len(names) > 5 else "")


def _write_start(run: Run) -> None:
    plan = asdict(run.plan)
    del plan["words"]
    text = {"recipe": asdict(run.recipe), "plan": plan, "words": run.words}
    write_text(run.out / SPLIT, run.split.to_json())
    write_text(run.out / RECIPE, json.dumps(text, indent=1))

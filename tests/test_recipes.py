"""Recipe + data + machine -> plan: every derived number against one worked out by hand."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from dataclasses import replace
from itertools import pairwise

import pytest

from nonlocalnet.card import Card
from nonlocalnet.errors import UserError
from nonlocalnet.machine import Machine
from nonlocalnet.presets import IMAGENET_MEAN
from nonlocalnet.protocols import RECIPES
from nonlocalnet.recipes import Recipe
from nonlocalnet.samples import Action, Sample, Split
from nonlocalnet.training.plan import Plan, derive
from nonlocalnet.training.schedule import learning_rate

FOLDER = Recipe()
PRETRAINED = Recipe(pretrained="imagenet")


def split(counts: tuple[int, ...] = (100, 100), names: tuple[str, ...] | None = None) -> Split:
    names = names or tuple(f"class {i}" for i in range(len(counts)))
    train = tuple(
        Sample(f"{label}/{i}.mp4", label, f"{label}/{i}")
        for label, n in enumerate(counts)
        for i in range(n)
    )
    return Split(names, train, (Sample("val.mp4", 0, "val"),))


def plan(recipe: Recipe, data: Split | int = 200, machine: Machine | None = None) -> Plan:
    if isinstance(data, int):
        data = split((data // 2, data - data // 2))
    return derive(recipe, data, machine or Machine(cores=4), Card())


# recipe, training clips, machine -> clips a step, at a time, passes, steps an epoch, epochs, rate
SIZES = [
    (PRETRAINED, 64, Machine(), 8, 8, 1, 8, 150, 0.00125),
    (PRETRAINED, 3, Machine(), 2, 2, 1, 1, 150, 0.0003125),
    (PRETRAINED, 20, Machine(), 4, 4, 1, 5, 150, 0.000625),
    (PRETRAINED, 200, Machine(), 16, 16, 1, 12, 125, 0.0025),
    (PRETRAINED, 2000, Machine(), 64, 64, 1, 31, 49, 0.01),
    (PRETRAINED, 2000, Machine(fits=10), 64, 8, 8, 31, 49, 0.01),
    (PRETRAINED, 2000, Machine(fits=1), 64, 1, 64, 31, 49, 0.01),
    (PRETRAINED, 2000, Machine(processes=4, fits=10), 64, 8, 2, 31, 49, 0.01),
    (PRETRAINED, 2000, Machine(processes=3), 63, 21, 1, 31, 49, 0.00984375),
    (PRETRAINED, 60_000, Machine(), 64, 64, 1, 937, 30, 0.01),
    (FOLDER, 2000, Machine(), 64, 64, 1, 31, 49, 0.1),
    (replace(FOLDER, optimizer="adamw"), 64, Machine(), 8, 8, 1, 8, 150, 0.0001768),
    (replace(FOLDER, lr=0.3, epochs=2), 64, Machine(), 8, 8, 1, 8, 2, 0.3),
    (replace(FOLDER, batch=3, lr=1.0), 200, Machine(), 15, 3, 5, 13, 116, 1.0),
    (replace(FOLDER, accumulate_to=32, lr=1.0), 200, Machine(fits=5), 32, 4, 8, 6, 150, 1.0),
    (RECIPES["kinetics_32x2"], 234_643, Machine(fits=8), 64, 8, 8, 3666, 109, 0.01),
    (RECIPES["kinetics_32x2"], 234_643, Machine(processes=8), 64, 8, 1, 3666, 109, 0.01),
]


@pytest.mark.parametrize(
    ("recipe", "clips", "machine", "step", "batch", "passes", "per_epoch", "epochs", "lr"), SIZES
)
def test_sizes_and_rate(
    recipe: Recipe,
    clips: int,
    machine: Machine,
    step: int,
    batch: int,
    passes: int,
    per_epoch: int,
    epochs: int,
    lr: float,
) -> None:
    p = plan(recipe, clips, machine)
    assert (p.step_clips, p.batch, p.accumulate) == (step, batch, passes)
    assert (p.steps_per_epoch, p.epochs, p.steps) == (per_epoch, epochs, per_epoch * epochs)
    assert p.lr == pytest.approx(lr, rel=1e-12)


def test_every_derived_number_is_told() -> None:
    told = "\n".join(plan(PRETRAINED, 64, Machine(fits=2, cores=3)).words)
    for sentence in (
        "learning rate 0.00125 = 0.01 x 8/64: scaled to the batch of 8",
        "steps of 8 clips, not the paper's 64: there are 64 to learn from",
        "2 clips at a time fit into the memory of cpu, so 4 passes are added up to a step of 8",
        "batch norm sees only 2 clips at a time",
        "150 epochs, which are 1,200 steps of 8 clips",
        "reading processes: 2, of cores there are 3",
        "clips of 32 frames, 2 apart: what i3d_resnet50 is made for",
    ):
        assert sentence in told
    # what is set is not told as derived
    said = plan(RECIPES["kinetics_32x2"], 64_000, Machine()).words
    assert [w for w in said if "rate" in w] == [
        "learning rate 0.01 = 0.01 x 64/64: scaled to the batch of 64"
    ]
    assert not any("epochs" in w for w in said)


def test_large_data_names_the_papers_schedule() -> None:
    told = "\n".join(plan(PRETRAINED, 100_000).words)
    assert "400,000 steps of 64 would be 256 epochs here" in told
    assert "400,000" not in "\n".join(plan(PRETRAINED, 1000).words)


def test_class_weights_beyond_the_ratio_only() -> None:
    assert derive(FOLDER, split((90, 30)), Machine(), Card()).class_weights is None
    p = derive(FOLDER, split((90, 30, 29)), Machine(), Card())
    assert p.class_weights is not None
    # every class has the same sum of weights, and the mean over clips is 1
    sums = [w * n for w, n in zip(p.class_weights, (90, 30, 29), strict=True)]
    assert sums == pytest.approx([149 / 3] * 3)
    assert any("'class 0' has 90 clips and 'class 2' 29" in w for w in p.words)
    off = derive(replace(FOLDER, class_weights=False), split((90, 3)), Machine(), Card())
    assert off.class_weights is None
    on = derive(replace(FOLDER, class_weights=True), split((20, 20)), Machine(), Card())
    assert on.class_weights == (1.0, 1.0)


@pytest.mark.parametrize(
    ("names", "flip"),
    [
        (("run", "walk"), True),
        (("same_left", "same_right"), False),
        (("TurnLeft", "TurnBack"), False),
        (("swipe right", "swipe up"), False),
        (("bright", "leftover"), True),
    ],
)
def test_no_mirroring_where_names_tell_sides(names: tuple[str, str], flip: bool) -> None:
    data = split((50, 50), names)
    p = derive(FOLDER, data, Machine(), Card())
    assert p.card.flip is flip
    assert any("mirror" in w for w in p.words) is not flip
    assert derive(replace(FOLDER, flip=True), data, Machine(), Card()).card.flip is True


def test_card_is_the_networks_and_what_the_recipe_says() -> None:
    base = Card(frames=8, stride=1, sampling="segments", aggregate="logits", clips=2)
    data = split(names=("a", "b"))
    card = derive(FOLDER, data, Machine(), base).card
    assert card == replace(base, classes=("a", "b"))
    card = derive(replace(FOLDER, frames=16, crop=112), data, Machine(), base).card
    assert (card.frames, card.crop, card.short_side, card.test_crop) == (16, 112, 128, 128)
    assert card.jitter == (128, 160)
    card = derive(replace(FOLDER, sampling="dense", stride=4), data, Machine(), base).card
    assert (card.sampling, card.stride) == ("dense", 4)
    card = derive(replace(FOLDER, colours="imagenet"), data, Machine(), Card()).card
    assert card.mean == IMAGENET_MEAN
    back = replace(card, architecture={})
    card = derive(replace(FOLDER, colours="paper"), data, Machine(), back).card
    assert card.mean == (0.45, 0.45, 0.45)


def test_precision_pays_on_gpus_that_have_it() -> None:
    gpu = Machine(device="cuda", bf16=True, fits=64)
    assert plan(FOLDER, machine=gpu).precision == "bf16-mixed"
    assert plan(FOLDER, machine=replace(gpu, bf16=False)).precision == "fp32"
    assert plan(FOLDER).precision == "fp32"
    assert plan(replace(FOLDER, precision="fp32"), machine=gpu).precision == "fp32"


def test_warmup_for_random_weights_only() -> None:
    p = plan(replace(FOLDER, epochs=20), 200)  # 20 epochs of 12 steps, a twentieth of 240
    assert p.warmup_steps == 12
    assert plan(replace(PRETRAINED, epochs=20), 200).warmup_steps == 0
    assert plan(replace(FOLDER, epochs=20, schedule="one_cycle"), 200).warmup_steps == 0
    assert plan(replace(PRETRAINED, epochs=20, warmup=2.5), 200).warmup_steps == 30


def rates(**changes: object) -> list[float]:
    # 8 steps an epoch, 50 epochs: 400 steps, a thousandth of the paper's
    recipe = replace(PRETRAINED, epochs=50, lr=0.01, **changes)  # type: ignore[arg-type]
    p = plan(recipe, 64)
    assert p.steps == 400
    return [learning_rate(p, step) for step in range(400)]


def test_schedule_steps_is_the_papers() -> None:
    expected = [0.01] * 150 + [0.001] * 150 + [0.0001] * 100
    assert rates(schedule="steps") == pytest.approx(expected, rel=1e-12)


def test_milestones_are_parts_of_the_run() -> None:
    r = rates(schedule="steps", milestones=(0.4, 0.8))  # TSM: 20 and 40 of 50 epochs
    assert r == pytest.approx([0.01] * 160 + [0.001] * 160 + [0.0001] * 80, rel=1e-12)


def test_schedule_cosine() -> None:
    r = rates(schedule="cosine")
    assert (r[0], r[200]) == pytest.approx((0.01, 0.005))
    assert r[100] == pytest.approx(0.01 * (0.5 + math.sqrt(0.125)))
    assert all(a > b > 0 for a, b in pairwise(r))


def test_schedule_one_cycle() -> None:
    r = rates(schedule="one_cycle")
    assert r[0] == pytest.approx(0.01 / 25)
    assert r.index(max(r)) == 120
    assert r[120] == pytest.approx(0.01)
    assert all(a < b for a, b in pairwise(r[:121]))
    assert all(a > b for a, b in pairwise(r[120:]))
    assert r[-1] < 1e-6


def test_warmup_rises_to_the_schedule() -> None:
    r = rates(schedule="steps", warmup=1.0)  # 8 steps
    assert r[:9] == pytest.approx([0.01 * k / 9 for k in range(1, 10)])
    assert r[8:150] == [0.01] * 142


def test_warmup_begins_where_it_is_told() -> None:
    # PySlowFast from scratch: from a tenth, along a line to the cosine at the end of the warm-up
    r = rates(schedule="cosine", warmup=5.0, warmup_from=0.1)  # 40 steps
    end = 0.01 * 0.5 * (1 + math.cos(math.pi * 40 / 400))
    assert r[:41] == pytest.approx([0.001 + (end - 0.001) * k / 41 for k in range(1, 42)])
    assert r[40:] == rates(schedule="cosine")[40:]


SEVERAL = Split(
    ("a", "b", "c"),
    tuple(Sample(f"{i}", -1, f"{i}", actions=(Action(i % 2),)) for i in range(20)),
    (),
)


def test_several_labels_are_learned_one_by_one() -> None:
    p = plan(PRETRAINED, SEVERAL)
    assert (p.loss, p.card.activation, p.class_weights) == ("bce", "sigmoid", None)
    assert any("mean average precision" in word for word in p.words)
    assert "warning: 1 classes are on no training video: 'c'" in p.words
    assert plan(PRETRAINED, 20).loss == "cross_entropy"
    assert plan(replace(PRETRAINED, loss="bce"), 20).card.activation == "sigmoid"
    for changes in ({"loss": "cross_entropy"}, {"class_weights": True}):
        with pytest.raises(UserError, match="several"):
            plan(replace(PRETRAINED, **changes), SEVERAL)  # type: ignore[arg-type]


REFUSED = [
    (Recipe(freeze_backbone=True), "--pretrained"),
    (Recipe(sampling="segments", stride=2), "--stride"),
    (Recipe(momentum=0.0), "Nesterov"),
    (Recipe(frames=0), "--frames must be at least 1"),
    (Recipe(batch=0), "--batch"),
    (Recipe(workers=-1), "--workers"),
    (Recipe(lr=0.0), "--lr"),
    (Recipe(lr=math.nan), "--lr"),
    (Recipe(dropout=1.0), "--dropout"),
    (Recipe(weight_decay=-1.0), "--weight-decay"),
    (Recipe(jitter=(200, 320)), "--jitter 200 320"),
    (Recipe(jitter=(320, 256)), "--jitter 320 256"),
    (Recipe(test_crop=300), "--test-crop 300"),
    (Recipe(epochs=2, warmup=2.0), "--warmup 2"),
    (Recipe(accumulate_to=300), "there are 200"),
    (Recipe(milestones=(0.8, 0.4)), "--milestones"),
    (Recipe(milestones=(20.0, 40.0)), "--milestones"),
    (Recipe(warmup_from=1.0), "--warmup-from"),
    (Recipe(head_lr=0.0), "--head-lr"),
    (Recipe(precise_norm=-1), "--precise-norm"),
    (Recipe(batch=300), "there are 200"),
    (Recipe(batch=3, accumulate_to=64), "multiple of 3"),
]


@pytest.mark.parametrize(("recipe", "says"), REFUSED)
def test_refusals_are_one_sentence(recipe: Recipe, says: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(recipe, 200)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (split((5,)), "only one class, 'class 0'"),
        (split((5, 0)), "no training clips for 'class 1'"),
        (Split((), (), ()), "no classes"),
    ],
)
def test_data_that_cannot_be_learned(data: Split, says: str) -> None:
    with pytest.raises(UserError, match=says):
        derive(FOLDER, data, Machine(), Card())


def test_processes_must_share_a_step() -> None:
    with pytest.raises(UserError, match="3 processes"):
        plan(replace(FOLDER, accumulate_to=64), 200, Machine(processes=3))


def test_the_default_recipe_is_the_folders() -> None:
    # resuming takes what is at its default from the run, so the two must be one
    assert RECIPES["folder"] == Recipe()


def test_every_field_has_its_help() -> None:
    body = ast.parse(inspect.getsource(Recipe)).body[0].body  # type: ignore[attr-defined]
    documented = {
        a.target.id
        for a, b in pairwise(body)
        if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)
    }
    assert documented == {f.name for f in dataclasses.fields(Recipe)}


@pytest.mark.parametrize(
    ("recipe", "stem"),
    [
        (Recipe(frames=8), "slowfast"),
        (Recipe(frames=32), None),
        (Recipe(), None),
        (Recipe(frames=8, stem="paper"), "paper"),
        (Recipe(frames=8, model="tsm_resnet50"), None),
        (Recipe(frames=4, model="i3d_tiny", non_local=1), None),
    ],
)
def test_few_frames_take_a_stem_that_spares_them(recipe: Recipe, stem: str | None) -> None:
    made = plan(recipe)
    assert made.architecture.get("stem") == stem
    told = any("which halves 8 frames" in word for word in made.words)
    assert told == (stem == "slowfast")

"""Every published protocol is a recipe that stands: its network, its plan, its commands."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace

import pytest
import torch

from nonlocalnet import cli
from nonlocalnet.card import card_of
from nonlocalnet.flags import parse_views
from nonlocalnet.layers import Affine3d
from nonlocalnet.machine import Machine
from nonlocalnet.models import create_model
from nonlocalnet.protocols import PROTOCOLS, RECIPES, VIDEOS
from nonlocalnet.recipes import Recipe, check
from nonlocalnet.samples import Action, Sample, Split
from nonlocalnet.training.plan import architecture, derive
from nonlocalnet.training.prepare import start_from
from nonlocalnet.training.schedule import learning_rate
from nonlocalnet.weights import save
from nonlocalnet.weights.published import PUBLISHED

NAMED = sorted(set(PROTOCOLS) - {"folder", "reunion", "reunion_online"})


def split(recipe: Recipe, count: int) -> Split:
    several = recipe.loss == "bce"
    samples = tuple(
        Sample(f"{i}", -1 if several else i % 2, f"{i}", actions=(Action(i % 2),) * several)
        for i in range(count)
    )
    return Split(("a", "b"), samples, samples[:2])


def planned(name: str, count: int):
    recipe = RECIPES[name]
    with torch.device("meta"):
        model = create_model(**architecture(recipe, 2))
    return derive(recipe, split(recipe, count), Machine(processes=8, fits=8), card_of(model))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_it_stands(name: str) -> None:
    recipe = RECIPES[name]
    check(recipe)
    plan = planned(name, 1000)
    assert plan.steps > 0
    assert plan.card.activation == ("sigmoid" if recipe.loss == "bce" else "softmax")


@pytest.mark.parametrize("name", NAMED)
def test_its_promise_is_complete(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.data in VIDEOS
    assert protocol.measured == "not measured here"
    assert protocol.expect
    assert not protocol.first or protocol.first in PROTOCOLS
    train, test = protocol.commands(name)
    words = shlex.split(train.partition("-m nonlocalnet ")[2])
    assert cli.parse(words)
    assert cli.parse(shlex.split(test)[1:])
    clips, crops = parse_views(protocol.views)
    assert clips is not None
    assert crops is not None


@pytest.mark.parametrize(
    ("name", "steps", "clips", "rates"),
    [
        # video-nonlocal-net: 400,000 steps of 64, a tenth from 150,000 and from 300,000 on
        ("kinetics_32x2", 400_000, 64, {0: 0.01, 0.374: 0.01, 0.376: 0.001, 0.751: 0.0001}),
        ("kinetics_128x1", 400_000, 16, {0: 0.0025, 0.376: 0.00025, 0.751: 0.000025}),
        # PySlowFast: 196 epochs of a cosine from 0.1, over 34 epochs up from 0.01
        ("kinetics_8x8_scratch", 196 * 234_643 // 64, 64, {0: 0.01, 34 / 196: 0.0928, 0.5: 0.05}),
        # TSM: 50 epochs of 128, a tenth from 20 and from 40 on
        (
            "tsm_kinetics",
            50 * 234_643 // 128,
            128,
            {0.39: 0.02, 0.41: 0.002, 0.81: 2e-4},
        ),
        ("tsm_kinetics_dense", 100 * 234_643 // 128, 128, {0: 0.02, 0.41: 0.002}),
        ("charades_lfb", 24_000, 16, {0: 0.02, 0.83: 0.02, 0.84: 0.002}),
        ("charades", 200_000, 8, {0: 0.00125, 0.38: 0.000125, 0.76: 0.0000125}),
    ],
)
def test_steps_and_rates(name: str, steps: int, clips: int, rates: dict[float, float]) -> None:
    data = PROTOCOLS[name].data
    plan = planned(name, VIDEOS[data])
    assert plan.step_clips == clips
    assert plan.steps == pytest.approx(steps, rel=0.012)  # whole epochs of the videos there are
    for part, rate in rates.items():
        found = learning_rate(plan, math.floor(part * plan.steps))
        assert found == pytest.approx(rate, rel=0.03)


def test_frames_that_a_clip_is_made_of() -> None:
    dense = planned("tsm_kinetics_dense", 1000).card
    assert (dense.frames, dense.stride, dense.window, dense.starts, dense.beyond) == (
        8, 8, "full", "floor", "wrap",
    )  # fmt: skip
    slowfast = planned("kinetics_8x8_scratch", 1000).card
    assert (slowfast.window, slowfast.starts, slowfast.rate) == ("spread", "slack", 30.0)
    assert planned("table2_c2d", 1000).card.crops == 0
    assert planned("kinetics_32x2", 1000).card.crops == 3
    charades = planned("charades", 1000).card
    assert (charades.aggregate, charades.test_crop, charades.crop) == ("max", 320, 288)


def test_a_published_start_keeps_its_colours() -> None:
    """Caffe2's weights saw 0.45 and 0.225 per channel, whatever starts from them."""
    started = [name for name in NAMED if RECIPES[name].pretrained in PUBLISHED]
    assert started == ["charades_lfb"]
    card = planned("charades_lfb", 1000).card
    assert (card.mean, card.std) == ((0.45,) * 3, (0.225,) * 3)


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_fine_tuning_as_tsm_does(name: str) -> None:
    """Its scripts/finetune_tsm_ucf101_rgb_8f.sh, and what its opts.py sets where that is silent."""
    plan = planned(name, 1000)
    assert (plan.lr, plan.epochs, plan.step_clips, plan.clip_grad) == (0.001, 25, 64, 20)
    assert (plan.weight_decay, plan.freeze_later_norms, plan.nesterov) == (5e-4, True, False)
    assert plan.architecture["dropout"] == 0.8


@torch.no_grad()
def test_a_long_networks_constants_are_the_short_ones_frozen_norms(tmp_path) -> None:
    """Caffe2's long clips: the norms of the short network fold into constants."""
    torch.manual_seed(0)
    short = create_model("i3d_resnet18", num_classes=3, preset="caffe2-32x2").eval()
    for module in short.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
    save(short, tmp_path / "short.safetensors")
    long = create_model(
        "i3d_resnet18", num_classes=5, non_local=5, preset="caffe2-128x1-affine"
    ).eval()
    assert any(isinstance(module, Affine3d) for module in long.modules())
    words = start_from(long, str(tmp_path / "short.safetensors"), everything=False)
    assert "new are the head" in words
    clip = torch.randn(1, 3, 32, 64, 64)
    # the blocks are the identity at first, so the features are those of the short network
    expected, found = short.features(clip), long.features(clip)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_table_and_one_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in PROTOCOLS)
    assert cli.main(["recipes", "kinetics_8x8"]) == 0
    told = capsys.readouterr().out
    assert "74.7 % top-1" in told
    assert "not measured here" in told
    # 41.3 G multiply-adds belong to 32 frames of the paper's stem; cost says this one's own
    assert "G multiply-adds a clip" in told
    assert "--recipe kinetics_8x8" in told
    assert cli.main(["recipes", "nobody"]) == 2


def test_what_the_training_costs() -> None:
    """The paper's 32 frames: 41.3 G multiply-adds, 109 epochs of 234,643 clips, thrice forward."""
    operations = PROTOCOLS["kinetics_32x2"].operations(41_256_000_000)
    assert operations == pytest.approx(6 * 41.256e9 * 109 * 234_643)
    assert PROTOCOLS["folder"].operations(10**9) == 0
    assert replace(PROTOCOLS["kinetics_32x2"], data="your own").operations(10**9) == 0

"""The ablation: which networks it trains, what it says of them, and that it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from nonlocalnet import ablation as module
from nonlocalnet import create_model
from nonlocalnet.ablation import SCALES, Scale, cost_of, recipe_of, run
from nonlocalnet.cost import Row as Cost
from nonlocalnet.errors import UserError
from nonlocalnet.metrics import Outcome, Result, Rule, Scored
from nonlocalnet.protocols import RECIPES
from nonlocalnet.questions import NETWORKS, TABLES
from nonlocalnet.recipes import Recipe, check
from nonlocalnet.report import Run
from nonlocalnet.sizes import block_positions
from nonlocalnet.studies import ScaleName
from nonlocalnet.synthetic import CLASSES, LEVELS
from nonlocalnet.training.plan import architecture
from nonlocalnet.trial import GROUPS

TINY = Scale(train=32, val=8, test=12, epochs=1)


def network(key: str) -> torch.nn.Module:
    torch.manual_seed(0)
    # awake, and with last gains of one, as training makes it; else nothing is related at all
    model = create_model(**architecture(recipe_of(key, TINY, 0, awake=True), len(CLASSES)))
    for module_ in model.modules():
        if isinstance(module_, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module_.weight, 0.5, 1.5)
    return model.double().eval()


def test_a_row_is_a_network_once_whatever_shows_it() -> None:
    shown = {key for table in TABLES.values() for _, key, _ in table.rows}
    assert shown == set(NETWORKS)
    recipes = [repr(recipe_of(key, TINY, 0)) for key in NETWORKS]
    assert len(set(recipes)) == len(recipes)
    for key in NETWORKS:
        check(recipe_of(key, TINY, 0))


def test_blocks_are_where_the_paper_puts_them() -> None:
    """Paper, section 5.1 and Table 2: R50, right before the last residual block of a stage."""
    want = {
        "c2d": (),
        "i3d": (),
        "res2": ("layer1.1",),
        "res3": ("layer2.2",),
        "one": ("layer3.4",),
        "res5": ("layer4.1",),
        "five": ("layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"),
        "ten": tuple(f"layer{s}.{i}" for s, n in ((2, 4), (3, 6)) for i in range(n)),
    }
    for key, positions in want.items():
        recipe = recipe_of(key, TINY, 0)
        assert recipe.model.endswith("resnet50")
        assert block_positions("resnet50", recipe.non_local) == positions
    made = {key: architecture(recipe_of(key, TINY, 0), 4) for key in NETWORKS}
    assert {key for key in made if "pairwise" in made[key]} == {
        *("gaussian", "dot_product", "concatenation")
    }
    assert {key for key in made if "mode" in made[key]} == {"space", "time"}


@pytest.mark.parametrize("key", NETWORKS)
def test_who_cannot_know_the_direction(key: str) -> None:
    """A clip and its reverse: the same scores from all but I3D, once that is trained."""
    torch.manual_seed(1)
    model = network(key)
    if key == "i3d":  # inflated kernels start even in time
        torch.nn.init.normal_(model.get_parameter("conv1.weight"))
    clip = torch.randn(1, 3, 8, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        there, back = model(clip), model(clip.flip(2))
    assert torch.allclose(there, back, atol=1e-9) != NETWORKS[key].direction


@pytest.mark.parametrize("key", NETWORKS)
def test_who_is_a_sum_over_frames(key: str) -> None:
    """Swapping one frame for another shifts a sum by the same, whatever the other frames are."""
    model, change = network(key), []
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 3, 32, 32, generator=generator, dtype=torch.float64)
    for _ in range(2):
        clip = torch.randn(1, 3, 8, 32, 32, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            scores = []
            for frame in (one, other):
                clip[:, :, 3] = frame
                scores.append(model(clip))
            change.append(scores[1] - scores[0])
    is_a_sum = torch.allclose(*change, rtol=0, atol=1e-9)
    assert is_a_sum == (NETWORKS[key].same is False)


def test_costs_are_those_of_the_networks() -> None:
    one, ten = cost_of("one", TINY), cost_of("ten", TINY)
    model = create_model(**architecture(recipe_of("ten", TINY, 0), len(CLASSES)))
    assert ten.parameters == sum(p.numel() for p in model.parameters()) > one.parameters
    assert ten.multiply_adds > one.multiply_adds


def test_scales_are_those_of_the_flag_and_fit_the_level() -> None:
    assert get_args(ScaleName) == tuple(SCALES)
    recipe = recipe_of("one", SCALES["large"], 5)
    assert (recipe.frames, recipe.crop, recipe.seed) == (32, LEVELS["hard"].size, 5)
    assert recipe.flip is RECIPES["reunion"].flip is False  # a mirrored clip moves the other way


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """No training: each network answers what theory lets it, seed 1 one clip less."""
    calls: list[tuple[str, int]] = []

    def trial(name: str, data: Path, recipe: Recipe, folder: Path, quiet: bool) -> Run[Result]:
        assert data.parent == folder.parent.parent
        calls.append((name, recipe.seed))
        can = NETWORKS[name]
        videos = []
        for i in range(TINY.test):
            label = i % 4
            said = label if can.same is not False else label ^ (2 * (i // 4 % 2))
            said = said if can.direction else said ^ (i // 2 % 2)
            said = said ^ 2 if (i, recipe.seed, can.same) == (0, 1, True) else said
            seen = Outcome((said,), (1.0,), int(said != label), 0.0)
            videos.append(Scored(str(i), label, str(i), (seen,)))
        groups = {name: tuple(map(of, CLASSES)) for name, of in GROUPS.items()}
        facts = {"Device": "cpu", "Date": "today", "Versions": "these"}
        return Run(name, Result(CLASSES, (Rule(1, 1),), tuple(videos), (), groups, facts))

    whole = Cost("total", "ResNet3d", (4,), 100_000, 20_000_000, 0, 0, 0)
    monkeypatch.setattr(module, "trial", trial)
    monkeypatch.setattr(module, "render", lambda *_: None)
    monkeypatch.setattr(module, "cost_of", lambda *_: whole)
    return calls


def test_what_tables_share_is_trained_once(tmp_path: Path, trained: list[tuple[str, int]]) -> None:
    found = run(tmp_path, ("functions", "depth"), TINY, seeds=2, quiet=True)
    assert len(trained) == len(set(trained)) == 2 * 7
    assert [table.paper for table in found.tables] == ["Table 2a", "Table 2c"]
    kept = json.loads(found.html.with_suffix(".json").read_text(encoding="utf-8"))
    row = next(r for r in kept["tables"][1]["rows"] if r["name"] == "5 blocks")
    same = row["accuracy"]["same colour?"]
    assert same["seeds"] == [1.0, 11 / 12]
    assert same["mean"] == pytest.approx(23 / 24)
    assert same["deviation"] == pytest.approx(2**-0.5 / 12)
    assert row["kinetics_top1_of_the_paper"] == 73.8
    page = found.html.read_text(encoding="utf-8")
    assert "Reunion is not Kinetics" in page
    assert "Theory, before any run." in page


def test_the_report_is_there_after_each_seed(
    tmp_path: Path, trained: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial: Callable[..., Run[Result]] = module.trial

    def killed(name: str, data: Path, recipe: Recipe, *rest: object, **more: object) -> Run[Result]:
        if recipe.seed == 1:
            raise KeyboardInterrupt
        return trial(name, data, recipe, *rest, **more)

    monkeypatch.setattr(module, "trial", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ("axes",), TINY, seeds=2, quiet=True)
    kept = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert kept["obtained"]["Seeds"] == "0"


@pytest.mark.parametrize(("tables", "seeds"), [(("depths",), 1), ((), 1), (("depth",), 0)])
def test_what_makes_no_ablation(tmp_path: Path, tables: tuple[str, ...], seeds: int) -> None:
    with pytest.raises(UserError, match="functions, stages, depth, axes"):
        run(tmp_path / "new", tables, TINY, seeds)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_two_rows_from_videos_to_the_report_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = TABLES["depth"]
    monkeypatch.setitem(module.TABLES, "depth", replace(depth, rows=depth.rows[:2]))
    first = run(tmp_path, ("depth",), TINY, seeds=1, quiet=True)
    assert [row.name for row in first.tables[0].rows] == ["C2D, no block", "1 block"]
    weights = tmp_path / "seed0" / "runs" / "one" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    again = run(tmp_path, ("depth",), TINY, seeds=1, quiet=True)
    assert weights.stat().st_mtime_ns == written
    assert again.tables == first.tables

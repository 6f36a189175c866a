"""A trial: what it keeps, that it goes on where it was stopped, and whom it refuses."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from nonlocalnet import trial as module
from nonlocalnet.errors import UserError
from nonlocalnet.protocols import RECIPES
from nonlocalnet.recipes import Recipe
from nonlocalnet.synthetic import CLASSES, render_reunion
from nonlocalnet.training.interrupt import Stopped
from nonlocalnet.trial import GROUPS, bar, trial

RECIPE = replace(RECIPES["reunion"], model="c2d_tiny", width=4, epochs=1, workers=0, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "reunion"
    return render_reunion(folder, train=64, val=8, test=12)


def test_a_finished_trial_costs_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trial("mine", data, RECIPE, tmp_path / "run", quiet=True)
    assert first.name == "mine"
    assert first.result.count == 12
    assert [rule.name for rule in first.result.rules] == ["1 clip"]
    assert list(first.result.groups) == list(GROUPS)
    assert first.notes
    assert first.log

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train", never)
    assert trial("mine", data, RECIPE, tmp_path / "run", quiet=True) == first


def test_a_run_killed_before_its_first_checkpoint_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a recipe then and no checkpoint yet."""
    whole = trial("whole", data, RECIPE, tmp_path / "whole", quiet=True)
    folder, train = tmp_path / "killed", module.train

    def killed(data: Path, recipe: Recipe, out: Path, **_: bool) -> None:
        train(data, recipe, out, quiet=True)
        for path in out.iterdir():
            if path.name not in ("recipe.json", "split.json", "tensorboard"):
                path.unlink()
        raise Stopped("killed")

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", killed)
        with pytest.raises(Stopped):
            trial("killed", data, RECIPE, folder, quiet=True)
    again = trial("killed", data, RECIPE, folder, quiet=True)
    assert again.result.videos == whole.result.videos


def test_a_folder_of_another_recipe_is_refused(data: Path, tmp_path: Path) -> None:
    trial("mine", data, RECIPE, tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="width 4 and this call says 8"):
        trial("mine", data, replace(RECIPE, width=8), tmp_path / "run", quiet=True)


def test_no_bars_without_a_terminal() -> None:
    for terminal in (False, True):
        console = Console(file=StringIO(), force_terminal=terminal, width=80)
        with bar(console, "rendering reunion") as advance:
            advance(1, 2)
            advance(2, 2)
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("100%" in printed) == terminal
        assert terminal or printed == "rendering reunion\n"


def test_the_two_questions_come_from_the_class_names() -> None:
    same, direction = GROUPS["same colour?"], GROUPS["direction?"]
    assert {same(name) for name in CLASSES} == {"same", "different"}
    assert {direction(name) for name in CLASSES} == {"left", "right"}
    assert len({(same(name), direction(name)) for name in CLASSES}) == len(CLASSES)

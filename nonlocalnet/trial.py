"""One network trained and tested on reunion: what the demo and the ablations are made of.

A trial is a run folder with the test's result in it. Stopped at any moment, the same call goes on;
finished, it costs nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from .evaluate import evaluate
from .files import write_text
from .folders import read_test_folder
from .metrics import Result
from .recipes import Recipe
from .report import Run, read_log
from .synthetic import Reunion, render_reunion
from .train import train
from .weights import load

GROUPS: dict[str, Callable[[str], str]] = {
    "same colour?": lambda name: name.partition("_")[0],
    "direction?": lambda name: name.partition("_")[2],
}
RECIPE = "recipe.json"  # the first thing that is there of a run
TESTED = "tested.json"  # beside the network: the result, the recipe and the words of its training


def render(
    folder: Path, clips: tuple[int, int, int], level: Reunion, seed: int, console: Console
) -> None:
    """Reunion with so many training, validation and test clips; what is there already is kept.

    Raises `UserError` as `render_reunion` does.
    """
    train_clips, val_clips, test_clips = clips
    with bar(console, "rendering reunion") as advance:
        render_reunion(folder, train_clips, val_clips, level, seed, test_clips, advance)


def trial(name: str, data: Path, recipe: Recipe, folder: Path, quiet: bool) -> Run[Result]:
    """Train the recipe's network on data/train and data/val, test the best epoch on data/test.

    name: for the report. folder: of the run; a call with the same recipe goes on there.

    Raises `UserError` for a folder that holds a run of another recipe, and as `train` does.
    """
    settings = _plain(asdict(recipe))
    found = _read(folder / TESTED)
    if found is None or found["recipe"] != settings:
        begun = (folder / RECIPE).exists()
        done = train(data, recipe, folder, resume=begun, quiet=quiet)
        split = read_test_folder(data / "test")
        bars = not quiet and sys.stderr.isatty()
        # reunion's clips have the network's length and size: all views of one are the same
        result = evaluate(load(folder), split.val, 1, 1, groups=GROUPS, progress=bars)
        found = {"recipe": settings, "words": list(done.words), "result": result.to_dict()}
        write_text(folder / TESTED, json.dumps(found))
    result = Result.from_dict(found["result"])
    return Run(name, result, read_log(folder / "log.jsonl"), tuple(found["words"]))


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _plain(value: dict[str, Any]) -> Any:
    return json.loads(json.dumps(value))  # tuples as JSON knows them


@contextmanager
def one_thread() -> Iterator[None]:
    """Layers this small lose more in sharing the work between threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere one line."""
    if not console.is_terminal:
        console.print(what)
        yield lambda done, total: None
        return
    with Progress(console=console) as progress:
        task = progress.add_task(what)
        yield lambda done, total: progress.update(task, completed=done, total=total)

"""The commands: one thin function each. Its arguments are the flags, its docstring is the help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from .errors import UserError
from .flags import (
    DataFlags,
    Interrupted,
    Out,
    RecipeName,
    UsageError,
    best_device,
    check_model,
    check_non_local,
    check_output,
    find_run,
    find_trained,
    parse_views,
    reading_processes,
    watched,
)
from .machine import Device, this_machine
from .models import is_model
from .processes import rank
from .recipes import Recipe, check
from .terminal import (
    progress_bar,
    say,
    say_files,
    show_checked,
    show_facts,
    show_result,
)

if TYPE_CHECKING:
    from .check import Checked

# Decoding, training, drawing and the report are imported by the commands that need them.


def check_data(
    data: DataFlags,
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    run: Path | None = None,
    workers: int | None = None,
    seconds: float = 60.0,
    shortest: float = 1.0,
    fail_on: Literal["unusable", "problem", "remark"] = "problem",
    json: bool = False,
    device: Device | None = None,
) -> int:
    """Decode every video to its end: what is there, what cannot be used and why.

    Exits with 1 if a file cannot be used or something else is a problem.

    Args:
        data: What to check.
        out: Folder for report.html, clean.csv (what can be used) and files.jsonl, with which a
            stopped check goes on.
        run: A trained network; videos whose label it contradicts are remarked on.
        workers: Processes that decode; None is one per core.
        seconds: Time limit per file.
        shortest: Videos of fewer seconds are remarked on.
        fail_on: How grave it must be for exit code 1: unusable files only, problems such as
            damage and the same file in train and val too, or anything there is to say.
        json: One line of JSON per file instead of the table.
        device: Where the network runs; None is the best there is.
    """
    from .check import FILES, Journal, Summary, checking, write_outputs
    from .listings.read import read_data

    split = read_data(data)
    if out is not None:
        from .training.checkpoint import make_folder

        make_folder(out)
    try:
        with Journal(out and out / FILES) as journal:
            with progress_bar("checking") as progress:
                processes = workers if workers is not None else this_machine("cpu").cores
                checked = checking(split, journal, processes, seconds, shortest, progress)
            words = [*split.notes, *_ask(run, checked, device)]
            summary = Summary(checked)
            if json:
                say_files(checked)
            else:
                for word in words:
                    say(word)
                show_checked(checked, summary, every=out is None)
            if out is not None:
                for path in write_outputs(out, f"Check of {data.path}", checked, summary, words):
                    if not json:
                        say(f"written: {path}")
    except KeyboardInterrupt:
        if out is None:
            raise
        raise Interrupted("stopped; the same command goes on") from None
    return int(summary.fails(fail_on))


def _ask(run: Path | None, checked: Checked, device: Device | None) -> list[str]:
    """What the network of a run says about the labels."""
    if run is None:
        return []
    from .check.doubts import contradict
    from .exported import of_clips

    model = of_clips(find_trained(run, device))
    with progress_bar("asking the network") as progress:
        return contradict(checked, model, run, reading_processes(None), progress)


def train(
    data: DataFlags,
    out: Out,
    recipe: Recipe,
    row: Annotated[RecipeName, arg(name="recipe")] = "folder",
    resume: bool = False,
    views: str | None = None,
) -> int:
    """Train a network on videos, test it on those kept for validation, write the report.

    What no flag says is derived from the videos and the machine, and printed in words. Under
    torchrun, start `python -m nonlocalnet train ...`.

    Args:
        data: What to learn from.
        out: Folder of the run: network, checkpoint, log, report.
        recipe: What to train and how; None means: derived, in words.
        row: Row of RECIPES that gives the other flags their defaults.
        resume: Go on with the run in `out`, exactly where it was stopped.
        views: Views per video of the closing test, such as 10x3; None is the network's own rule.
    """
    clips, crops = parse_views(views)
    if not resume:  # a run that goes on has its network, also where its first file is gone
        check_model(recipe.model)
        if is_model(recipe.model):  # others have their own blocks
            check_non_local(recipe.model, recipe.non_local)
    try:
        check(recipe, resume)
    except UserError as error:
        raise UsageError(str(error)) from None
    from .listings.read import read_data
    from .listings.rows import exists

    if not resume and not exists(data.path):
        read_data(data)  # says so before what training needs is imported, which takes seconds
    from .exam import examine
    from .train import train as run

    try:
        result = run(data, recipe, out, resume)
        device, workers = best_device(recipe.device), reading_processes(recipe.workers)
        exam = examine(out, None, clips, crops, device=device, workers=workers, progress=watched())
    except KeyboardInterrupt:
        if not (out / "last.ckpt").exists():
            raise
        raise Interrupted(
            f"stopped; go on with: nonlocalnet train {data.path} --resume -o {out}"
        ) from None
    if rank():
        return 0  # one process of a run speaks
    for word in exam.words:
        say(word)
    show_result(exam.result)
    say(f"network: {result.path / 'model.safetensors'}")
    say(f"report: {exam.html}")
    return 0


def run_test(
    run: Positional[Path],
    data: DataFlags,
    views: str | None = None,
    stream: bool = False,
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    device: Device | None = None,
    workers: int | None = None,
    verify: bool = False,
) -> int:
    """Test a network: accuracy with 1 clip, many clips and all views, per class; and the report.

    Under torchrun (`-m nonlocalnet test ...`) the processes share the videos; the figures are
    those of one. The scores go beside the report as .npz, for `fuse`.

    Args:
        run: Folder of a run, a checkpoint, an exported file, or a published model's name.
        data: What to test on. Where the run was trained on it, its validation videos are tested;
            else those that a folder's val/ or the list itself say; else all.
        views: Views per video, CLIPSxCROPS, such as 10x3 or 10xwhole (the whole frame, as the
            paper tests); None is the network's own rule.
        stream: Then once more frame by frame, as an online network meets a camera's pictures.
        out: The report; None is test.html in the run, or here for a published model. Its figures go
            beside it as JSON.
        device: Where the network runs; None is the best there is.
        workers: Processes that read videos.
        verify: First let the network pass the self-test in its file (see convert).
    """
    clips, crops = parse_views(views)
    check_output("--out", out, ".html", ".htm")
    from .exam import examine
    from .exported import open_network

    path = find_run(run)
    if verify:
        open_network(path, verify=True)
    exam = examine(
        path,
        data,
        clips,
        crops,
        html=out or (run if run.is_dir() else run.parent) / "test.html",
        framewise=stream,
        device=best_device(device),
        workers=reading_processes(workers),
        progress=watched(),
    )
    if rank():
        return 0
    for word in exam.words:
        say(word)
    show_result(exam.result)
    say(f"report: {exam.html}")
    return 0


def doctor() -> int:
    """Versions, decoder, devices, kernels: what works here, what does not and why.

    Exits with 1 only if something is broken that everything needs.
    """
    from .doctor import core_works, examine_machine

    facts = examine_machine()
    show_facts(facts)
    return int(not core_works(facts))


def demo(out: Out = Path("demo"), seed: int = 0, quick: bool = False) -> int:
    """Train four small networks on the embedded data set and write one report of them.

    Args:
        out: Folder for the data set, the runs and the report.
        seed: Seed of everything random.
        quick: A tenth of the training, to see that everything works.
    """
    from .demo import run
    from .training.interrupt import Stopped

    try:
        run(out, seed, quick)
    except (KeyboardInterrupt, Stopped):
        raise Interrupted(f"stopped; the same command goes on where {out} is now") from None
    return 0

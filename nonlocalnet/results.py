"""The commands about scores of finished tests: `fuse` and `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from .errors import UserError
from .flags import (
    UsageError,
    best_device,
    check_output,
    find_run,
    reading_processes,
    watched,
)
from .machine import Device
from .terminal import say, show_result


def fuse(
    files: Positional[tuple[Path, ...]],
    weights: tuple[float, ...] | None = None,
    out: Annotated[Path, arg(aliases=["-o"])] = Path("fused.html"),
) -> int:
    """Late fusion: the weighted mean of the scores of several tests, and its report.

    Streams such as RGB, flow and sound, or several networks, meet here. Videos are matched by path
    or, where the streams have files of their own, by the name of the file.

    Args:
        files: The .npz files that `test` writes beside its report, or .csv files with a column of
            paths and one of scores per class.
        weights: One per file, in any unit; None is equal weights.
        out: The report; its figures and the fused scores go beside it.
    """
    if len(files) < 2:
        raise UsageError("fuse takes two files of scores at least")
    if weights is not None and len(weights) != len(files):
        raise UsageError(f"{len(files)} files take {len(files)} --weights, not {len(weights)}")
    check_output("--out", out, ".html", ".htm")
    from .report import Run, write_report
    from .scores import fuse as fused
    from .scores import read_scores

    parts = [read_scores(file) for file in files]
    scores = fused(parts, weights)
    lost = sum(len(part.samples) for part in parts) - len(parts) * len(scores.samples)
    result = scores.tags() if scores.several else scores.result()
    title = f"Fusion of {', '.join(file.name for file in files)}"
    write_report(out, title, [Run("fusion", result)])
    scores.save(out.with_suffix(".npz"))
    if any(part.rules != parts[0].rules for part in parts):
        say(f"fused are the fullest views of each: {scores.obtained['Views']}")
    if lost:
        say(f"{lost} scores of videos that not every file has were left out")
    show_result(result)
    say(f"report: {out}")
    return 0


def calibrate(
    run: Positional[Path],
    scores: Path | None = None,
    none: tuple[str, ...] = (),
    keep: float = 0.95,
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    device: Device | None = None,
    workers: int | None = None,
) -> int:
    """How far a network's scores can be believed, and from which score on it shall tell a class.

    From the scores of the videos that it was validated on: a temperature, with the calibration
    error before and after, and the score below which `stream` says "none of these".

    Args:
        run: Folder of a run, a checkpoint, or the name of a published model.
        scores: The .npz that `test` wrote of videos the network did not learn from; None is that of
            the run's own report.
        none: Files and folders of videos that show none of the classes: the threshold is then where
            these are parted best from right answers, and the false alarms are told.
        keep: Without such videos: the share of right answers that must reach the threshold.
        out: The calibration; None is calibration.json in the run, where `stream` looks for it.
        device: Where the network runs; None is the best there is.
        workers: Processes that read videos.
    """
    if not 0 < keep <= 1:
        raise UsageError(f"--keep is a share above 0, 1 at most, such as 0.95; it came as {keep}")
    check_output("--out", out, ".json")
    from .calibration import FILE, place_of
    from .calibration import calibrate as made
    from .scores import read_scores

    place = out or place_of(run) or Path(FILE)
    kept = scores or (run if run.is_dir() else run.parent) / "report.npz"
    if scores is None and not kept.is_file():
        raise UserError(
            f"{run} has no scores of its validation videos ({kept.name}); `nonlocalnet test` it on"
            " videos that it did not learn from, and give the .npz that this writes as --scores"
        )
    known = read_scores(kept)
    nothing = None
    if none:
        from .calibration import score_nothing
        from .weights import load

        model = load(find_run(run), best_device(device))
        reading = reading_processes(workers)
        nothing = score_nothing(model, none, workers=reading, progress=watched())
    found = made(known, nothing, keep)
    found.save(place)
    for word in found.words:
        say(word)
    say(f"calibration: {place}")
    return 0

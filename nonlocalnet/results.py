"""The command about scores of finished tests: `fuse`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from .flags import UsageError, check_output
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

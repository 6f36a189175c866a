"""Commands for as many videos as there are."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from .errors import UserError
from .flags import Interrupted, Out, UsageError, parse_views
from .terminal import files_bar, say, show_summary


def predict_many(
    run: Positional[Path],
    videos: Positional[tuple[str, ...]],
    out: Out,
    top: int = 5,
    all_scores: bool = False,
    views: str | None = None,
    seconds: float = 300.0,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    address: str = "local",
) -> int:
    """Predict any number of videos, on one machine or many, into a folder of Parquet.

    Stopped or killed, the same command goes on. Exits with 1 if the folder holds broken files.

    Args:
        run: Folder of a run, or a checkpoint.
        videos: Files, folders, lists of paths (.txt, .csv), addresses and patterns.
        out: The folder of the predictions.
        top: How many classes.
        all_scores: The scores of all classes too.
        views: Views per video, CLIPSxCROPS, such as 10x3; None is the network's own rule.
        seconds: Time limit for reading one file.
        workers: Copies of the network; None is one per core, or four per GPU.
        cpus_per_worker: Cores and threads of each.
        gpus_per_worker: Its share of a GPU, such as 0.25; None divides those there are.
        address: Where Ray runs: local is this machine alone; auto or HOST:PORT a running cluster.
    """
    clips, crops = parse_views(views)
    if top < 1 or not seconds > 0:
        raise UsageError(f"--top is 1 or more, --seconds above 0; they came as {top}, {seconds:g}")
    from .cluster import Cluster
    from .many import Job
    from .many import predict_many as run_all
    from .weights import load

    job = Job(clips, crops, top, all_scores, seconds)
    try:
        cluster = Cluster(address, workers, cpus_per_worker, gpus_per_worker)
    except UserError as error:
        raise UsageError(str(error)) from None
    try:
        with files_bar("predicting") as progress:
            summary = run_all(load(run), videos, out, job, cluster, progress)
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command goes on from here") from None
    show_summary(summary)
    say(f"predictions: {out}")
    return int(summary.broken > 0)

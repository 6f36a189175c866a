"""Commands for as many videos as there are."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from .errors import UserError
from .flags import DataFlags, Interrupted, Out, UsageError, parse_views
from .machine import this_machine
from .terminal import progress_bar, say, show_summary


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
        with progress_bar("predicting", "starting workers") as progress:
            summary = run_all(load(run), videos, out, job, cluster, progress)
    except KeyboardInterrupt:
        raise Interrupted("stopped; the same command goes on from here") from None
    show_summary(summary)
    say(f"predictions: {out}")
    return int(summary.broken > 0)


def prepare(
    data: DataFlags,
    out: Out,
    short_side: int = 256,
    gop: int = 12,
    crf: int = 23,
    workers: int | None = None,
    seconds: float = 3600.0,
) -> int:
    """Write every video anew for quick reading: smaller, many key frames, no sound; and a list.

    Frames keep their numbers and times. Stopped or killed, the same command goes on, and videos
    that changed are done anew. Exits with 1 if a video could not be read.

    Args:
        data: What to write anew.
        out: Folder for the new videos and data.csv, which `train` takes in place of the data.
        short_side: Pixels at most; a video is never enlarged.
        gop: Frames between key frames at most: fewer are quicker to reach, and take more bytes.
        crf: x264's quality, 0 (largest) to 51 (worst).
        workers: Videos at a time; None is one per core.
        seconds: Time limit per video.
    """
    limits = {"short-side": (short_side, 2, 9999), "gop": (gop, 1, 9999), "crf": (crf, 0, 51)}
    for name, (value, least, most) in limits.items():
        if not least <= value <= most:
            raise UsageError(f"--{name} is {least} to {most}; it came as {value}")
    from .listings.read import read_data
    from .preparing import prepare as run
    from .reencoding import Form

    split = read_data(data)
    try:
        with progress_bar("preparing") as progress:
            cores = workers or this_machine("cpu").cores
            form = Form(short_side, gop, crf)
            done = run(split, out, form, cores, seconds, progress)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; the same command goes on where {out} is now") from None
    for note in split.notes:
        say(note)
    for path, reason in done.broken:
        say(f"{path}: {reason}")
    for path in done.damaged:
        say(f"{path}: written, but some of its pictures are damaged")
    kept = f", {done.kept} were there already" if done.kept else ""
    broken = f", {len(done.broken)} could not be read" if done.broken else ""
    say(f"{done.written} videos written{kept}{broken}; {done.bytes / 1e6:.1f} MB in all")
    say(f"list: {done.listing}")
    return int(bool(done.broken))

"""The commands that take a network to where it works: `export` it, and `bench` what came out."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from .flags import UsageError, best_device, check_output, find_own, find_run
from .machine import Device
from .sidecar import ExportPrecision
from .terminal import progress_bar, say, say_json, show_table


def export(
    run: Positional[Path],
    out: Positional[Path],
    stream: bool = False,
    precision: ExportPrecision = "fp32",
    batch: str = "1",
    size: int | None = None,
    calibrate: Annotated[str | None, arg(metavar="FOLDER")] = None,
) -> int:
    """Write a network as a file that runs without this program: ONNX, or torch.export's.

    A .json beside it says how to use it: pictures, classes, states. The file is compared with the
    network on real frames before it is there; `predict` and `stream` take it like a run.

    Args:
        run: Folder of a run, a checkpoint, or the name of a published model.
        out: OUT.onnx or OUT.pt2.
        stream: One frame at a time, the state as named inputs and outputs; for online networks.
        precision: Of the computation; int8 is for .onnx and needs --calibrate.
        batch: Clips or streams at once: a number, or "dynamic".
        size: Height and width of its pictures; None is what the network tests with.
        calibrate: Videos like those it is for, to compare on and to find the ranges of int8;
            without any, clips are drawn.
    """
    check_output("OUT", out, ".onnx", ".pt2")
    if batch != "dynamic" and not (batch.isdigit() and 0 < int(batch) < 10_000):
        raise UsageError(f"--batch is a number from 1 on, or dynamic; it came as {batch!r}")
    if size is not None and size < 1:
        raise UsageError(f"--size is a number of pixels; it came as {size}")
    if precision == "int8" and (out.suffix.lower() != ".onnx" or calibrate is None):
        raise UsageError("--precision int8 takes an .onnx file and --calibrate, a folder of videos")
    from .export import export as write
    from .weights import load

    done = write(
        load(find_own(run)),
        out,
        stream=stream,
        precision=precision,
        batch=None if batch == "dynamic" else int(batch),
        size=size,
        calibrate=calibrate,
        bar=progress_bar,
    )
    for word in done.words:
        say(word)
    return 0


def bench(
    networks: Positional[tuple[Path, ...]],
    stream: bool = False,
    batch: int = 1,
    seconds: float = 5.0,
    threads: int | None = None,
    device: Device | None = None,
    json: bool = False,
) -> int:
    """Time networks side by side: exported files, runs, checkpoints.

    They take turns in one process, after a warm-up, on real frames; the ratios are of processor
    time, which other work on the machine does not stretch.

    Args:
        networks: Exported files, folders of runs, checkpoints, or names of published models.
        stream: Run those that are not exported frame by frame; for online networks.
        batch: Clips or streams at once, where a file does not fix it.
        seconds: How long for each.
        threads: Of the processor; None is torch's own choice.
        device: Where networks run that are not exported; None is the processor.
        json: One line of JSON per network instead of the table.
    """
    for flag, value in (("--batch", batch), ("--threads", threads or 1)):
        if value < 1:
            raise UsageError(f"{flag} is a number from 1 on; it came as {value}")
    if not networks:
        raise UsageError("bench takes exported files or runs to time")
    import torch

    from .bench import bench as measure

    if threads is not None:
        torch.set_num_threads(threads)
    where = "cpu" if device is None else best_device(device)
    with progress_bar("seconds") as progress:
        rows = measure(
            [find_run(path) for path in networks],
            stream=stream,
            batch=batch,
            seconds=seconds,
            device=where,
            progress=progress,
        )
    if json:
        for row in rows:
            say_json(jsonlib.dumps(row.to_dict()))
        return 0
    first = rows[0]
    say(f"{first.rounds} rounds on {first.threads} threads, {first.kind}s, in milliseconds")
    heads = ("network", "at once", "median", "p95", "CPU", "per second", "faster", "memory")
    cells = [
        [
            row.path,
            str(row.batch),
            *(f"{1e3 * value:.2f}" for value in (row.median, row.p95, row.cpu)),
            f"{row.per_second:.1f}",
            f"{row.faster:.2f} x",
            "" if row.memory is None else f"{row.memory / 1e6:.0f} MB",
        ]
        for row in rows
    ]
    show_table(heads, cells, right=range(1, len(heads)))
    return 0

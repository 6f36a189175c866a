"""The commands that ask a network: `predict` about files, `stream` as a feed goes on."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from .errors import UserError
from .flags import (
    Interrupted,
    UsageError,
    check_output,
    find_trained,
    parse_views,
    reading_processes,
)
from .machine import Device
from .manner import Manner
from .terminal import live_line, say, say_json, show_prediction

if TYPE_CHECKING:
    from torch import nn

    from .connections import Raw
    from .feeds import Feed
    from .timeline import Outputs, Told
    from .watching import Tally

KINDS = {
    ".csv": "csv",
    ".json": "json",
    ".srt": "srt",
    ".png": "picture",
    ".mp4": "video",
    ".npy": "features",
}
NAMED = ("csv", "json", "srt")  # what a folder gets
UNLIKE = 0.1  # shares by which a rate may differ from what a feed says


def predict(
    run: Positional[Path],
    videos: Positional[tuple[str, ...]],
    json: bool = False,
    top: int = 5,
    views: str | None = None,
    device: Device | None = None,
    workers: int | None = None,
    verify: bool = False,
    timeline: bool = False,
) -> int:
    """The best classes of every video with their scores; folders are walked.

    Exits with 1 if a video could not be read; the others are predicted all the same.

    Args:
        run: Folder of a run, a checkpoint, an exported file, or a published model's name.
        videos: Files, folders, lists of paths (.txt, .csv), addresses and patterns.
        json: One line of JSON per video instead of a table.
        top: How many classes.
        views: Views per video, CLIPSxCROPS, such as 10x3; None is the network's own rule.
        device: Where the network runs; None is the best there is.
        workers: Processes that read videos.
        verify: First let the network pass the self-test in its file (see convert).
        timeline: What happens when, as `stream` tells it: NAME.csv, .json and .srt for each video,
            here.
    """
    clips, crops = parse_views(views)
    if top < 1:
        raise UsageError(f"--top is a number of classes, such as 5; it came as {top}")
    if timeline and (json or views is not None):
        raise UsageError("--timeline writes files of its own; it takes neither --json nor --views")
    from .exported import of_clips
    from .inputs import find_videos
    from .prediction import predictions

    model = find_trained(run, device, verify)
    if timeline:
        return _timelines(model, run, videos)
    model = of_clips(model)
    count = len(find_videos(videos)) - 1  # for one video no process is worth its start
    reading = min(count, reading_processes(workers)) if workers is None else workers
    broken = 0
    for prediction in predictions(model, videos, clips, crops, top, reading):
        broken += prediction.error is not None
        if json:
            say_json(prediction.to_json())
        else:
            show_prediction(prediction)
    return int(broken > 0)


def _timelines(model: nn.Module, run: Path, videos: Sequence[str]) -> int:
    """The timeline of each video; those that cannot be read are told and passed over."""
    from .feeds import open_feed
    from .inputs import find_videos
    from .moments import ready
    from .packets import VideoError
    from .timeline import Outputs

    broken, taken = 0, set[str]()
    net = ready(model)
    for item in find_videos(videos):
        name = item if isinstance(item, str) else item.path
        stem = Path(name).stem
        while stem in taken:  # another video of that name, in another folder
            stem += "-"
        taken.add(stem)
        outputs = Outputs(**{kind: Path(f"{stem}.{kind}") for kind in NAMED})
        _only_timelines(outputs)
        try:
            with open_feed(name, say=say) as feed:
                _watched(net, run, feed, outputs, Manner())
        except VideoError as error:
            broken += 1
            say(str(error))
    return int(broken > 0)


def _only_timelines(outputs: Outputs) -> None:
    """Files that nobody named replace those of an earlier timeline only. Raises `UserError`."""
    from .timeline import read_timeline

    there = [path for path in outputs.paths() if path.exists()]
    try:
        if there and outputs.json:
            read_timeline(outputs.json)
    except UserError:
        raise UserError(
            f"{there[0]} is there and is not of an earlier timeline; --timeline would replace it,"
            " so call it from another folder, or use `nonlocalnet stream` with -o"
        ) from None


def stream(
    run: Positional[Path],
    source: Positional[str],
    *,
    manner: Manner,
    out: Annotated[UseAppendAction[tuple[Path, ...]], arg(aliases=["-o"])] = (),
    seconds: float | None = None,
    live: bool = False,
    size: str | None = None,
    fps: float | None = None,
    pixels: Literal["rgb24", "yuv420p"] = "rgb24",
    device: Device | None = None,
    verify: bool = False,
) -> int:
    """What a network sees in a camera, an address, a pipe or a file of any length, as it goes on.

    Prints a line whenever another class is told, and to a terminal the class of the moment, how
    late answers are (p50, p95) and how many frames were dropped. Ctrl-C ends it; the files are
    whole then too.

    Args:
        run: Folder of a run, a checkpoint, an exported file, or a published model's name.
        source: A video, a folder of videos or of numbered pictures, the number of a camera, an
            address such as rtsp://camera or https://server/film.mp4, or - for standard input.
        manner: How it is watched.
        out: A file, by its ending: .csv a row per answer, .json segments, .srt subtitles, .png a
            picture of them, .mp4 the video with what is told, .npy features of each second; or a
            folder, for the first three. May be given several times.
        seconds: End after so many seconds of the feed.
        live: Play a file as a camera would, and drop what the network is too slow for.
        size: Width and height, such as 640x480: standard input has raw frames of this size.
        fps: Frames per second of raw frames or of a folder of pictures; None is 30.
        pixels: How raw frames are stored.
        device: Where the network runs; None is the best there is.
        verify: First let the network pass the self-test in its file (see convert).
    """
    outputs = _outputs(out)
    raw = _raw(size, fps, pixels)
    if seconds is not None and not seconds > 0:
        raise UsageError(f"--seconds is above 0, such as 60; it came as {seconds:g}")
    from .feeds import open_feed
    from .moments import ready

    net = ready(find_trained(run, device, verify), manner.by)  # a camera would run meanwhile
    with open_feed(source, raw, fps, say) as feed:
        tally = _watched(net, run, feed, outputs, manner, seconds, live)
    if tally.stopped and not feed.live:
        raise Interrupted(f"stopped by {tally.stopped}; the files hold what came before")
    return 0


def _watched(
    net: nn.Module,
    run: Path,
    feed: Feed,
    outputs: Outputs,
    manner: Manner,
    seconds: float | None = None,
    live: bool = False,
) -> Tally:
    """Watch a feed and print what is told."""
    from .sidecar import sidecar_path
    from .watching import tell, watch

    _keep(outputs, [run, sidecar_path(run), *feed.files])
    telling, words = tell(net, run, manner)
    for word in (feed.name, *words):
        say(word)
    before: tuple[int, ...] | None = None
    told_at = 0.0
    with live_line(seconds or feed.seconds) as line:

        def report(told: Told, tally: Tally) -> None:
            nonlocal before, told_at
            text = _line(told, telling.classes)
            if told.labels != before:
                say(text)
            if time.monotonic() - told_at >= 1:
                told_at = time.monotonic()
                line(tally.seconds, f"{text}{tally.words()}")
            before = told.labels

        limit = math.inf if seconds is None else seconds
        tally = watch(
            net, feed, telling, outputs, manner, seconds=limit, live=live, say=say, report=report
        )
    _summary(feed, tally, outputs)
    return tally


def _keep(outputs: Outputs, files: Sequence[Path]) -> None:
    """Raises `UserError` where an output would replace what it is made from."""
    for path in outputs.paths():
        if path.is_file() and any(file.is_file() and path.samefile(file) for file in files):
            raise UserError(f"{path} is what this is made from; give what is written another name")


def _line(told: Told, classes: Sequence[str]) -> str:
    from .timeline.writers import clock

    names = ", ".join(classes[label] for label in told.labels) or "none of these"
    return f"{clock(told.about, 1)}  {names}  {told.score:.2f}"


def _summary(feed: Feed, tally: Tally, outputs: Outputs) -> None:
    say(
        f"{tally.moments:,} answers in {tally.elapsed:.1f} s, about {tally.seconds:.1f} s of it:"
        f" {tally.rate:.1f} times its pace{tally.words()}"
    )
    alone = len(feed.files) < 2  # several files have rates of their own
    if alone and feed.fps and tally.fps and abs(tally.fps / feed.fps - 1) > UNLIKE:
        say(f"it gave {tally.fps:.1f} frames a second, and calls it {feed.fps:.1f}")
    for path in outputs.paths():
        if path.exists():
            say(f"written: {path}")


def _outputs(paths: Sequence[Path]) -> Outputs:
    """Which file is which, by their endings. Raises `UsageError`."""
    from .timeline import Outputs

    found: dict[str, Path] = {}
    for path in paths:
        kind = KINDS.get(path.suffix.lower())
        if path.is_dir() or not path.suffix:
            files = {kind: path / f"timeline.{kind}" for kind in NAMED}
        elif kind is None:
            raise UsageError(
                f"-o is a folder or a file ending in {', '.join(KINDS)}; it came as {str(path)!r}"
            )
        else:
            files = {kind: path}
        if twice := set(files) & set(found):
            raise UsageError(f"-o names two files for {' and '.join(sorted(twice))}")
        found |= files
    for path in found.values():
        check_output("-o", path, path.suffix.lower())
    return Outputs(**found)


def _raw(size: str | None, fps: float | None, pixels: Literal["rgb24", "yuv420p"]) -> Raw | None:
    from .connections import Raw

    if size is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})[x×]([1-9]\d{0,4})", size)
    if match is None:
        raise UsageError(f"--size is WIDTHxHEIGHT, such as 640x480; it came as {size!r}")
    return Raw(int(match[1]), int(match[2]), 30.0 if fps is None else fps, pixels)

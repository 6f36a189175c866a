"""The test: one pass over labelled videos, three view rules side by side.

"Clip accuracy" and "30-view accuracy" of one network differ by ten points and more, and papers
quote either. Here the same pass gives all of them, each with its count and interval.
"""

from __future__ import annotations

import dataclasses
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from .card import WHOLE, Card, card_of
from .datasets import Broken, ViewDataset, Views
from .errors import UserError
from .folders import some
from .labels import numbering, plain
from .metrics import Result, Rule, Skipped
from .processes import gathered, processes, rank, sharing_errors
from .samples import Sample
from .scores import Scores
from .scoring import aggregate, load, score
from .stepping import Agreement, score_frames
from .streaming import Streaming
from .transforms import centre_crop

FRAMEWISE = "Frame by frame"  # among what is told of how figures were obtained


def evaluate(
    model: nn.Module,
    samples: Sequence[Sample],
    clips: int | None = None,
    crops: int | None = None,
    *,
    groups: Mapping[str, Callable[[str], str]] | None = None,
    framewise: bool = False,
    workers: int = 0,
    progress: bool = False,
) -> Result:
    """The figures of a test of a network on labelled videos; see `score_videos`.

    groups: name -> function from class name to group name; the result then also counts how often
        the answer lies in the right group.

    Raises `UserError` where videos may have several labels: see `Scores.tags`.
    """
    if any(sample.label < 0 for sample in samples):
        raise UserError(
            "these videos may have several labels each, so no answer is the right one: take"
            " score_videos(...).tags(), which has the mean average precision"
        )
    scores = score_videos(
        model, samples, clips, crops, framewise=framewise, workers=workers, progress=progress
    )
    return scores.result(groups)


def score_videos(
    model: nn.Module,
    samples: Sequence[Sample],
    clips: int | None = None,
    crops: int | None = None,
    *,
    framewise: bool = False,
    workers: int = 0,
    progress: bool = False,
) -> Scores:
    """Score labelled videos under three view rules in one pass.

    Each video is scored with 1 clip (the centre one, centre crop), with `clips` clips x 1 centre
    crop and with `clips` x `crops` views; the last rule is the full one. Rules that coincide
    appear once, and the whole frame has no centre crop. The numbers default to the card's.

    samples: labels index the classes of the network's card (see `match_classes`).
    framewise: then once more the full rule, each view given frame by frame to `Streaming`; how far
        its logits are from the others is told in `obtained`.
    workers: reading processes. progress: a bar with the rate, on standard error.

    Under torchrun every process calls this, scores its share and gets the scores of all: a video
    is scored by itself, so the numbers are those of one process.

    Videos that cannot be read are skipped, with the reason, and counted. One video's views are in
    memory at a time, and one more per worker. Raises `UserError` if there is nothing to test, if
    no video can be read, if a label is none of the network's, or if it cannot go frame by frame.
    """
    card, stream = card_of(model), Streaming(model) if framewise else None
    clips, crops = card.views(clips, crops)
    classes = class_names(card)
    _check(samples, classes)
    centred = (Rule(1, 1), *([] if crops == WHOLE else [Rule(clips, 1)]))
    stepped = [Rule(clips, crops, framewise=True)] if framewise else []
    rules = tuple(dict.fromkeys((*centred, Rule(clips, crops), *stepped)))
    start = time.monotonic()
    mine = range(rank(), len(samples), processes())
    items = load(_TestViews([samples[i] for i in mine], card, clips, crops), workers)
    found: dict[int, _Scored | Skipped] = {}
    with _bar(len(mine), progress and not rank()) as advance, sharing_errors():
        for i, item in zip(mine, items, strict=True):
            if isinstance(item, Broken):
                found[i] = Skipped(item.path, item.reason)
            else:
                found[i] = _scores(model, stream, rules, item)
            advance()
    everything = {i: each for part in gathered(found) for i, each in part.items()}
    outcomes = [everything[i] for i in range(len(samples))]
    skipped = tuple(each for each in outcomes if isinstance(each, Skipped))
    values = [each for each in outcomes if isinstance(each, _Scored)]
    if not values:
        raise UserError(
            f"none of the {len(samples)} videos could be read; the first was {skipped[0].path}:"
            f" {skipped[0].reason}"
        )
    scored = tuple(
        sample
        for sample, each in zip(samples, outcomes, strict=True)
        if not isinstance(each, Skipped)
    )
    stacked = torch.stack([each.scores for each in values], 1)  # (rules, n, K)
    scores = Scores(classes, rules, scored, stacked, card.activation, skipped)
    told = _obtained(model, card, scores, time.monotonic() - start)
    if stream is not None:
        told[FRAMEWISE] = _apart(sum((each.agreement for each in values), Agreement()))
    return dataclasses.replace(scores, obtained=told)


def _apart(agreement: Agreement) -> str:
    apart = agreement.relative
    return f"logits differ from those of whole clips by at most {apart:.1e} of their deviation"


def class_names(card: Card) -> tuple[str, ...]:
    """The network's classes; numbered ones if its card has only their number."""
    count = len(card.classes) or int(card.architecture.get("num_classes", 0))
    if not count:
        raise UserError("the network's card has no classes: make it with num_classes or classes")
    return tuple(card.class_name(i) for i in range(count))


def match_classes(samples: Sequence[Sample], classes: Sequence[str], card: Card) -> list[Sample]:
    """The samples of a folder or list relabelled to the network's classes, by name.

    Case, quotes, brackets and underscores in a name make no difference where it stays the only one.
    Classes with numbers alone ("class 17") are matched by number. There may be fewer classes than
    the network knows. Raises `UserError` if there are others.
    """
    names = class_names(card)
    known = {f"class {i}": i for i in range(len(names))} if numbers_alone(classes) else {}
    known |= numbering(names)
    used = {label for sample in samples for label in sample.labels if label >= 0}
    numbers = {i: known.get(name, known.get(plain(name))) for i, name in enumerate(classes)}
    unknown = [name for i, name in enumerate(classes) if i in used and numbers[i] is None]
    if unknown:
        raise UserError(
            f"the network was not trained on {some(unknown, 5)}; it knows {some(names, 5)}."
            " Rename or leave out those classes, or test a network trained on them"
        )
    new = {i: number for i, number in numbers.items() if number is not None}
    return [_relabelled(sample, new) for sample in samples]


def _relabelled(sample: Sample, new: Mapping[int, int]) -> Sample:
    actions = tuple(dataclasses.replace(a, label=new[a.label]) for a in sample.actions)
    return dataclasses.replace(sample, label=new.get(sample.label, -1), actions=actions)


def numbers_alone(classes: Sequence[str]) -> bool:
    """Whether classes have no names, only numbers; some may be missing."""
    return all(re.fullmatch(r"class \d+", name) for name in classes)


class _TestViews:
    """Index -> the views of all rules: (all of them, the centre clip where they lack it)."""

    def __init__(self, samples: Sequence[Sample], card: Card, clips: int, crops: int) -> None:
        self.full = ViewDataset(samples, card, clips, crops)
        # none of several clips is the centre one, but for luck and rounding
        alone = clips == 1 and crops != WHOLE
        self.centre = None if alone else ViewDataset(samples, card, 1, 1)

    def __len__(self) -> int:
        return len(self.full)

    def __getitem__(self, index: int) -> tuple[Views, Views | None] | Broken:
        full = self.full[index]
        centre = self.centre[index] if self.centre else None
        if isinstance(full, Broken):
            return full
        return centre if isinstance(centre, Broken) else (full, centre)


class _Scored(NamedTuple):
    """One video: its scores under each rule, (rules, K), and how well stepping agrees."""

    scores: Tensor
    agreement: Agreement


def _scores(
    model: nn.Module,
    stream: Streaming | None,
    rules: Sequence[Rule],
    views: tuple[Views, Views | None],
) -> _Scored:
    full, centre = views
    card, clips, crops = card_of(model), rules[-1].clips, rules[-1].crops
    # apart from the extra view, these are the very calls `predict` makes: equal to the last bit
    logits = score(model, full.clips).unflatten(0, (clips, -1))  # (V, K) -> (clips, crops, K)
    if logits.shape[-1] != len(class_names(card)):
        raise UserError(
            f"the network gives {logits.shape[-1]} scores, but its card names"
            f" {len(class_names(card))} classes"
        )
    by_rule = {}
    middle = centre_crop(crops)
    if middle is not None:
        by_rule[Rule(clips, 1)] = logits[:, middle]
    by_rule[Rule(clips, crops)] = logits.flatten(0, 1)
    if centre is not None:
        by_rule[Rule(1, 1)] = score(model, centre.clips)
    agreement = Agreement()
    if stream is not None:
        stepped = score_frames(stream, full.clips).mean(1)  # (V, T, K) -> (V, K)
        by_rule[Rule(clips, crops, framewise=True)] = stepped
        agreement = Agreement.of(logits.flatten(0, 1), stepped)
    return _Scored(torch.stack([aggregate(by_rule[rule], card) for rule in rules]), agreement)


def _check(samples: Sequence[Sample], classes: Sequence[str]) -> None:
    if not samples:
        raise UserError("there are no videos to test; expected at least one labelled video")
    odd = next(((s, i) for s in samples for i in s.labels if i >= len(classes)), None)
    if odd is not None:
        raise UserError(
            f"{odd[0].path} has label {odd[1]}, but the network's labels are 0 to"
            f" {len(classes) - 1}: its classes are other than the network's"
        )


def _obtained(model: nn.Module, card: Card, scores: Scores, seconds: float) -> dict[str, str]:
    """How the figures came about, in words; what someone needs to get them again."""
    full, count = scores.rules[-1], len(scores.samples)
    sources = len({sample.source for sample in scores.samples})
    options = [
        f"{name} {'+'.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in card.architecture.items()
        if name != "name" and value is not None and value != ()
    ]
    parameters = list(model.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    tried = count + len(scores.skipped)
    videos = f"{count:,} of {tried:,}"
    if sources < count:
        videos += f", cut from {sources:,} recordings"
    views = f"{full.views} per video: {full.name}"
    if full.clips > 1:
        views += "; for 1 clip, the one in the centre of the video"
    packages = [f"{name} {_version(name)}" for name in ("nonlocalnet", "numpy", "av")]
    return {
        "Network": str(card.architecture.get("name", type(model).__name__)),
        "Options": ", ".join(options) or "none",
        "Parameters": f"{sum(p.numel() for p in parameters):,}",
        "Videos": videos,
        "Views": views,
        "Input": f"{card.frames} frames, {_sampling(card)}; {card.test_crop} × {card.test_crop}"
        f" pixels cut from a short side of {card.short_side}",
        "One score from many views": AGGREGATE_WORDS[card.aggregate],
        **({"Scores": "each class by its own sigmoid"} if card.activation == "sigmoid" else {}),
        "Device": f"{device.type} ({hardware}), {torch.get_num_threads()} threads"
        + (f", {processes()} processes" if processes() > 1 else ""),
        "Time": f"{seconds:,.1f} s, {tried / max(seconds, 1e-9):,.1f} videos/s",
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Versions": f"{', '.join(packages)}, torch {torch.__version__},"
        f" Python {platform.python_version()}",
    }


AGGREGATE_WORDS = {
    "softmax": "mean of the views' scores",
    "logits": "the score of the views' mean logits",
    "max": "highest score of any view",
}


WINDOW_WORDS = {
    "span": "",
    "full": " (the window ends a stride after the last)",
    "spread": ", spread to the end of the window",
}


def _sampling(card: Card) -> str:
    if card.sampling == "segments":
        return "one from each of as many equal segments"
    step = "consecutive" if card.stride == 1 else f"{card.stride} apart"
    step += WINDOW_WORDS[card.window]
    if card.rate:
        step += f", counted at {card.rate:g} frames per second"
    past = {"clamp": "the last frame is repeated", "wrap": "it starts again from the first frame"}
    return f"{step}; where the video is too short, {past[card.beyond]}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed as a package)"


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """A progress bar with the rate since the start; yields the function that moves it by one."""
    columns = (TextColumn("testing"), BarColumn(), MofNCompleteColumn())
    rate = TextColumn("{task.fields[rate]}")
    console = Console(stderr=True)
    with Progress(*columns, rate, TimeRemainingColumn(), console=console, disable=not shown) as bar:
        task = bar.add_task("", total=total, rate="")

        def advance() -> None:
            done = bar.tasks[0].completed + 1
            speed = done / max(bar.tasks[0].elapsed or 0.0, 1e-9)
            bar.update(task, advance=1, rate=f"{speed:.1f} videos/s")

        yield advance

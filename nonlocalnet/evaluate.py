"""The test: one pass over labelled videos, three view rules side by side.

"Clip accuracy" and "30-view accuracy" of one network differ by ten points and more, and papers
quote either. Here the same pass gives all of them, each with its count and interval.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from .card import Card, card_of
from .datasets import Broken, ViewDataset, Views
from .errors import UserError
from .metrics import Outcome, Result, Rule, Scored, Skipped, outcome
from .samples import Sample
from .scoring import aggregate, load, score


def evaluate(
    model: nn.Module,
    samples: Sequence[Sample],
    clips: int | None = None,
    crops: int | None = None,
    *,
    groups: Mapping[str, Callable[[str], str]] | None = None,
    workers: int = 0,
    progress: bool = False,
) -> Result:
    """Test a network on labelled videos under three view rules in one pass.

    Each video is scored with 1 clip (the centre one, centre crop), with `clips` clips x 1 centre
    crop and with `clips` x `crops` views; the last rule is the full one. Rules that coincide
    appear once. The numbers default to the card's.

    samples: labels index the classes of the network's card (see `match_classes`).
    groups: name -> function from class name to group name; the result then also counts how often
        the answer lies in the right group.
    workers: reading processes. progress: a bar with the rate, on standard error.

    Videos that cannot be read are skipped, with the reason, and counted. One video's views are in
    memory at a time, and one more per worker. Raises `UserError` if there is nothing to test, if
    no video can be read, or if a label is none of the network's.
    """
    card = card_of(model)
    clips, crops = clips or card.clips, crops or card.crops
    classes = class_names(card)
    _check(samples, classes)
    rules = tuple(dict.fromkeys((Rule(1, 1), Rule(clips, 1), Rule(clips, crops))))
    tested: list[Scored] = []
    skipped: list[Skipped] = []
    start = time.monotonic()
    items = load(_TestViews(samples, card, clips, crops), workers)
    with _bar(len(samples), progress) as advance:
        for sample, item in zip(samples, items, strict=True):
            if isinstance(item, Broken):
                skipped.append(Skipped(item.path, item.reason))
            else:
                outcomes = _outcomes(model, card, rules, item, sample.label)
                tested.append(Scored(sample.path, sample.label, sample.source, outcomes))
            advance()
    if not tested:
        raise UserError(
            f"none of the {len(samples)} videos could be read; the first was {skipped[0].path}:"
            f" {skipped[0].reason}"
        )
    result = Result(
        classes=classes,
        rules=rules,
        videos=tuple(tested),
        skipped=tuple(skipped),
        groups={name: tuple(map(of, classes)) for name, of in (groups or {}).items()},
    )
    obtained = _obtained(model, card, result, time.monotonic() - start)
    return dataclasses.replace(result, obtained=obtained)


def class_names(card: Card) -> tuple[str, ...]:
    """The network's classes; numbered ones if its card has only their number."""
    count = len(card.classes) or int(card.architecture.get("num_classes", 0))
    if not count:
        raise UserError("the network's card has no classes: make it with num_classes or classes")
    return tuple(card.class_name(i) for i in range(count))


def match_classes(samples: Sequence[Sample], classes: Sequence[str], card: Card) -> list[Sample]:
    """The samples of a folder relabelled to the network's classes, by name.

    A folder may hold fewer classes than the network knows. Raises `UserError` if it holds others.
    """
    known = {name: i for i, name in enumerate(class_names(card))}
    used = {sample.label for sample in samples}
    unknown = [name for i, name in enumerate(classes) if i in used and name not in known]
    if unknown:
        raise UserError(
            f"the network was not trained on {_list(unknown)}; it knows {_list(list(known))}."
            " Rename or remove those folders, or test a network trained on them"
        )
    return [dataclasses.replace(s, label=known[classes[s.label]]) for s in samples]


class _TestViews:
    """Index -> the views of all rules: (all of them, the centre clip where they lack it)."""

    def __init__(self, samples: Sequence[Sample], card: Card, clips: int, crops: int) -> None:
        self.full = ViewDataset(samples, card, clips, crops)
        # none of several clips is the centre one, but for luck and rounding
        self.centre = ViewDataset(samples, card, 1, 1) if clips > 1 else None

    def __len__(self) -> int:
        return len(self.full)

    def __getitem__(self, index: int) -> tuple[Views, Views | None] | Broken:
        full = self.full[index]
        centre = self.centre[index] if self.centre else None
        if isinstance(full, Broken):
            return full
        return centre if isinstance(centre, Broken) else (full, centre)


def _outcomes(
    model: nn.Module,
    card: Card,
    rules: Sequence[Rule],
    views: tuple[Views, Views | None],
    label: int,
) -> tuple[Outcome, ...]:
    full, centre = views
    clips, crops = rules[-1].clips, rules[-1].crops
    # apart from the extra view, these are the very calls `predict` makes: equal to the last bit
    logits = score(model, full.clips).unflatten(0, (clips, crops))  # (V, K) -> (clips, crops, K)
    if logits.shape[-1] != len(class_names(card)):
        raise UserError(
            f"the network gives {logits.shape[-1]} scores, but its card names"
            f" {len(class_names(card))} classes"
        )
    by_rule = {
        Rule(clips, 1): logits[:, crops // 2],
        Rule(clips, crops): logits.flatten(0, 1),
    }
    if centre is not None:
        by_rule[Rule(1, 1)] = score(model, centre.clips)
    return tuple(outcome(aggregate(by_rule[rule], card.aggregate), label) for rule in rules)


def _check(samples: Sequence[Sample], classes: Sequence[str]) -> None:
    if not samples:
        raise UserError("there are no videos to test; expected at least one labelled video")
    odd = next((s for s in samples if not 0 <= s.label < len(classes)), None)
    if odd is not None:
        raise UserError(
            f"{odd.path} has label {odd.label}, but the network's labels are 0 to"
            f" {len(classes) - 1}: its classes are other than the network's"
        )


def _obtained(model: nn.Module, card: Card, result: Result, seconds: float) -> dict[str, str]:
    """How the figures came about, in words; what someone needs to get them again."""
    full = result.rules[-1]
    options = [
        f"{name} {'+'.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in card.architecture.items()
        if name != "name" and value is not None and value != ()
    ]
    parameters = list(model.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    tried = result.count + len(result.skipped)
    videos = f"{result.count:,} of {tried:,}"
    if result.sources < result.count:
        videos += f", cut from {result.sources:,} recordings"
    views = f"{full.clips * full.crops} per video: {full.name}"
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
        "Device": f"{device.type} ({hardware}), {torch.get_num_threads()} threads",
        "Time": f"{seconds:,.1f} s, {tried / max(seconds, 1e-9):,.1f} videos/s",
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Versions": f"{', '.join(packages)}, torch {torch.__version__},"
        f" Python {platform.python_version()}",
    }


AGGREGATE_WORDS = {
    "softmax": "mean of the views' softmax",
    "logits": "softmax of the views' mean logits",
    "max": "highest softmax of any view, scaled to sum to 1",
}


def _sampling(card: Card) -> str:
    if card.sampling == "segments":
        return "one from each of as many equal segments"
    step = "consecutive" if card.stride == 1 else f"{card.stride} apart"
    past = {"clamp": "the last frame is repeated", "wrap": "it starts again from the first frame"}
    return f"{step}; where the video is too short, {past[card.beyond]}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed as a package)"


def _list(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


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

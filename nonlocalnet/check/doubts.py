"""Labels that a trained network contradicts: a hint where to look, never a verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from ..card import card_of
from ..datasets import Broken, ViewDataset
from ..errors import UserError
from ..evaluate import class_names, match_classes
from ..samples import Sample, split_of
from ..scoring import aggregate, load, score
from .remarks import Remark
from .reports import Checked

CLIPS = 3  # of a video, one crop each
SURE = 0.9  # score of the network's own answer, from which on it counts as a contradiction


def contradict(
    checked: Checked,
    model: nn.Module,
    run: Path,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Ask a network about every usable video; what it contradicts is added to `checked.doubts`.

    run: where the network was loaded from, which tells what it was trained on.

    Returns what has to be known to read them, in words. Raises `UserError` if a class is none of
    the network's, or if the data have several labels a video.
    """
    card, trained = card_of(model), _trained_on(run)
    split = checked.split
    if split.several or card.activation != "softmax":
        raise UserError("--run asks a network for the one class of a video; here are several")
    usable = [
        (number, entry.sample)
        for number, (entry, report) in enumerate(zip(checked.entries, checked, strict=True))
        if report.usable and report.found.complete and 0 <= entry.sample.label < len(split.classes)
    ]
    samples = match_classes([sample for _, sample in usable], split.classes, card)
    views = load(ViewDataset(samples, card, CLIPS, 1), workers)
    names = class_names(card)
    for done, ((number, _), sample) in enumerate(zip(usable, samples, strict=True), 1):
        seen = next(views)
        if not isinstance(seen, Broken):
            scores = aggregate(score(model, seen.clips), card)
            said = int(scores.argmax())
            if said != sample.label and float(scores[said]) >= SURE:
                checked.doubts[number] = _doubt(sample, names[said], float(scores[said]), trained)
        if progress is not None:
            progress(done, len(samples))
    return _words(samples, trained)


def _doubt(sample: Sample, said: str, sure: float, trained: set[str]) -> Remark:
    though = ", though it was trained on this label" if sample.path in trained else ""
    return Remark("contradicted", f"the network says {said} ({100 * sure:.0f} %){though}")


def _words(samples: list[Sample], trained: set[str]) -> list[str]:
    known = sum(sample.path in trained for sample in samples)
    words = [f"the network was asked about {len(samples):,} videos; it may be wrong, so look first"]
    if known:
        words.append(
            f"it was trained on {known:,} of them and may have learned their wrong labels by heart:"
            " of these, fewer are found. To find more, train with them held out"
        )
    if not trained:
        words.append(
            "nothing says what it was trained on; wrong labels that it learned are not found"
        )
    return words


def _trained_on(run: Path) -> set[str]:
    """The paths that a run was trained on; none for a network without its split."""
    split = split_of(run if run.is_dir() else run.parent)
    return {sample.path for sample in split.train} if split else set()

"""What a report shows of a network's attention: pictures of tested videos, and the explorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from .card import card_of
from .errors import UserError
from .explorer import page_of
from .files import write_text
from .footage import open_sample
from .metrics import Result, Scored
from .report import Picture
from .report.plots import percent
from .samples import Sample
from .sight import Shot, attend_shot, shoot
from .surgery import blocks
from .tags import TagResult

QUERIES = 2  # of each video, those that tell most


def exhibit(
    model: nn.Module, result: Result | TagResult, samples: Sequence[Sample], html: Path
) -> tuple[list[Picture], Path | None, list[str]]:
    """Pictures of what the network looks at, its explorer page beside `html`, and words.

    Of the videos tested, the right answer and the wrong one that the network was surest of; the
    page is of the first. A network without non-local blocks gets none of it. What cannot be drawn
    is told in words: a test does not fail for a picture.
    """
    if not blocks(model):
        return [], None, []
    try:
        from .picture import draw
    except ImportError as error:
        return [], None, [f"what the blocks look at is not drawn: {error}"]
    pictures: list[Picture] = []
    page, words = None, []
    for told, sample in _chosen(result, samples):
        try:
            shot = _shot(model, sample)
            sights = attend_shot(model, shot, count=QUERIES)
            name = sights[0].look.block
            caption = (
                f"{told} Two places of it, chosen for telling most, in the block after {name}."
            )
            pictures.append(Picture(draw(sights), caption))
        except (UserError, ValueError) as error:
            words.append(f"what the blocks look at in {sample.path} is not shown: {error}")
            continue
        if page is None:
            try:
                text = page_of(model, shot)
            except UserError as error:
                words.append(f"there is no page to point at places in: {error}")
                continue
            page = html.with_name(f"{html.stem}-attention.html")
            write_text(page, text)
    return pictures, page, words


def _shot(model: nn.Module, sample: Sample) -> Shot:
    with open_sample(sample) as footage:
        return shoot(footage, card_of(model), sample.path)


def _chosen(result: Result | TagResult, samples: Sequence[Sample]) -> list[tuple[str, Sample]]:
    """Some of the tested samples, each with what the network said of it."""
    if isinstance(result, TagResult):
        skipped = {video.path for video in result.skipped}
        there = [sample for sample in samples if sample.path not in skipped]
        return [("The first video of the test.", sample) for sample in there[:1]]
    right = [video for video in result.videos if not video.outcomes[-1].rank]
    surest = sorted(right, key=lambda video: -video.outcomes[-1].scores[0])[:1]
    found = []
    for video in (*surest, *result.worst(1)):
        of_it = [s for s in samples if (s.path, s.label) == (video.path, video.label)]
        found += [(_said(result, video), sample) for sample in of_it[:1]]
    return found


def _said(result: Result, video: Scored) -> str:
    seen, truth = video.outcomes[-1], result.classes[video.label]
    said, score = result.classes[seen.top[0]], percent(seen.scores[0])
    if seen.rank:
        return f"The surest mistake: said {said} ({score}), is {truth}."
    return f"The surest right answer: {said} ({score})."

"""The test of a trained run: which videos, under which names, and the report on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .calibration import FILE, calibrate, read_calibration
from .card import card_of
from .errors import UserError
from .evaluate import FRAMEWISE, match_classes, numbers_alone, score_videos
from .exhibits import exhibit
from .exported import is_exported, of_clips, open_network
from .files import check_place
from .listings.data import Data, as_data
from .listings.read import is_folder, read_test_data
from .metrics import Result
from .processes import rank
from .report import Run, read_log, write_report
from .samples import SPLIT, Sample, Split, split_of
from .scores import Scores
from .tags import TagResult

RECIPE, LOG = "recipe.json", "log.jsonl"  # what `train` leaves in a run


@dataclass(frozen=True)
class Exam:
    """A finished test: its figures, its report (HTML, the JSON beside it), and what was tested.

    scores: the file of every score, for `fuse`.
    """

    result: Result | TagResult
    html: Path
    json: Path
    scores: Path
    words: tuple[str, ...]


def examine(
    run: Path,
    data: Data | Path | None = None,
    clips: int | None = None,
    crops: int | None = None,
    *,
    html: Path | None = None,
    title: str = "",
    groups: Mapping[str, Callable[[str], str]] | None = None,
    framewise: bool = False,
    device: str = "cpu",
    workers: int = 0,
    progress: bool = False,
) -> Exam:
    """Test a run folder or a checkpoint on a folder of videos and write the report.

    run: a run folder made by `train`, a checkpoint or an exported file.
    data: class_name/*.mp4, with or without val/ above, or a list (see `choose`). None: the
        validation videos of the run itself.
    clips, crops: the fullest view rule; the card's where not given.
    html: where the report goes. None: report.html in the run folder. title: the report's.
    groups: see `evaluate`. framewise: frame by frame too, see `score_videos`.
    device, workers: where the network runs, and how many processes read.
    progress: a bar on standard error.

    Under torchrun every process calls this, and the first one writes.

    Raises `UserError` for no network in `run`, no videos, classes it does not know, a report that
    cannot be written.
    """
    model = of_clips(open_network(run, device))
    if framewise and is_exported(run):
        raise UserError(f"{run} was compared with its network when it was exported: test that one")
    html = html or (run if run.is_dir() else run.parent) / "report.html"
    check_place(html)
    split, words = choose(run, data)
    samples = match_classes(split.val, split.classes, card_of(model))
    if numbers_alone(split.classes) and not numbers_alone(card_of(model).classes):
        words.append(
            "the list has numbers for classes: number k is taken for the network's output k"
        )
    scores = score_videos(
        model, samples, clips, crops, framewise=framewise, workers=workers, progress=progress
    )
    if framewise:
        words.append(f"frame by frame, {scores.obtained[FRAMEWISE]}")
    result = scores.tags() if scores.several else scores.result(groups)
    kept = html.with_suffix(".npz")
    if rank():
        return Exam(result, html, html.with_suffix(".json"), kept, tuple(words))
    scores.save(kept)
    if data is None and run.is_dir():  # its own validation videos, which it did not learn from
        words += _calibrated(scores, run)
    log = run / LOG
    tested = Run(
        name=str(card_of(model).architecture["name"]),
        result=result,
        log=read_log(log) if log.is_file() else (),
        notes=_notes(run),
    )
    pictures, explorer, told = exhibit(model, result, samples, html)
    words += told
    page, figures = write_report(
        html,
        title or f"Test of {run.name}",
        [tested],
        words=words,
        pictures=pictures,
        explorer=explorer,
    )
    return Exam(result, page, figures, kept, tuple(words))


def _calibrated(scores: Scores, run: Path) -> list[str]:
    """Leave the calibration in the run, for `stream`; what it says, in words.

    One that knows videos of none of the classes knows more than these scores, and stays.
    """
    with suppress(UserError):  # none there yet
        if known := read_calibration(run / FILE).nothing:
            return [
                f"{run / FILE} was made with {known:,} videos of none of the classes and stays as"
                " it is; if the network has learned since, `nonlocalnet calibrate` it anew"
            ]
    try:
        found = calibrate(scores)
    except UserError as error:  # a network that knows nothing yet
        return [f"not calibrated: {error}"]
    found.save(run / FILE)
    return list(found.words)


def choose(run: Path, data: Data | Path | None) -> tuple[Split, list[str]]:
    """The videos to test on, as the `val` of a split, and in words why these.

    The run's own validation videos if `data` is what it was trained on; else those that `data`
    itself would validate on (data/val/, or as the list says); else all of `data`.
    """
    own = split_of(run)
    data = None if data is None else as_data(data)
    if data is None and own is None:
        raise UserError(f"{run} keeps no {SPLIT}, so nothing says which videos to test on")
    if own is not None and (data is None or is_folder(data)):
        own = _at(own, data)
        if own is not None:
            return own, [f"tested on the {len(own.val)} validation videos of {own.root}"]
    assert data is not None
    split = read_test_data(data)
    words = [f"tested on the {len(split.val):,} videos of {_where(data, split)}", *split.notes]
    if own is None:
        return split, words
    learned, held = {_key(s) for s in own.train}, {_key(s) for s in own.val}
    trained = [sample for sample in split.val if _key(sample) in learned]
    left = tuple(sample for sample in split.val if _key(sample) in held)
    if trained and left:
        words[0] = (
            f"tested on the {len(left):,} videos of {data.path} that {run} validated on, not on the"
            f" {len(trained):,} that it was trained on"
        )
        split = replace(split, val=left)
    elif trained:
        words.append(
            f"warning: {len(trained):,} of these videos were trained on; the accuracy is too good"
        )
    return split, words


def _where(data: Data, split: Split) -> str:
    if not is_folder(data):
        return data.path
    inside = Path(split.val[0].path).relative_to(split.root)
    # side/class/video
    return str(Path(data.path) / inside.parts[0] if len(inside.parts) == 3 else Path(data.path))


def _key(sample: Sample) -> tuple[str, float, float]:
    return sample.path, sample.start, sample.end


def _at(split: Split, data: Data | None) -> Split | None:
    """The same split in the folder that is given, if it is that folder, here or moved."""
    if data is None or Path(split.root) == Path(data.path).absolute():
        return split
    moved = Split.from_json(split.to_json(), data.path)
    # all of them: another folder may well hold a class/0001.mp4 too
    there = all(Path(sample.path).is_file() for sample in (*moved.train, *moved.val))
    return moved if there else None


def _notes(run: Path) -> list[str]:
    """What training derived and said, in words."""
    file = run / RECIPE
    if not file.is_file():
        return []
    return [str(word) for word in json.loads(file.read_text(encoding="utf-8")).get("words", [])]

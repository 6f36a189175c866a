"""How far scores can be believed, and from which score on: "none of these" is told below it.

Everything comes from the scores of the validation videos that `nonlocalnet test` keeps, under the
view rule with the fewest views, which is nearest to what is seen of a longer video at a time.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import UserError
from .evaluate import score_videos
from .files import write_text
from .inputs import find_videos
from .metrics import Rate
from .samples import Sample, multi_hot
from .scores import Scores

FILE = "calibration.json"  # in a run folder
KEEP = 0.95  # of the right answers on validation videos stay told
SHARPEST, SOFTEST = 0.02, 50.0  # temperatures that are tried


@dataclass(frozen=True)
class Calibration:
    """What a score has to be divided by and reach, and how that was found, in words.

    temperature: scores are softmax(logits / temperature). thresholds: the lowest score that tells
    a class; one for all classes, or one per class where several may be right at once. nothing: how
    many videos of none of the classes it was made with.
    """

    classes: tuple[str, ...]
    temperature: float
    thresholds: tuple[float, ...]
    words: tuple[str, ...]
    nothing: int = 0

    def save(self, path: Path) -> None:
        write_text(path, json.dumps(dataclasses.asdict(self), indent=1))


def read_calibration(path: Path) -> Calibration:
    """What `Calibration.save` wrote. Raises `UserError` for other files."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = Calibration(
            tuple(map(str, values["classes"])),
            float(values["temperature"]),
            tuple(map(float, values["thresholds"])),
            tuple(map(str, values["words"])),
            int(values.get("nothing", 0)),
        )
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} is no calibration; expected what `nonlocalnet calibrate` writes"
        ) from error
    usable = len(found.thresholds) in (1, len(found.classes)) and 0 < found.temperature < math.inf
    if not usable:
        raise UserError(f"{path} is damaged: its thresholds or its temperature fit no network")
    return found


def calibrate(scores: Scores, nothing: Tensor | None = None, keep: float = KEEP) -> Calibration:
    """The calibration of a network from its scores on labelled videos it did not learn from.

    nothing: scores (n, K) under the same rule of videos that show none of the classes. With them
    the threshold is where right answers and these are parted best: the most of the first
    told and the fewest of the second, in shares. Without, it lets `keep` of the right answers
    through.

    Where several classes may be right at once, each has the threshold with its best F1, and the
    temperature stays 1.

    Raises `UserError` where no video has a label, or none is answered rightly.
    """
    several = scores.activation == "sigmoid"
    known = [i for i, s in enumerate(scores.samples) if (s.seen if several else s.label >= 0)]
    if not known:
        raise UserError("none of these scores is of a labelled video, so there is nothing to learn")
    first = replace(
        scores,
        rules=scores.rules[:1],
        samples=tuple(scores.samples[i] for i in known),
        values=scores.values[:1, known].float(),
    )
    if several:
        return _by_class(first)
    labels = torch.tensor([sample.label for sample in first.samples])
    warmth = temperature(first.values[0], labels)
    cooled = replace(first, values=tempered(first.values, warmth or 1.0))
    top, answers = cooled.values[0].max(-1)
    right = answers == labels
    if not bool(right.any()):
        raise UserError("no validation video is answered rightly: this network knows no class")
    before, after = (each.result().calibration(0).error for each in (first, cooled))
    words = [_softened(warmth, right, before, after)]
    least = lowest_kept(top[right], keep)
    alarms = None if nothing is None else tempered(nothing, warmth or 1.0).amax(-1)
    if alarms is not None:
        least = best_parting(top[right], alarms)
    words.append(_told(least, top[right], "right answers are told"))
    if not bool(right.all()):
        words.append(_told(least, top[~right], "wrong ones too"))
    if alarms is not None:
        words.append(_told(least, alarms, "videos of none of the classes (false alarms)"))
    count = 0 if nothing is None else len(nothing)
    return Calibration(scores.classes, warmth or 1.0, (least,), tuple(words), count)


def _softened(warmth: float | None, right: Tensor, before: float, after: float) -> str:
    videos = len(right)
    if warmth is None:
        why = (
            f"all answers on {videos:,} validation videos are right, which does not say how sure"
            " the network may be"
            if bool(right.all())
            else f"no temperature from {SHARPEST:g} to {SOFTEST:g} fits {videos:,} videos best"
        )
        return (
            f"{why}: its scores stay as they are (expected calibration error {100 * before:.1f} %)"
        )
    return (
        f"temperature {warmth:.3g}: on {videos:,} validation videos the expected calibration error"
        f" is {100 * after:.1f} %, it was {100 * before:.1f} % (the number was fitted to them)"
    )


def score_nothing(
    model: nn.Module, paths: Sequence[str], *, workers: int = 0, progress: bool = False
) -> Tensor:
    """Scores (n, K) of videos that show none of the classes, one clip and one crop of each.

    paths: files and folders, as `find_videos` takes them. Those that cannot be read are left out;
    raises `UserError` where that are all.
    """
    files = [path for path in find_videos(paths) if isinstance(path, str)]
    samples = [Sample(path, -1, path) for path in files]
    return score_videos(model, samples, 1, 1, workers=workers, progress=progress).values[0]


def _told(least: float, scores: Tensor, what: str) -> str:
    rate = Rate(int((scores >= least).sum()), len(scores))
    low, high = rate.interval
    return (
        f"from a score of {least:.3g} on, {rate.hits:,} of {rate.count:,} {what}"
        f" ({100 * rate.value:.1f} %, interval {100 * low:.0f}-{100 * high:.0f})"
    )


def tempered(scores: Tensor, temperature: float) -> Tensor:
    """softmax(logits / temperature) from softmax(logits): p^(1/T) / sum p^(1/T). (..., K)."""
    return (_logits(scores) / temperature).softmax(-1).float()


def _logits(scores: Tensor) -> Tensor:
    # of what float32 rounded to zero, no more is known than that it is smaller than this
    return scores.double().clamp_min(torch.finfo(torch.float32).tiny).log()


def temperature(scores: Tensor, labels: Tensor) -> float | None:
    """The T > 0 with the least mean of -log softmax(log(scores) / T)[label]; None if there is none.

    Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks" (2017). The mean is
    convex in 1/T with the derivative mean(sum_k p_k z_k - z_label), whose zero is bisected for. It
    has none where all answers are right: ever sharper is ever better; nor beyond what is tried.

    scores: (n, K), each row sums to 1. labels: (n,).
    """
    z = _logits(scores)

    def slope(inverse: float) -> float:
        expected = ((z * inverse).softmax(-1) * z).sum(-1)
        return float((expected - z.gather(-1, labels[:, None])[:, 0]).mean())

    low, high = 1 / SOFTEST, 1 / SHARPEST
    if slope(high) <= 0 or slope(low) > 0:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / low


def lowest_kept(scores: Tensor, keep: float) -> float:
    """The highest threshold that at least a share `keep` of the scores (n,) reach."""
    needed = math.ceil(keep * len(scores) - 1e-9)
    return float(scores.sort(descending=True).values[max(needed, 1) - 1])


def best_parting(good: Tensor, bad: Tensor) -> float:
    """The threshold with the most good reaching it and the fewest bad, in shares; the lowest such.

    Youden's index (1950): share of good >= t, less the share of bad >= t.
    """
    marks = good.unique()  # between two of them fewer bad pass, and no good fewer
    gain = [float((good >= t).double().mean() - (bad >= t).double().mean()) for t in marks]
    return float(marks[max(range(len(gain)), key=gain.__getitem__)])


def _by_class(scores: Scores) -> Calibration:
    """A threshold per class, the one with its best F1."""
    values = scores.values[0]
    truth = torch.stack([multi_hot(s, len(scores.classes)) for s in scores.samples]).bool()
    thresholds = [best_f1(values[:, k], truth[:, k]) for k in range(len(scores.classes))]
    unseen = [name for name, t in zip(scores.classes, thresholds, strict=True) if t is None]
    words = [
        f"each class is told from the score on that has its best F1 on {len(truth):,} videos (F1"
        " and thresholds are of the same videos)"
    ]
    if unseen:
        words.append(f"{len(unseen)} classes that no video has are told from 0.5 on")
    known = tuple(0.5 if t is None else t for t in thresholds)
    return Calibration(scores.classes, 1.0, known, tuple(words))


def best_f1(scores: Tensor, truth: Tensor) -> float | None:
    """The threshold with the best 2 hits / (told + true), the highest such; None without true."""
    if not bool(truth.any()):
        return None
    ordered, order = scores.sort(descending=True, stable=True)
    hits = truth[order].cumsum(0).double()
    f1 = 2 * hits / (torch.arange(1, len(scores) + 1) + truth.sum())
    last = torch.cat((ordered[1:] != ordered[:-1], ordered.new_ones(1, dtype=torch.bool)))
    return float(ordered[torch.where(last, f1, -1.0).argmax()])


def find_unknown(
    asked: str, run: Path, classes: tuple[str, ...], several: bool
) -> tuple[Calibration | None, list[str]]:
    """What `--unknown` means for a network, and in words what it comes to.

    asked: "auto", the calibration of the run, if it has one; a file that `nonlocalnet calibrate`
    wrote; a score; or "off", which always tells a class. several: classes stand by themselves, so
    there is no best one, and it takes a threshold to tell any.

    Raises `UserError` for other words, a calibration of other classes, and no threshold where one
    is needed.
    """
    if asked == "auto":
        file = place_of(run)
    elif asked != "off" and not Path(asked).is_file():
        return _given(asked, classes)
    else:
        file = None if asked == "off" else Path(asked)
    if file is not None and file.is_file():
        found = read_calibration(file)
        if found.classes != classes:
            raise UserError(f"{file} is of a network with other classes; calibrate this one")
        return found, [f"calibration: {file}", *found.words]
    if several:
        raise UserError(
            "each class of this network is told by itself, so it takes a score from which on: give"
            " --unknown 0.5, or `nonlocalnet calibrate` it first"
        )
    if asked == "off":
        return None, []
    return None, [
        "this network has no calibration, so one of its classes is told at any score; make one with"
        " `nonlocalnet calibrate`, or give --unknown a score"
    ]


def _given(asked: str, classes: tuple[str, ...]) -> tuple[Calibration, list[str]]:
    """A threshold as it was given."""
    try:
        least = float(asked)
    except ValueError:
        raise UserError(
            "--unknown is auto, off, a score such as 0.6, or a calibration file; it came as"
            f" {asked!r}"
        ) from None
    if not 0 <= least <= 1:
        raise UserError(f"a score is 0 to 1, and so is --unknown; it came as {asked}")
    word = f"as given, a score below {least:g} is none of the classes"
    return Calibration(classes, 1.0, (least,), (word,)), [word]


def place_of(run: Path) -> Path | None:
    """Where the calibration of a run, or of its checkpoint, lies; None for what is no path."""
    if run.is_dir():
        return run / FILE
    return run.with_name(FILE) if run.is_file() else None

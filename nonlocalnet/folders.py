"""A folder of videos -> classes, labelled samples, and a split into training and validation."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import UserError
from .samples import Sample, Split
from .sources import choose_val, recordings

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "validation", "valid", "dev", "test", "testing")  # the first that is there

_VIDEO = (
    ".3gp .asf .avi .flv .h264 .h265 .hevc .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts"
    " .vob .webm .wmv"
)
_OTHER = (
    ".bmp .csv .db .docx .gif .gz .h5 .html .ini .jpeg .jpg .json .jsonl .log .md .mp3 .npy .npz"
    " .pdf .pickle .pkl .png .pt .pth .py .rar .safetensors .srt .sh .tar .txt .vtt .wav .webp"
    " .xlsx .xml .yaml .yml .zip"
)
VIDEO_SUFFIXES = frozenset(_VIDEO.split())
OTHER_SUFFIXES = frozenset(_OTHER.split())


@dataclass
class _Folder:
    """What lies directly inside a folder, hidden names left out, sorted."""

    path: Path
    folders: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def read_folder(root: str | os.PathLike[str], seed: int = 0, val_fraction: float = 0.2) -> Split:
    """The classes and videos of `root/class/*`, or of `root/train/class/*` and `root/val/class/*`.

    Any file in a class folder counts as video unless its suffix or its text says otherwise; whether
    it can be decoded shows when it is read (see `check_files`). Hidden files, and folders inside
    class folders, are left out. Without val/ (also validation/, valid/, dev/, test/) about
    `val_fraction` of each class is kept for validation, whole recordings at a time (`sources`).

    Raises `UserError` for a missing or empty folder, videos outside class folders, a single class,
    a class without usable videos, classes that differ between train and val.
    """
    if not 0 < val_fraction < 1:
        raise UserError(f"the validation share must lie between 0 and 1, got {val_fraction}")
    top = _look(root)
    notes: list[str] = []
    train_side, val_side = _sides(top, notes)
    if val_side is not None and train_side is None:
        raise UserError(f"{root} holds {val_side.path.name}/ but no train/; expected both or none")
    learn = train_side or top
    train = _videos_by_class(learn, notes)
    if len(train) < 2:
        raise UserError(
            f"{learn.path} holds one class only, {next(iter(train))!r}; telling classes apart"
            " takes two class folders at least"
        )
    classes = tuple(train)
    samples = _samples(top.path, train, classes)
    if val_side is None:
        return divide(str(top.path), classes, samples, seed, val_fraction, notes)
    val = _videos_by_class(val_side, notes)
    _same_classes(learn, classes, val_side, tuple(val))
    held = _samples(top.path, val, classes)
    notes.append(
        f"{len(samples)} videos of {len(classes)} classes to train on and {len(held)} to validate"
        f" on, as divided by {learn.path.name}/ and {val_side.path.name}/"
    )
    note_shared(samples, held, notes)
    return Split(classes, samples, held, tuple(notes), str(top.path))


def read_test_folder(root: str | os.PathLike[str]) -> Split:
    """Videos to test on, all in `val`: those of root/val/ if there is one, else all of root.

    One class is enough here. Raises `UserError` as `read_folder` does.
    """
    top = _look(root)
    notes: list[str] = []
    _, side = _sides(top, notes)
    found = _videos_by_class(side or top, notes)
    return Split(
        tuple(found), (), _samples(top.path, found, tuple(found)), tuple(notes), str(top.path)
    )


def _look(path: str | os.PathLike[str]) -> _Folder:
    folder = _Folder(Path(path).expanduser().absolute())
    _refuse_unreadable_name(str(folder.path))
    try:
        with os.scandir(folder.path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                _refuse_unreadable_name(str(folder.path / entry.name))
                path = folder.path / entry.name  # unlike an entry, it may be a link to itself
                if path.is_dir():
                    folder.folders.append(path)
                elif path.is_file() and _may_be_video(path):
                    folder.videos.append(path)
                else:
                    folder.others.append(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such folder") from None
    except NotADirectoryError:
        raise UserError(f"{path} is a file; expected a folder with one folder per class") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    return folder


def writable_name(path: str) -> str | None:
    """A path whose bytes are no UTF-8, with those bytes as backslash escapes; None if it is fine.

    Such a path can be opened, but neither written to a file nor shown on a screen.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return None


def _refuse_unreadable_name(path: str) -> None:
    escaped = writable_name(path)
    if escaped is not None:
        raise UserError(f"{escaped}: this name is not valid UTF-8; rename it")


def _may_be_video(path: Path) -> bool:
    """By suffix; a file with an unknown one may be a video unless it is empty or text."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES or suffix in OTHER_SUFFIXES:
        return suffix in VIDEO_SUFFIXES
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return True  # whoever reads it will say why it cannot be read
    try:
        start.decode()
        text = b"\0" not in start
    except UnicodeDecodeError as error:
        text = error.start > len(start) - 4  # a character cut in two by the limit
    return bool(start) and not text


def _sides(top: _Folder, notes: list[str]) -> tuple[_Folder | None, _Folder | None]:
    """train/ and val/ where they hold class folders; a class may be called "train" too."""
    names = {path.name.lower(): path for path in reversed(top.folders)}
    looked = {n: _look(names[n]) for n in (*TRAIN_NAMES, *VAL_NAMES) if n in names}
    if looked and len(looked) == len(top.folders) and not any(f.folders for f in looked.values()):
        raise UserError(
            f"{some([str(folder.path) for folder in looked.values()])}: expected one folder per"
            " class inside, found none"
        )
    train, val = (
        next((looked[n] for n in side if n in looked and looked[n].folders), None)
        for side in (TRAIN_NAMES, VAL_NAMES)
    )
    used = [side.path for side in (train, val) if side is not None]
    unused = [path.name for path in top.folders if path not in used]
    if used and unused:
        notes.append(f"not used: {some(unused)}, beside {some([p.name for p in used])}")
    return train, val


def _videos_by_class(side: _Folder, notes: list[str]) -> dict[str, list[Path]]:
    """Class name -> its files."""
    if not side.folders:
        what = "videos lie directly in it" if side.videos else "it holds no videos"
        raise UserError(f"{side.path} has no class folders, {what}; expected class_name/video.mp4")
    outside, deeper, others = list(side.videos), list[Path](), list(side.others)
    found: dict[str, list[Path]] = {}
    for path in side.folders:
        folder = _look(path)
        others += folder.others
        deeper += folder.folders
        if not any(video.stat().st_size for video in folder.videos):
            raise UserError(f"class {path.name!r} has no usable video: {path} holds {_why(folder)}")
        found[path.name] = folder.videos
    for paths, text in (
        (others, "are no videos"),
        (outside, "lie outside class folders"),
        (deeper, "are folders inside class folders"),
    ):
        if paths:
            shown = [str(path.relative_to(side.path)) for path in paths]
            notes.append(f"left out because they {text}: {some(shown)}")
    return found


def _why(folder: _Folder) -> str:
    if folder.videos:
        return f"{len(folder.videos)} empty files"
    if folder.folders:
        return f"further folders ({some([p.name for p in folder.folders])}) and no videos"
    return f"{len(folder.others)} files that are no videos" if folder.others else "nothing"


def _same_classes(
    train_side: _Folder, train: tuple[str, ...], val_side: _Folder, val: tuple[str, ...]
) -> None:
    if set(train) == set(val):
        return
    parts = [
        f"only in {side.path.name}/: {some(sorted(set(mine) - set(other)))}"
        for side, mine, other in ((train_side, train, val), (val_side, val, train))
        if set(mine) - set(other)
    ]
    raise UserError(
        f"the classes of {train_side.path} and {val_side.path} differ ({'; '.join(parts)}); rename"
        " or complete the folders so that both hold the same"
    )


def _samples(
    root: Path, found: dict[str, list[Path]], classes: tuple[str, ...]
) -> tuple[Sample, ...]:
    samples = []
    for name, paths in found.items():
        sources = recordings([path.stem for path in paths], name)
        for path, source in zip(paths, sources, strict=True):
            alone = path.relative_to(root).with_suffix("").as_posix()
            samples.append(Sample(str(path), classes.index(name), source or alone))
    return tuple(samples)


def divide(
    root: str,
    classes: tuple[str, ...],
    samples: tuple[Sample, ...],
    seed: int,
    fraction: float,
    notes: list[str],
) -> Split:
    """About `fraction` of each class for validation, whole recordings at a time (`sources`).

    Raises `UserError` where every class has one recording only.
    """
    if not 0 < fraction < 1:
        raise UserError(f"the validation share must lie between 0 and 1, got {fraction}")
    pairs = [(sample.source, label) for sample in samples for label in sample.labels]
    chosen = choose_val([a for a, _ in pairs], [b for _, b in pairs], fraction, seed)
    train = tuple(sample for sample in samples if sample.source not in chosen)
    val = tuple(sample for sample in samples if sample.source in chosen)
    if not val:
        raise UserError(
            f"{root}: every class has one recording only, so none can be kept for validation;"
            " add videos, or make train/ and val/ yourself"
        )
    recorded = len({sample.source for sample in samples})
    notes.append(
        f"{len(samples)} videos of {len(classes)} classes, cut from {recorded} recordings"
        f" by their names: {len(train)} to train on, {len(val)} from {len(chosen)} other recordings"
        f" to validate on (seed {seed})"
    )
    split = Split(classes, train, val, root=root, drawn=True)
    note_unseen(split, notes, "too few recordings to divide")
    return replace(split, notes=tuple(notes))


def note_unseen(split: Split, notes: list[str], why: str) -> None:
    """Which classes have no videos on a side."""
    for side, text in ((split.train, "to train on"), (split.val, "to validate on")):
        seen = {label for sample in side for label in sample.labels}
        missing = [name for i, name in enumerate(split.classes) if i not in seen]
        if missing:
            notes.append(f"nothing {text} for {some(missing)}: {why}")


def note_shared(train: Sequence[Sample], val: Sequence[Sample], notes: list[str]) -> None:
    """A warning where validation videos come from recordings that are also trained on."""
    in_train = {sample.source for sample in train}
    shared = Counter(sample.source for sample in val if sample.source in in_train)
    if shared:
        notes.append(
            f"warning: by their names, {shared.total()} of {len(val)} validation videos come from"
            f" recordings that are also trained on ({some(sorted(shared))}); the accuracy may be"
            " too good"
        )


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first few of them."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more

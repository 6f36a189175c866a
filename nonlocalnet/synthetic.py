"""The embedded data set, rendered to real H.264 files: **reunion**.

Two coloured discs cross a clip one after the other, in far-apart places and never in one frame.
The label is (do their colours agree?) x (do they move left or right?). Direction shows between
neighbouring frames; agreement only in relating two far positions of space-time.

Why the loss of a network whose logits are a sum over frames, z(x) = sum_t f(x_t), is no lower than
chance, so that training leaves it there (a hand-made one may still answer some clips right). A clip
moving left is a clip moving right with its frames in reverse order, the two discs are drawn from
one law, and the colour of each is uniform whether they agree or not. So the law of a frame picked
at random is the same in all four classes, and with it the mean of z: E[z | y] = m for every y.
Cross-entropy lse(z) - z_y is convex in z, hence by Jensen

    E[lse(z) - z_y] = mean_y E[lse(z) - z_y | y] >= mean_y (lse(m) - m_y) >= log 4 ,

which is chance. The same holds for each of the two questions alone, with log 2; and "agree or
not" stays there for sums over windows of up to gap + 1 frames, none of which sees both discs.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import UserError
from .video import write_video

CLASSES = ("different_left", "different_right", "same_left", "same_right")
SPLITS = ("train", "val", "test")
FPS = 8
RECORD = "reunion.json"  # beside train/ and val/: the parameters the files were made with
VERSION = 2  # raised when the same parameters would give other pixels

# RGB on the scale 0..1; told apart by hue, because brightness varies from disc to disc
PALETTE = (
    (0.95, 0.15, 0.15),  # red
    (0.15, 0.75, 0.20),  # green
    (0.20, 0.35, 1.00),  # blue
    (0.95, 0.90, 0.15),  # yellow
    (0.90, 0.20, 0.90),  # magenta
    (0.15, 0.85, 0.90),  # cyan
    (1.00, 0.55, 0.10),  # orange
    (0.95, 0.95, 0.95),  # white
)


@dataclass(frozen=True)
class Reunion:
    """How hard the data set is; the defaults are learned in about a minute by tiny networks.

    Raises `UserError` for a combination that cannot be drawn.
    """

    frames: int = 8
    size: int = 32  # height and width in pixels
    gap: int = 2  # frames of plain background between the two discs
    colours: int = 4
    distractors: int = 0  # coloured squares that drift through the whole clip
    speed: float = 2.5  # pixels per frame, drawn within 20 % of this
    noise: float = 0.03  # largest change of a pixel from frame to frame, on the scale 0..1

    @property
    def visible(self) -> int:
        """Frames that show one disc."""
        return (self.frames - self.gap) // 2

    @property
    def radius(self) -> tuple[float, float]:
        """Smallest and largest radius of a disc, pixels."""
        return 0.11 * self.size, 0.14 * self.size

    @property
    def reach(self) -> float:
        """Furthest edge of a disc from the midpoint of its path, along the path, pixels."""
        return self.radius[1] + 1 + 1.2 * self.speed * (self.visible - 1) / 2

    def __post_init__(self) -> None:
        for broken, sentence in (
            (self.size < 16 or self.size % 2, f"size {self.size} must be even and at least 16"),
            (self.gap < 2, f"gap {self.gap} must be at least 2, or a window of 3 sees both discs"),
            ((self.frames - self.gap) % 2, "frames - gap must be even: both discs last alike long"),
            (self.visible < 2, f"{self.frames} frames with a gap of {self.gap} leave a disc"
             f" {max(self.visible, 0)} frames; it needs 2 to show a direction"),
            (not 2 <= self.colours <= len(PALETTE),
             f"colours {self.colours} must lie in 2..{len(PALETTE)}"),
            (self.distractors < 0, f"distractors {self.distractors} must not be negative"),
            (not 0 <= self.noise <= 0.2, f"noise {self.noise} must lie in 0..0.2"),
            (self.speed < 0.25, f"speed {self.speed} must be at least 0.25 pixels per frame"),
            (2 * self.reach > self.size - 1,
             f"at {self.speed} pixels per frame a disc leaves the {self.size} pixels of the frame"
             f" within its {self.visible} frames; lower speed or frames, or raise size"),
        ):  # fmt: skip
            if broken:
                raise UserError(f"reunion cannot be drawn like this: {sentence}")


LEVELS = {
    "easy": Reunion(),
    "medium": Reunion(frames=16, gap=4, colours=6, distractors=1, speed=2.0, size=48),
    "hard": Reunion(frames=32, gap=12, colours=8, distractors=3, speed=2.5, size=64),
}


@dataclass(frozen=True)
class Clip:
    """One clip and the truth about it."""

    frames: Tensor  # (T, H, W, 3) uint8 RGB
    label: int  # index into CLASSES
    centres: Tensor  # (2, T, 2): x, y of the first and second disc in pixels, NaN where unseen
    colours: tuple[int, int]  # of the first and second disc, indices into PALETTE


def draw_clip(level: Reunion, seed: int, split: str, index: int) -> Clip:
    """Clip number `index` of a split; the same arguments give the same pixels.

    Labels take turns and so do the colours within a label: counts over a split differ by one at
    most. Everything else is drawn from a generator keyed by (seed, split, index).
    """
    key = np.random.SeedSequence((seed, SPLITS.index(split), index)).generate_state(1)
    label, turn = index % len(CLASSES), index // len(CLASSES)
    return _draw(level, label, turn, torch.Generator().manual_seed(int(key[0])))


def _draw(level: Reunion, label: int, turn: int, generator: torch.Generator) -> Clip:
    same, right = divmod(label, 2)
    first = turn % level.colours
    step = 0 if same else 1 + turn // level.colours % (level.colours - 1)
    colours = (first, (first + step) % level.colours)

    canvas = _background(level, generator)  # (T, H, W, 3)
    for _ in range(level.distractors):
        _paint_distractor(canvas, level, generator)
    centres = _paths(level, generator)  # (2, T, 2)
    for colour, path in zip(colours, centres, strict=True):
        radius = _uniform(generator, *level.radius)
        _paint(canvas, path, radius, _shade(colour, generator), square=False)
    canvas += level.noise * (2 * torch.rand(canvas.shape, generator=generator) - 1)
    frames = (canvas.clamp(0, 1) * 255).round().to(torch.uint8)
    if not right:  # drawn moving right; reversing time turns the motion and nothing else
        frames, centres, colours = frames.flip(0), centres.flip(0, 1), colours[::-1]
    return Clip(frames, label, centres, colours)


def _paths(level: Reunion, generator: torch.Generator) -> Tensor:
    """Centres (2, T, 2) of the two discs moving right, one in each half of the height.

    What is drawn is the midpoint of a path, so that reversal keeps the law of its places.
    """
    upper = int(torch.randint(2, (), generator=generator))  # which disc has the upper half
    edge, centres = level.radius[1] + 1, torch.full((2, level.frames, 2), torch.nan)
    steps = torch.arange(level.visible) - (level.visible - 1) / 2
    speed = level.speed * _uniform(generator, 0.8, 1.2)
    for disc, start in enumerate((0, level.visible + level.gap)):
        x = _uniform(generator, level.reach, level.size - 1 - level.reach)
        y = _uniform(generator, edge, 0.35 * level.size)
        span = slice(start, start + level.visible)
        centres[disc, span, 0] = x + speed * steps
        centres[disc, span, 1] = y if disc == upper else level.size - 1 - y
    return centres


def _background(level: Reunion, generator: torch.Generator) -> Tensor:
    """A dim grey slope (T, H, W, 3), different in each clip and still in time."""
    axis = torch.linspace(-1, 1, level.size)
    down, across = (_uniform(generator, -0.06, 0.06) for _ in range(2))
    grey = _uniform(generator, 0.20, 0.40) + down * axis[:, None] + across * axis[None, :]
    return grey[None, :, :, None].repeat(level.frames, 1, 1, 3)


def _paint_distractor(canvas: Tensor, level: Reunion, generator: torch.Generator) -> None:
    """A square of any colour drifting either way, so that reversal keeps its law."""
    half = _uniform(generator, 0.05, 0.08) * level.size
    middle = torch.rand(2, generator=generator) * (level.size - 1)
    drift = (torch.rand(2, generator=generator) - 0.5) * 0.5 * level.size
    when = torch.linspace(-0.5, 0.5, level.frames)[:, None]
    colour = int(torch.randint(level.colours, (), generator=generator))
    _paint(canvas, middle + when * drift, half, _shade(colour, generator), square=True)


def _paint(canvas: Tensor, path: Tensor, radius: float, colour: Tensor, square: bool) -> None:
    """Blend a shape with soft edges into canvas (T, H, W, 3); path (T, 2), NaN where unseen."""
    axis = torch.arange(canvas.shape[1], dtype=torch.float32)
    across = (axis[None, None, :] - path[:, 0, None, None]).abs()  # (T, 1, W)
    down = (axis[None, :, None] - path[:, 1, None, None]).abs()  # (T, H, 1)
    away = torch.maximum(across, down) if square else (across**2 + down**2).sqrt()  # (T, H, W)
    cover = (radius + 0.5 - away).clamp(0, 1).nan_to_num(0)
    canvas += cover[..., None] * (colour - canvas)


def _shade(colour: int, generator: torch.Generator) -> Tensor:
    return torch.tensor(PALETTE[colour]) * _uniform(generator, 0.85, 1.0)


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def render_reunion(
    folder: str | os.PathLike[str],
    train: int = 2000,
    val: int = 500,
    level: Reunion | None = None,
    seed: int = 0,
    test: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render folder/{train,val,test}/{class}/{index}.mp4 and return the folder.

    train, val, test: how many clips of each; no test/ by default.

    What an interrupted rendering left is completed; a
    finished one is reused. One process: 3 ms a clip leave nothing that more of them would gain.
    progress(done, total) is called once at the start and after every clip.

    Raises `UserError` if the folder holds something else, was made with other parameters, or
    cannot be written.
    """
    level, root = level or Reunion(), Path(folder)
    if min(train, val) < len(CLASSES) or seed < 0:
        raise UserError(
            f"reunion needs at least {len(CLASSES)} clips in train and in val and a seed of 0 or"
            f" more; got {train}, {val} and seed {seed}"
        )
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    wanted = {"version": VERSION, "seed": seed, **counts}
    _claim(root, wanted | dataclasses.asdict(level))
    keys = [(split, i) for split, count in counts.items() for i in range(count)]
    there = set(root.glob("*/*/*.mp4"))
    todo = [key for key in keys if clip_path(root, *key) not in there]
    for done, key in enumerate(todo, len(keys) - len(todo)):
        if progress is not None:
            progress(done, len(keys))
        write_clip(clip_path(root, *key), draw_clip(level, seed, *key).frames)
    if progress is not None:
        progress(len(keys), len(keys))
    return root


def write_clip(path: Path, frames: Tensor) -> None:
    """Frames (T, H, W, 3) uint8 as H.264, reversed in time if and only if the frames are.

    That takes a constant quantiser: x264's constant quality (crf) changes it along the clip even
    between key frames, and 100 of 100 clips gave away which frame had been coded first.
    """
    write_video(path, frames, FPS, gop=1, qp=8)


def clip_path(root: Path, split: str, index: int) -> Path:
    """Where clip number `index` of a split lies."""
    return root / split / CLASSES[index % len(CLASSES)] / f"{index:05d}.mp4"


def _claim(root: Path, wanted: dict[str, Any]) -> None:
    """Make the record and the folders, or compare with the record that is there."""
    record = root / RECORD
    if record.exists():
        _compare(record, wanted)
    elif root.exists() and not (root.is_dir() and all(p.name[0] == "." for p in root.iterdir())):
        raise UserError(f"{root} is not an empty folder and holds no {RECORD}; choose another")
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = root / f".{RECORD}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        temporary.replace(record)  # before any clip: what an interruption leaves is recognised
        for split in filter(wanted.get, SPLITS):
            for name in CLASSES:
                (root / split / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{root} cannot be written: {error.strerror or error}") from error


def _compare(record: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        names = sorted(found | wanted)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{record} cannot be read ({error}); render into a new folder") from error
    other = [
        f"{n} {found.get(n)}, not {wanted.get(n)}" for n in names if found.get(n) != wanted.get(n)
    ]
    if other:
        raise UserError(
            f"{record.parent} holds reunion made with other parameters ({'; '.join(other)});"
            " choose another folder or remove this one"
        )

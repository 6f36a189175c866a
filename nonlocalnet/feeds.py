"""Frames in, one after another: from files of any length, folders, cameras, addresses, pipes."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from inspect import GEN_RUNNING, getgeneratorstate
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .connections import NETWORK, PIPED, Raw, camera, network, piped, public
from .datasets import Broken
from .errors import UserError
from .footage import read_picture
from .forward import Forward, Shown
from .inputs import find_videos
from .opening import VideoFile
from .packets import VideoError

PICTURES = re.compile(r"(.*?)(\d+)\.(?:jpe?g|png|webp|bmp)", re.IGNORECASE)
PICTURES_PER_SECOND = 30.0  # as `footage.Pictures`, where nobody says
UNRANGED = (
    "no frame can be decoded; of an mp4 whose index stands last, a server has to give ranges, so"
    " fetch the file first and name that"
)
PATIENCE = 30.0  # seconds for which a lost connection is tried again

Say = Callable[[str], None]


@dataclass(frozen=True)
class Frame:
    """A picture of a feed: (H, W, 3) uint8 RGB, upright.

    number: how many frames the feed gave before it, those that were not taken too. seconds: since
    the first one. cut: why it does not follow the frame before it, in words, such as a lost
    connection or the next file; empty where it does. taken: whether it is one of those that the
    network shall see, or there to be shown only.
    """

    number: int
    seconds: float
    picture: NDArray[np.uint8]
    cut: str = ""
    taken: bool = True


class Source(Protocol):
    """What pictures come from; iterated once."""

    fps: float | None
    frames: int | None
    seconds: float | None
    live: bool
    damaged: int

    def __iter__(self) -> Iterator[Shown]: ...
    def close(self) -> None: ...


class Feed:
    """Frames in order, each once, whatever they come from; a context manager.

    name: what to call it; files: what it is read from, where these are files here. Nominal rate
    `fps`, number of `frames` and length in `seconds` are None where unknown. `live`: frames come as
    time passes, and do not wait. `damaged` counts pictures and packets found damaged so far,
    which are passed over or patched up by the decoder.

    Reading raises `VideoError`, in one sentence with the name.
    """

    def __init__(self, name: str, source: Source, files: Sequence[str | Path] = ()) -> None:
        self.name, self.files, self._source = name, tuple(map(Path, files)), source
        self.live, self.frames, self.seconds = source.live, source.frames, source.seconds
        self._taking: Generator[Frame, None, None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing can be read afterwards."""
        if self._taking is None or getgeneratorstate(self._taking) != GEN_RUNNING:
            self._source.close()
        # else a thread waits in the decoder, for a camera perhaps that gives nothing any more

    @property
    def fps(self) -> float | None:
        return self._source.fps  # of a folder, that of the file being read

    @property
    def damaged(self) -> int:
        return self._source.damaged

    def __iter__(self) -> Iterator[Frame]:
        return self.take()

    def take(
        self,
        step: Callable[[float | None], float] = lambda _: 1.0,
        phase: float = 0.0,
        show: bool = False,
    ) -> Iterator[Frame]:
        """Some of the frames: those numbered floor((i + phase) * step), counted from each cut.

        step: from frames per second (None where unknown) to how many frames the taken ones are
        apart. show: give the others too. Only what is given becomes RGB.
        """
        self._taking = self._take(step, phase, show)
        return self._taking

    def _take(
        self, step: Callable[[float | None], float], phase: float, show: bool
    ) -> Generator[Frame, None, None]:
        first, count, cut = 0, 0, ""
        for number, shown in enumerate(self._source):
            if shown.cut:
                first, count, cut = number, 0, shown.cut
            # a tiny number, so that 31 * (63 / 31) is 63
            taken = number - first >= math.floor((count + phase) * step(self.fps) + 1e-9)
            count += taken
            if taken or show:
                yield Frame(number, shown.seconds, shown.rgb(), cut if taken else "", taken)
            if taken:
                cut = ""


def open_feed(
    address: str, raw: Raw | None = None, fps: float | None = None, say: Say = lambda _: None
) -> Feed:
    """A feed from what a user names.

    address: a video file, also at an s3:// address and the like; a folder, list or pattern of them,
        one after another; a folder of numbered pictures; the number of a camera; an address of
        `connections.NETWORK`, such as rtsp://; or - for standard input.
    raw: how standard input has frames without a container.
    fps: pictures per second of a folder of them.
    say: is told what happens on the way, in words: a connection lost, a file that is broken.

    Raises `UserError`, mostly `VideoError`, for what cannot be opened.
    """
    if raw is not None and address != "-":
        raise UserError(f"only standard input, -, has raw frames; {public(address)} is none")
    if address == "-":
        name = "standard input"
        return Feed(name, Forward(name, partial(piped, sys.stdin, raw), nothing=PIPED))
    lasting = partial(Forward, patience=PATIENCE, say=say)
    if re.fullmatch(r"\d{1,3}", address):
        name = f"camera {address}"
        return Feed(name, lasting(name, partial(camera, int(address)), live=True, endless=True))
    scheme = address.partition("://")[0].lower()
    if scheme in NETWORK and "*" not in address:
        name, endless = public(address), not scheme.startswith("http")
        # a file behind an address has a length, a camera has none
        opened = partial(network, address)
        return Feed(name, lasting(name, opened, live=None, endless=endless, nothing=UNRANGED))
    if Path(address).is_dir() and (names := _numbered(Path(address))):
        return Feed(address, Album(names, fps or PICTURES_PER_SECOND), names)
    found = find_videos(address)
    if len(found) > 1:
        files = [item.path if isinstance(item, Broken) else item for item in found]
        return Feed(address, Chain(address, found, say), [address, *files])
    if isinstance(found[0], Broken):
        raise VideoError(found[0].path, found[0].reason)
    return Feed(found[0], _file(found[0]), [address, found[0]])


def _file(path: str) -> Forward:
    file = VideoFile(path)
    try:
        return Forward(path, file.open, file.size, release=file.close)
    except BaseException:
        file.close()
        raise


def _numbered(folder: Path) -> list[Path]:
    """The numbered pictures of a folder that has no videos, in the order of their numbers."""
    matches = [(PICTURES.fullmatch(path.name), path) for path in folder.iterdir()]
    numbered = [(m[1], int(m[2]), path) for m, path in matches if m and not m[1].startswith("._")]
    return [path for _, _, path in sorted(numbered)]


class Album:
    """Pictures as a video; those that cannot be read are counted and passed over."""

    live = False

    def __init__(self, paths: Sequence[Path], fps: float) -> None:
        self.paths, self.damaged = paths, 0
        self.fps: float | None = fps
        self.frames: int | None = len(paths)
        self.seconds: float | None = len(paths) / fps

    def __iter__(self) -> Iterator[Shown]:
        assert self.fps is not None
        for number, path in enumerate(self.paths):
            try:
                picture = read_picture(str(path))
            except (VideoError, FileNotFoundError):
                self.damaged += 1
                continue
            yield Shown(number / self.fps, partial(_same, picture))

    def close(self) -> None:
        """Nothing is left open."""


def _same(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return picture


class Chain:
    """Video files one after another; the first picture of each is a cut.

    Those that cannot be read are told and passed over; with none at all it is an error.
    """

    live = False
    frames: int | None = None
    seconds: float | None = None

    def __init__(self, name: str, found: Sequence[str | Broken], say: Say) -> None:
        self.name, self.found, self._say = name, found, say
        self.damaged = 0
        self.fps: float | None = next(iter(self._rates()), None)

    def _rates(self) -> Iterator[float | None]:
        for item in self.found:
            with suppress(VideoError), closing(self._opened(item)) as forward:
                yield forward.fps

    def __iter__(self) -> Iterator[Shown]:
        end, gap, any_yet = 0.0, 0.0, False  # of what was shown, and between its pictures
        for item in self.found:
            cut, start = f"{item} begins" if any_yet else "", end + gap
            for shown in self._pictures(item):
                gap, end = start + shown.seconds - end, start + shown.seconds
                yield Shown(end, shown.rgb, cut or shown.cut)
                cut, any_yet = "", True
        if not any_yet:
            raise VideoError(self.name, "none of its videos can be read")

    def _pictures(self, item: str | Broken) -> Iterator[Shown]:
        try:
            with closing(self._opened(item)) as forward:
                before, self.fps = self.damaged, forward.fps
                for shown in forward:
                    self.damaged = before + forward.damaged
                    yield shown
        except VideoError as error:
            self._say(f"{error}; passed over")

    def _opened(self, item: str | Broken) -> Forward:
        if isinstance(item, Broken):
            raise VideoError(item.path, item.reason)
        return _file(item)

    def close(self) -> None:
        """A file is open only while it is read."""

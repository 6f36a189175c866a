"""Videos from strangers: where they lie, how many and how large they may be, and that they go."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from ..errors import UserError
from ..folders import VIDEO_SUFFIXES
from ..packets import VideoError, file_size, open_video
from ..video import Video, VideoInfo
from .limits import Limits

FASTEST = 240  # frames a second of the fastest cameras of phones
LETTERS = 60  # of a name: few enough for every file system
LONGEST = 3600.0  # seconds of an answer; only one whose end was never told lasts longer


class FullError(UserError):
    """There is no room now; later there will be."""


@dataclass
class Desk:
    """A folder for videos that wait for their answer, each under a token that nobody can guess.

    Every video belongs to one caller: `take` gives it out once and removes it afterwards, whatever
    happens. What is never asked for is removed by `sweep`.
    """

    folder: Path
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    _since: dict[str, float] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def place(self, name: str) -> Iterator[tuple[str, Path]]:
        """A token, and a file to write a video to; the file goes if the context fails.

        name: what its owner calls it; the file's name is as near to that as is safe.

        Raises `FullError` where as many as may wait are here.
        """
        self.sweep()
        with self._lock:
            if len(self._since) >= self.limits.waiting:
                raise FullError(
                    f"{len(self._since)} videos are waiting for their answer already; try again in"
                    " a minute"
                )
            token = secrets.token_hex(16)
            self._since[token] = self.clock()
        try:
            (self.folder / token).mkdir()
            yield token, self.folder / token / safe_name(name)
        except BaseException:
            self.drop(token)
            raise

    @contextmanager
    def take(self, token: str) -> Iterator[Path]:
        """The file of that token, once; it is removed when the context ends.

        Raises `UserError` where there is none.
        """
        with self._lock:
            now = self.clock()
            there = self._since.get(token, now + 1) <= now
            if there:  # no sweep takes it soon, and nobody else
                self._since[token] = now + LONGEST
        if not there:
            raise UserError("this video is no longer here; choose it again")
        try:
            yield next((self.folder / token).iterdir())
        finally:
            self.drop(token)

    def drop(self, token: str) -> None:
        """Remove a video."""
        shutil.rmtree(self.folder / token, ignore_errors=True)
        with self._lock:
            self._since.pop(token, None)

    def clear(self) -> None:
        """Remove every video."""
        for token in list(self._since):
            self.drop(token)

    def sweep(self) -> None:
        """Remove what has lain here for longer than `limits.patience`."""
        now = self.clock()
        with self._lock:
            old = [t for t, since in self._since.items() if now - since > self.limits.patience]
        for token in old:
            self.drop(token)


def safe_name(name: str) -> str:
    """A name for a file here: letters, digits and the like, and an ending only if it is a video's.

    What ends otherwise could be taken for something else than a video, such as a list of paths.
    """
    stem, ending = Path(name).stem, Path(name).suffix.lower()
    kept = re.sub(r"[^\w .()-]", "_", stem)[:LETTERS].strip(" .") or "video"
    return kept + (ending if ending in VIDEO_SUFFIXES else "")


def glance(path: Path, limits: Limits) -> None:
    """What the file's header says, held against the limits; nothing is decoded.

    Raises `UserError` with a sentence that does not name the file.
    """
    try:
        check_size(file_size(str(path)), limits)
        container, stream = open_video(str(path))
        with container:
            context = stream.codec_context
            check_picture(context.width, context.height, limits)
            if container.duration is not None:
                _check_length(container.duration / 1e6, limits)
    except VideoError as error:
        raise UserError(sentence(error)) from error


def inspect(path: Path, limits: Limits) -> VideoInfo:
    """What the video is, by its content: it is opened and its first frame decoded.

    Raises `UserError` as `glance` does.
    """
    glance(path, limits)
    try:
        with Video(path) as video:
            info = video.info
    except VideoError as error:
        raise UserError(sentence(error)) from error
    check_picture(info.width, info.height, limits)
    _check_length(info.duration, limits)
    most = int(limits.seconds * FASTEST)
    if info.frames > most:
        raise UserError(f"this video has {info.frames:,} frames, and {most:,} are the most here")
    return info


def check_size(size: int, limits: Limits) -> None:
    """Raises `UserError` for a file of more bytes than may be."""
    if size > limits.bytes:
        raise UserError(
            f"this video has {size / 1e6:.1f} MB, and {limits.megabytes:g} MB are the most here;"
            " send a shorter or a smaller one"
        )


def check_picture(width: int, height: int, limits: Limits) -> None:
    """Raises `UserError` for a picture of more pixels than may be."""
    if width * height > limits.megapixels * 1e6:
        raise UserError(
            f"its pictures are {width} x {height}, and {limits.megapixels:g} million pixels are the"
            " most here; send a smaller one"
        )


def _check_length(seconds: float, limits: Limits) -> None:
    # what is at the limit by its container may be some frames over it by its pictures
    if seconds > 1.01 * limits.seconds:
        raise UserError(
            f"this video lasts {seconds:.0f} s, and {limits.seconds:g} s are the most here; cut it,"
            " or use `nonlocalnet stream`, which takes any length"
        )


def sentence(error: VideoError) -> str:
    """Why a video cannot be used, without the name it has here."""
    subject = "this file" if error.reason.split()[0] in ("is", "has", "cannot") else "this file:"
    return f"{subject} {error.reason}"

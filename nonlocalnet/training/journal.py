"""What a run says of itself: log.jsonl, TensorBoard, the progress bar, and plain sentences."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import UserError
from ..files import write_text

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise ImportError(
        'training writes TensorBoard logs, which need an extra: pip install "nonlocalnet[train]"'
    ) from error

LOG = "log.jsonl"
SOON = 10.0  # seconds of training after which the rates are told


def read_log(folder: Path, up_to: int | None = None) -> list[dict[str, Any]]:
    """The lines of a run's log up to a step; a last line that was cut off is left out."""
    lines = []
    if (folder / LOG).exists():
        for text in (folder / LOG).read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break
            if up_to is None or line["step"] <= up_to:
                lines.append(line)
    return lines


class Rates:
    """How many clips a second the readers could do, and the network: the slower one decides."""

    def __init__(self, readers: int) -> None:
        self.readers = max(1, readers)
        self.clips = 0
        self.reading = 0.0  # seconds of all reading processes together
        self.waiting = 0.0
        self.working = 0.0

    def add(self, clips: int, reading: float, waiting: float, working: float) -> None:
        """One batch: clips in it, and the seconds spent reading, waiting and computing."""
        # the first wait is for the reading processes to start
        self.waiting += waiting if self.clips else 0.0
        self.clips += clips
        self.reading += reading
        self.working += working

    def now(self) -> float:
        """Clips per second as it is, waiting included."""
        return self.clips / max(self.waiting + self.working, 1e-9)

    def words(self) -> str:
        """Both rates and the bottleneck, in a sentence."""
        loader = self.clips * self.readers / max(self.reading, 1e-9)
        model = self.clips / max(self.working, 1e-9)
        text = f"reading {_rate(loader)} clips/s, network {_rate(model)} clips/s: "
        if loader < model:
            return text + (
                "reading is the bottleneck; more --workers, or smaller videos (a short side of"
                " 320 pixels is enough), would help"
            )
        return text + "the network is the bottleneck"


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


class Journal:
    """Writes for one process of a run; a silent one (`folder` None) does nothing.

    On entering, lines and scalars beyond `step` are removed, so that a resumed run has one curve.
    """

    def __init__(self, folder: Path | None, step: int, steps: int, console: Console) -> None:
        self.folder, self.step, self.steps, self.console = folder, step, steps, console
        self.told = False
        self.note = ""

    def __enter__(self) -> Journal:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=self.folder is None or not self.console.is_terminal,
        )
        self.task = self.progress.add_task("training", total=self.steps, note="")
        self.progress.update(self.task, completed=self.step)
        self.started = time.monotonic()
        if self.folder is not None:
            kept = read_log(self.folder, self.step)
            write_text(self.folder / LOG, "".join(json.dumps(line) + "\n" for line in kept))
            self.log = (self.folder / LOG).open("a", encoding="utf-8")
            self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step + 1)
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()
        if self.folder is not None:
            with suppress(OSError):  # a full disk has been told already
                self.log.close()
            with suppress(OSError):
                self.board.close()

    def say(self, text: str) -> None:
        """One sentence on the screen."""
        if self.folder is not None:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def write(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """One line of the log, and its scalars; it is on disk when this returns."""
        if self.folder is None:
            return
        try:
            self.log.write(json.dumps({"step": step, "epoch": epoch, **values}) + "\n")
            self.log.flush()
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
        except OSError as error:
            raise UserError(
                f"cannot write the log in {self.folder}: {error.strerror}; make room, then go on"
                " with --resume"
            ) from error

    def advance(self, step: int, epoch: int, epochs: int) -> None:
        """Move the progress bar."""
        description = f"epoch {epoch + 1} of {epochs}"
        self.progress.update(self.task, completed=step, description=description, note=self.note)

    def rates(self, rates: Rates, now: bool = False) -> None:
        """Tell the rates once: after some seconds of training, or `now`."""
        if not self.told and rates.clips and (now or time.monotonic() - self.started > SOON):
            self.told = True
            self.say(rates.words())

"""Which labelled videos are meant: what a command line or a script says, nothing looked at yet."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Literal

# formats by name, in words; `formats.FORMATS` has the functions
WORDS = {
    "folders": "class folders",
    "csv": "a list of our own (CSV)",
    "jsonl": "a list of our own (JSON lines)",
    "paths": "lines of path and label (PySlowFast, MMAction2)",
    "frames": "lines of folder, number of pictures and label (TSM, MMAction2)",
    "kinetics": "Kinetics' CSV",
    "kinetics-json": "Kinetics' JSON",
    "something-csv": "lines id;class (Something-Something v1, Jester)",
    "something-json": "Something-Something v2's JSON",
    "charades": "Charades' CSV",
    "charades-frames": "a frame list of Charades (PySlowFast)",
    "ucf101": "UCF101's lists",
    "hmdb51": "HMDB51's lists",
}

if TYPE_CHECKING:
    FormatName = str
else:  # a new one becomes a choice without being named twice
    FormatName = Literal[tuple(WORDS)]


@dataclass(frozen=True)
class Data:
    """Labelled videos: a folder of class folders, or a list of videos in one of many formats."""

    path: str
    """A folder of class_name/*.mp4, or a list (see docs/data.md), local or at an address."""
    val: str | None = None
    """The list of the videos to validate or test on; None divides by what DATA says, or itself."""
    root: str | None = None
    """The folder that a list's paths start in; None is the list's own."""
    format: FormatName | None = None
    """The format of the list; None is found out by what stands in it."""
    classes: str | None = None
    """Names of the classes: a file, or kinetics400, sthv1, sthv2, jester; None is what is found."""
    template: str | None = None
    """How numbered pictures are named, such as img_{:05d}.jpg; None is seen in the folders."""
    rate: float | None = None
    """Numbered pictures per second; None is the data set's, or 30."""
    part: Literal[1, 2, 3] = 1
    """Which division of UCF101 or HMDB51."""


def as_data(data: Data | str | PathLike[str]) -> Data:
    """A path alone is one too."""
    return data if isinstance(data, Data) else Data(fspath(data))

"""What is said of a file or a class: how grave it is, and the words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .probe import Finding

Grave = Literal["unusable", "problem", "remark"]
GRAVE: tuple[Grave, ...] = ("unusable", "problem", "remark")  # the gravest first
LONG_GOP = 300  # frames; x264's own limit is 250


@dataclass(frozen=True)
class Kind:
    """A kind of remark: how grave, its name in counts, and what can be done."""

    grave: Grave
    name: str
    advice: str


KINDS: dict[str, Kind] = {
    "unusable": Kind("unusable", "cannot be used", "training and tests skip them; get them again"),
    "damaged": Kind("problem", "damaged pictures", "look at them, or get them again"),
    "cut": Kind("problem", "cut off", "get them again; the part that is there is used"),
    "slow": Kind("problem", "not decoded to the end in time", "give more --seconds"),
    "leak": Kind("problem", "the same file in train and val", "remove one: the test is too easy"),
    "two": Kind("problem", "the same file in two classes", "decide which class is right"),
    "names": Kind("problem", "class names that are almost the same", "rename the folders"),
    "untrained": Kind("problem", "classes in val without usable training videos", "add videos"),
    "label": Kind("problem", "labels that are no class", "correct the list"),
    "contradicted": Kind(
        "remark", "contradicted by the network", "look at them; the network may be wrong"
    ),
    "alike": Kind("remark", "look alike", "compare them; scenes may be alike and files differ"),
    "copy": Kind("remark", "the same file again", "remove all but one"),
    "short": Kind("remark", "very short", "see whether enough is to be seen in them"),
    "still": Kind("remark", "one picture only", "remove what is no video"),
    "gop": Kind(
        "remark", "key frames far apart", "`nonlocalnet prepare` re-encodes: clips read faster"
    ),
    "suffix": Kind("remark", "another container than the name says", "rename them"),
    "single": Kind("remark", "classes of one recording", "add recordings: none can be held out"),
    "untested": Kind("remark", "classes without usable val videos", "add videos"),
    "uneven": Kind("remark", "classes of very different size", "see the accuracy per class"),
}


@dataclass(frozen=True)
class Remark:
    """kind: a key of `KINDS`. text: a phrase about one file or class."""

    kind: str
    text: str

    @property
    def grave(self) -> Grave:
        return KINDS[self.kind].grave


_FAMILIES = """
    mov .3gp .m4v .mov .mp4
    matroska .mkv .webm
    avi .avi
    asf .asf .wmv
    flv .flv
    ogg .ogv
    mxf .mxf
    mpegts .m2ts .mts .ts
    mpeg .mpeg .mpg .vob
    mpegvideo .mpeg .mpg
    h264 .h264
    hevc .h265 .hevc
"""
SUFFIXES = {words[0]: words[1:] for words in map(str.split, _FAMILIES.strip().splitlines())}
KNOWN = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


def about_file(path: str, found: Finding, shortest: float) -> list[Remark]:
    """What one file by itself gives cause to say. shortest: in seconds."""
    if found.reason:
        return [Remark("unusable", f"cannot be used: {found.reason}")]
    said = []
    if found.corrupt:
        many = f"{found.corrupt:,} pictures or packets are"
        text = f"usable, but {many if found.corrupt > 1 else '1 picture or packet is'} damaged"
        said.append(Remark("damaged", text))
    if found.came < 1:
        share = min(99, round(100 * found.came))
        said.append(
            Remark("cut", f"usable, but cut off: {share} % of what it promises can be read")
        )
    if not found.complete:
        text = "usable, but too slow to be decoded to its end in the time given"
        said.append(Remark("slow", text))
    if found.gop > LONG_GOP:
        text = f"usable, but up to {found.gop} frames from one key frame to the next"
        said.append(Remark("gop", text))
    info = found.info
    if info and info.frames == 1:
        said.append(Remark("still", "usable, but it is one picture"))
    elif info and info.duration < shortest:
        said.append(Remark("short", f"usable, but only {info.duration:.2g} seconds long"))
    if info:
        said += _about_suffix(path, info.container.split(",")[0])
    return said


def _about_suffix(path: str, family: str) -> list[Remark]:
    suffix = "." + path.rpartition(".")[2].lower()
    if family not in SUFFIXES or suffix not in KNOWN - set(SUFFIXES[family]):
        return []
    return [Remark("suffix", f"usable, but what it holds is {family}, not {suffix}")]

"""How many videos a data set has, by those who published it and those whose figures are compared.

Copies of Kinetics differ, for videos vanish from YouTube, so accuracies on different copies are not
comparable to the last point.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..labels import class_names, plain


@dataclass(frozen=True)
class Copy:
    """The videos of one copy, to train and to validate on; 0 where it is not known."""

    whose: str
    train: int
    val: int


TITLES = {
    "kinetics400": "Kinetics-400",
    "kinetics600": "Kinetics-600",
    "kinetics700": "Kinetics-700",
    "something-v1": "Something-Something v1",
    "something-v2": "Something-Something v2",
    "jester": "Jester",
    "charades": "Charades",
    "ucf101-1": "UCF101, division 1",
    "ucf101-2": "UCF101, division 2",
    "ucf101-3": "UCF101, division 3",
    "hmdb51-1": "HMDB51, division 1",
    "hmdb51-2": "HMDB51, division 2",
    "hmdb51-3": "HMDB51, division 3",
}

# the first of each is the full data set
COPIES: dict[str, tuple[Copy, ...]] = {
    "kinetics400": (
        # ActivityNet issue 38 counts 246,535 and 19,907 lines of the first release's CSV, of which
        # the header is one
        Copy("first release", 246_534, 19_906),
        Copy("video-nonlocal-net", 234_643, 19_761),  # its DATASET.md; PySlowFast's too
        Copy("MMAction2", 240_436, 19_796),  # its tools/data/kinetics/README.md
    ),
    "kinetics600": (
        # FiftyOne's dataset zoo, "original split stats"
        Copy("released list of 2021", 370_582, 28_313),
        Copy("MMAction2", 383_393, 27_910),  # its tools/data/kinetics/README.md
    ),
    "kinetics700": (
        # FiftyOne's dataset zoo, kinetics-700-2020, "original split stats"
        Copy("release of 2020", 542_352, 34_125),
        Copy("MMAction2", 542_357, 34_824),  # its tools/data/kinetics/README.md
    ),
    # 108,499 videos (arXiv 1706.04261), of which 10,960 are the test's
    "something-v1": (Copy("release", 86_017, 11_522),),
    # 220,847 videos, of which 27,157 are the test's (the data set's page at Qualcomm)
    "something-v2": (Copy("release", 168_913, 24_777),),
    # 148,092 videos, of which 14,743 are the test's (the data set's page at Qualcomm)
    "jester": (Copy("release", 118_562, 14_787),),
    # 9,848 videos (arXiv 1604.01753)
    "charades": (
        Copy("release", 7_985, 1_863),
        # configs/charades_r101_baseline.yaml there
        Copy("video-long-term-feature-banks", 7_811, 1_814),
    ),
    # 13,320 videos (arXiv 1212.0402); lines of trainlist0N.txt and testlist0N.txt
    "ucf101-1": (Copy("release", 9_537, 3_783),),
    "ucf101-2": (Copy("release", 9_586, 3_734),),
    "ucf101-3": (Copy("release", 9_624, 3_696),),
    # 70 videos of each of 51 classes to train on and 30 to test on (the data set's page)
    **dict.fromkeys(("hmdb51-1", "hmdb51-2", "hmdb51-3"), (Copy("release", 51 * 70, 51 * 30),)),
}


def recognise(dataset: str, classes: tuple[str, ...]) -> str:
    """The key of COPIES for what a format says and the classes; "" for none of them."""
    if dataset == "kinetics":
        return {400: "kinetics400", 600: "kinetics600", 700: "kinetics700"}.get(len(classes), "")
    if not dataset and len(classes) == 400 and _same(classes, class_names("kinetics400")):
        return "kinetics400"
    sizes = {"ucf101": 101, "hmdb51": 51, "something-v2": 174}
    wanted = sizes.get(dataset.partition("-")[0]) or sizes.get(dataset)
    return "" if wanted not in (None, len(classes)) else dataset


def _same(some: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return [plain(name) for name in some] == [plain(name) for name in others]


def compare(dataset: str, side: str, here: int, listed: int, file: str) -> str:
    """One sentence: how many of the listed videos are here, and how many others had."""
    copies = [(copy.whose, count) for copy in COPIES[dataset] if (count := getattr(copy, side))]
    what = {"train": "training", "val": "validation"}[side]
    part = f"all {listed:,}" if here == listed else f"{here:,} of the {listed:,}"
    others = ", ".join(f"{count:,} ({whose})" for whose, count in copies)
    text = f"{TITLES[dataset]}: {part} {what} videos of {file} are here; published figures are on"
    text += f" {others}"
    if here not in {count for _, count in copies}:
        text += ": a figure on another number of videos is not comparable to the last point"
    return text

"""Which videos were cut from one recording, and a split that never divides a recording.

Clips of one recording share people, place and light. A split that puts some on either side tests
memory, not recognition, and its accuracy is too good.

The recording is read from the file name without its suffix, by the first rule that fits:

1. UCF101:   v_Archery_g01_c02           -> v_Archery_g01
2. Kinetics: 9PmzQI8ZYpg_000010_000020   -> 9PmzQI8ZYpg
3. a word for a piece, then a number: match_clip3, match-part-02, match_scene_7 -> match
   (clip, part, seg, segment, chunk, scene, shot, cut, piece, split)
4. a number at the end: match_0001, match (2) -> match. Not where the name only counts videos:
   what is left is the class name or a word such as IMG, VID, video or clip, or all videos of the
   class would come from one recording.
5. anything else is a recording of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

CUTS = (
    re.compile(r"(v_.+_g\d+)_c\d+"),
    re.compile(r"(.+)_\d{6}_\d{6}"),
    re.compile(
        r"(.+?)[ _.-]+(?:clip|part|seg|segment|chunk|scene|shot|cut|piece|split)[ _.-]*\d+",
        re.IGNORECASE,
    ),
)
NUMBERED = re.compile(r"(.+?)(?:[ _.-]+\d+| ?\(\d+\))")
# what cameras, phones and people call every video
_COUNTING = (
    "img vid video mvi dsc dscn dscf pxl mov movie dji gopr gp gh gx clip file sample untitled"
    " recording rec screenrecording whatsappvideo part segment scene shot"
)
COUNTING = frozenset(_COUNTING.split())


def recordings(stems: Sequence[str], class_name: str) -> list[str | None]:
    """The recording of each video of a class, from the names without suffix.

    None where a video is a recording of its own (rule 5).
    """
    cut = [_first_match(CUTS, stem, class_name) for stem in stems]
    numbered = [_first_match((*CUTS, NUMBERED), stem, class_name) for stem in stems]
    kinds = {name or stem for name, stem in zip(numbered, stems, strict=True)}
    return numbered if len(kinds) > 1 else cut


def _first_match(rules: Sequence[re.Pattern[str]], stem: str, class_name: str) -> str | None:
    for rule in rules:
        match = rule.fullmatch(stem)
        if match and _plain(match[1]) not in COUNTING | {"", _plain(class_name)}:
            return match[1]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def choose_val(
    sources: Sequence[str], labels: Sequence[int], fraction: float, seed: int
) -> frozenset[str]:
    """The recordings for validation, so that each class has about `fraction` of its videos there.

    A recording with videos of several classes goes to one side as a whole. Classes with few
    recordings choose first; a class has at least one on either side where it has two that no
    other class has already placed. Depends on the seed and the names, not on their order.
    """
    classes: dict[int, Counter[str]] = {}
    for source, label in zip(sources, labels, strict=True):
        classes.setdefault(label, Counter())[source] += 1
    generator = torch.Generator().manual_seed(seed % 2**63)
    in_val: dict[str, bool] = {}
    for label in sorted(classes, key=lambda label: (len(classes[label]), label)):
        _place(classes[label], fraction, in_val, generator)
    return frozenset(source for source, yes in in_val.items() if yes)


def _place(
    videos: Mapping[str, int], fraction: float, in_val: dict[str, bool], generator: torch.Generator
) -> None:
    """Decide for the recordings of one class (recording -> number of videos) that are undecided."""
    wanted = max(1, round(fraction * sum(videos.values())))
    have = sum(count for source, count in videos.items() if in_val.get(source))
    train = any(not in_val.get(source, True) for source in videos)
    free = sorted(source for source in videos if source not in in_val)
    order = torch.randperm(len(free), generator=generator).tolist()
    for left, place in zip(range(len(free), 0, -1), order, strict=True):
        source = free[place]
        count = videos[source]
        if left == 1 and not (train and have):
            chosen = train  # the last one goes where there is none yet; training comes first
        else:
            chosen = abs(have + count - wanted) < abs(have - wanted)
        in_val[source] = chosen
        have += count * chosen
        train = train or not chosen

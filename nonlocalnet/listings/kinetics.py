"""Kinetics-400, -600 and -700 as released: CSV or JSON, with YouTube ids and times.

A file may be the cut segment, named ID_000010_000020 or ID, or the whole recording, named ID.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..video import Video, VideoError
from .rows import Listed, Listing, Row, at, number, side_of

SLACK = 1.5  # seconds by which a cut file may be longer than its segment
PROBES = 20


def kinetics_csv(listed: Listed) -> Listing:
    """label,youtube_id,time_start,time_end,split[,is_cc]; the test list is without labels."""
    rows = []
    for line, cells in listed.records():
        if "label" not in cells:
            raise at(
                listed.address, line, "it has no label: this list can be predicted, not learned"
            )
        start = number(listed.address, line, cells.get("time_start", ""), "start")
        end = number(listed.address, line, cells.get("time_end", ""), "end")
        side = side_of(listed.address, line, cells.get("split", ""))
        rows.append(_row(listed, line, cells["youtube_id"], cells["label"], start, end, side))
    return Listing(rows, dataset="kinetics")


def kinetics_json(listed: Listed) -> Listing:
    """{id: {"annotations": {"label": name, "segment": [start, end]}, "subset": side, ...}, ...}."""
    try:
        videos = json.loads(listed.text())
        rows = [
            _entry(listed, i, str(name), video) for i, (name, video) in enumerate(videos.items())
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise at(
            listed.address, 1, f"this is not Kinetics' JSON ({type(error).__name__}: {error})"
        ) from None
    return Listing(rows, dataset="kinetics")


def _entry(listed: Listed, index: int, name: str, video: dict[str, Any]) -> Row:
    start, end = video["annotations"]["segment"]
    label, side = video["annotations"]["label"], side_of(listed.address, 1, video["subset"])
    return _row(listed, index + 1, name, str(label), float(start), float(end), side)


def _row(
    listed: Listed, line: int, name: str, label: str, start: float, end: float, side: str
) -> Row:
    if not end > start >= 0:
        raise at(listed.address, line, f"the segment starts at {start:g} s and ends at {end:g} s")
    a, b = int(start), int(end)
    return Row(
        listed.address,
        line,
        names=(f"{name}_{a:06d}_{b:06d}", f"{name}_{a}_{b}", name),
        label=label,
        side=side,
        whole=(start, end),
        source=name,
    )


def uncut(files: Sequence[tuple[str, tuple[float, float]]]) -> tuple[set[str], str]:
    """Which of these files are whole recordings, of which (start, end) is meant; and in words.

    By their lengths: a file that lasts longer than its segment is whole. A few are opened, and all
    of them only if those few are of both kinds.
    """
    step = max(1, len(files) // PROBES)
    few = [_is_whole(*file) for file in files[::step]]
    kinds = set(few) - {None}
    if len(kinds) > 1:
        whole = {path for path, segment in files if _is_whole(path, segment)}
    else:
        whole = {path for path, _ in files} if True in kinds else set()
    if not whole:
        return whole, ""
    return whole, (
        f"{len(whole):,} files named by YouTube id alone are whole recordings, by their length:"
        " only the seconds listed are used of each"
    )


def _is_whole(path: str, segment: tuple[float, float]) -> bool | None:
    """None where nothing tells."""
    start, end = segment
    try:
        with Video(path) as video:
            duration = video.info.duration
    except (VideoError, OSError):
        return None
    if duration > end - start + SLACK:
        return True
    return False if start > SLACK else None

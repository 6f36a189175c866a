"""The formats by name, and which one a list is, by what stands in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..errors import UserError
from ..samples import is_address
from .charades import charades_csv, charades_frames
from .divided import HMDB_LIST, UCF_LIST, hmdb51, ucf101
from .kinetics import kinetics_csv, kinetics_json
from .lists import columns_of, frame_list, path_list
from .own import own_csv, own_jsonl
from .places import names_in
from .rows import Listed, Listing, separator
from .something import something_csv, something_json

FORMATS: dict[str, Callable[[Listed], Listing]] = {
    "csv": own_csv,
    "jsonl": own_jsonl,
    "paths": path_list,
    "frames": frame_list,
    "kinetics": kinetics_csv,
    "kinetics-json": kinetics_json,
    "something-csv": something_csv,
    "something-json": something_json,
    "charades": charades_csv,
    "charades-frames": charades_frames,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
}


def detect(address: str) -> str:
    """The key of FORMATS that fits, or "folders". Raises `UserError` if none does."""
    name = Listed(address).name
    if UCF_LIST.fullmatch(name):
        return "ucf101"
    if HMDB_LIST.fullmatch(name):
        return "hmdb51"
    if not is_address(address) and Path(address).expanduser().is_dir():
        return _detect_folder(address)
    with Listed(address).open() as file:
        head = file.read(1 << 16)
    lines = [line.strip() for line in head.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{address} is empty; expected one video on each line")
    if lines[0][0] in "[{":
        return _detect_json(address, head, lines[0])
    return _detect_text(address, lines[0])


def _detect_folder(address: str) -> str:
    for name in names_in(address):
        if UCF_LIST.fullmatch(name):
            return "ucf101"
        if HMDB_LIST.fullmatch(name):
            return "hmdb51"
    return "folders"


def _detect_json(address: str, head: str, first: str) -> str:
    if '"annotations"' in head and '"segment"' in head:
        return "kinetics-json"
    if head.lstrip()[0] == "[" and '"id"' in head:
        return "something-json"
    if first.endswith("}") and '"path"' in first:
        return "jsonl"
    raise UserError(
        f"{address} is JSON of no kind known here; expected Kinetics' or Something-Something's, or"
        ' lines such as {"path": "a.mp4", "label": "run"}'
    )


def _detect_text(address: str, first: str) -> str:
    header = {cell.strip(' "').lower() for cell in first.split(separator(first))}
    if "youtube_id" in header:
        return "kinetics"
    if {"id", "actions"} <= header:
        return "charades"
    if "path" in header and header & {"label", "labels"}:
        return "csv"
    if re.match(r"original_vid\w*_id ", first):
        return "charades-frames"
    if re.match(r"[^;,\s]+;\D", first):
        return "something-csv"
    columns = columns_of(first)
    if columns > 1:
        return "frames" if columns == 3 else "paths"
    raise UserError(
        f"{address} is no list known here: its first line is {first[:80]!r}; expected a path and a"
        " number, a folder and two numbers, or a header such as path,label; --format says which"
    )

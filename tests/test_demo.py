from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from nonlocalnet.demo import GROUPS, NETWORKS, _bar, run
from nonlocalnet.synthetic import CLASSES


@pytest.mark.slow
def test_the_demo_from_videos_to_the_report_and_again(tmp_path: Path) -> None:
    """Small, but all of it; a second call keeps what is finished and gives the same figures."""
    first = run(tmp_path, seed=3, quick=True, quiet=True)
    assert list(first.results) == list(NETWORKS)
    assert {result.count for result in first.results.values()} == {60}
    page = first.html.read_text(encoding="utf-8")
    assert all(name in page for name in (*NETWORKS, *GROUPS))
    assert json.loads(first.html.with_suffix(".json").read_text(encoding="utf-8"))
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")
    weights = tmp_path / "runs" / "i3d_non_local" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    again = run(tmp_path, seed=3, quick=True, quiet=True)
    assert weights.stat().st_mtime_ns == written
    for name, result in first.results.items():
        assert again.results[name].videos == result.videos


def test_no_bars_without_a_terminal() -> None:
    for terminal in (False, True):
        console = Console(file=StringIO(), force_terminal=terminal, width=80)
        with _bar(console, "rendering reunion") as advance:
            advance(1, 2)
            advance(2, 2)
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("100%" in printed) == terminal
        assert terminal or printed == "rendering reunion\n"


def test_the_two_questions_come_from_the_class_names() -> None:
    same, direction = GROUPS["same colour?"], GROUPS["direction?"]
    assert {same(name) for name in CLASSES} == {"same", "different"}
    assert {direction(name) for name in CLASSES} == {"left", "right"}
    assert len({(same(name), direction(name)) for name in CLASSES}) == len(CLASSES)

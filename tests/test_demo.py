from __future__ import annotations

import json
from pathlib import Path

import pytest

from nonlocalnet.demo import NETWORKS, run
from nonlocalnet.trial import GROUPS


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

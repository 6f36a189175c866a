"""Rows in parts: whole or not at all, once, and only those of one job."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nonlocalnet import parts
from nonlocalnet.errors import UserError
from nonlocalnet.parts import Parts

pq = pytest.importorskip("pyarrow.parquet")

COLUMNS = {"path": "string", "scores": "floats", "error": "string"}
JOB = {"network": "abc", "top": 5}


def row(name: str, error: str | None = None) -> dict[str, object]:
    return {"path": name, "scores": [0.5, 0.25], "error": error}


def test_rows_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS", 2)
    with Parts(tmp_path / "o", COLUMNS, JOB) as table:
        for name in "abc":
            table.add(row(name))
        assert table.done == {"a", "b"}
        table.add({"path": "é", "error": "no", "more": 1})  # columns it lacks, and one too many
        table.write("_summary.json", "{}")
    found = pq.read_table(tmp_path / "o").to_pylist()
    assert [r["path"] for r in found] == ["a", "b", "c", "é"]
    assert [r["scores"] for r in found] == [[0.5, 0.25]] * 3 + [None]
    with Parts(tmp_path / "o", COLUMNS, dict(JOB)) as table:
        assert table.done == {"a", "b", "c", "é"}
        assert table.errors == {"no": 1}
        table.add(row("d"))
    assert len(list((tmp_path / "o").glob("part-*.parquet"))) == 3


def test_an_error_keeps_the_rows(tmp_path: Path) -> None:
    def stopped() -> None:
        with Parts(tmp_path, COLUMNS, JOB) as table:
            table.add(row("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with Parts(tmp_path, COLUMNS, JOB) as table:
        assert table.done == {"a"}


def test_a_kill_leaves_no_half_part(tmp_path: Path) -> None:
    """A process that dies while it writes leaves a file that is no part and does not stay."""
    script = """
import os, sys
from pathlib import Path
from nonlocalnet import parts
real = parts.parquet.write_table
def dies(table, path):
    real(table, path)
    os.truncate(path, 20)
    os._exit(9)
table = parts.Parts(Path(sys.argv[1]), {"path": "string", "error": "string"}, {"top": 5})
table.add({"path": "a", "error": None})
table.flush()
parts.parquet.write_table = dies
table.add({"path": "b", "error": None})
table.flush()
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == 9
    assert len(list(tmp_path.glob(".part-*"))) == 1
    with Parts(tmp_path, {"path": "string", "error": "string"}, {"top": 5}) as table:
        assert table.done == {"a"}
    assert not list(tmp_path.glob(".part-*"))


def test_refusals(tmp_path: Path) -> None:
    with Parts(tmp_path, COLUMNS, JOB) as table:
        table.add(row("a"))
        if parts.flock is not None:
            with pytest.raises(UserError, match="being written by another run"):
                Parts(tmp_path, COLUMNS, JOB)
    with pytest.raises(UserError, match="with network abc, not def; choose another folder"):
        Parts(tmp_path, COLUMNS, JOB | {"network": "def"})
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match=r"part-00000\.parquet cannot be read"):
        Parts(tmp_path, COLUMNS, JOB)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Parts(tmp_path / "file", COLUMNS, JOB)
    assert json.loads((tmp_path / "_job.json").read_text()) == JOB

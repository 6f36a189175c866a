"""Many videos into a folder of Parquet: each once, with the scores of `predict`, whatever dies."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import nn

from nonlocalnet.card import card_of, set_card
from nonlocalnet.datasets import ViewDataset
from nonlocalnet.errors import UserError
from nonlocalnet.many import Job, Predictor, predict_many
from nonlocalnet.models import create_model
from nonlocalnet.prediction import predict
from nonlocalnet.synthetic import render_reunion
from nonlocalnet.weights import save

pytest.importorskip("ray", reason="an extra: scale")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = create_model("i3d_tiny", num_classes=7, non_local=1).eval()
    classes = tuple("abcdefg")
    set_card(model, dataclasses.replace(card_of(model), classes=classes, clips=2))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "videos"
    render_reunion(folder, train=60, val=4)
    (folder / "train" / "same_left" / "text.mp4").write_text("<html></html>")
    return folder


def rows(model: nn.Module, paths: list[str], **job: Any) -> list[dict[str, Any]]:
    return list(Predictor(model, Job(**job), 1).work(paths))


def test_a_row_is_what_predict_says(model: nn.Module, folder: Path) -> None:
    paths = sorted(str(path) for path in (folder / "train" / "same_left").iterdir())[-5:]
    expected = predict(model, paths, top=3)
    found = rows(model, paths, top=3, all_scores=True)
    assert [row["path"] for row in found] == paths
    for row, said in zip(found, expected, strict=True):
        assert row["error"] == said.error
        assert row["seconds"] > 0
        if said.error is None:
            assert tuple(row["labels"]) == said.labels
            assert tuple(row["scores"]) == said.scores
            assert [row["all_scores"][i] for i in row["classes"]] == row["scores"]
            assert len(row["all_scores"]) == 7
            assert row["frames"] == 8
    assert [row["error"] is None for row in found] == [True] * 4 + [False]
    assert rows(model, paths[:1], clips=1, top=1)[0]["scores"] == list(
        predict(model, paths[0], clips=1, top=1)[0].scores
    )


def test_what_hangs_or_crashes_costs_one_file(
    model: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = [str(path) for path in sorted((folder / "val").rglob("*.mp4"))]
    real = ViewDataset.__getitem__

    def read(self: ViewDataset, index: int) -> Any:  # in the reading process
        path = str(self.videos[index])
        if path == "hangs":
            time.sleep(600)
        if path == "once" and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if path == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        return real(self, index)

    monkeypatch.setattr(ViewDataset, "__getitem__", read)
    paths = [good[0], "hangs", good[1], "crashes", "once", good[2], "crashes"]
    found = rows(model, paths, seconds=2.0)
    assert [row["path"] for row in found] == paths
    errors = [row["error"] for row in found]
    assert [error is None for error in errors] == [True, False, True, False, False, True, False]
    assert errors[1] == "it could not be read within 2 seconds"
    assert "crashed on it, 2 times" in errors[3]
    assert "no such file" in errors[4].lower()  # read the second time: only its name is odd
    assert "crashed on it, 2 times" in errors[6]


def test_scores_that_are_no_numbers(model: nn.Module, folder: Path) -> None:
    other = create_model("i3d_tiny", num_classes=7).eval()
    with torch.no_grad():
        next(other.parameters()).fill_(float("nan"))
    (row,) = rows(other, [str(next((folder / "val").rglob("*.mp4")))])
    assert "not numbers" in row["error"]


def test_another_job_does_not_mix(model: nn.Module, tmp_path: Path) -> None:
    """Without a file that can be tried, no worker is started at all."""
    empty = tmp_path / "empty"
    empty.mkdir()
    summary = predict_many(model, [empty, empty], tmp_path / "out")
    assert (summary.files, summary.predicted, summary.broken, summary.new) == (1, 0, 1, 1)
    assert summary.reasons == {"there is no video file in this folder": 1}
    assert predict_many(model, empty, tmp_path / "out").new == 0
    with pytest.raises(UserError, match="views 2x1, not 3x1; choose another folder"):
        predict_many(model, empty, tmp_path / "out", Job(clips=3))
    other = create_model("i3d_tiny", num_classes=7)
    set_card(other, card_of(model))
    with pytest.raises(UserError, match="holds predictions with network"):
        predict_many(other, empty, tmp_path / "out")
    with pytest.raises(ValueError, match="top"):
        Job(top=0)


SCRIPT = '''
import os, signal, sys
from pathlib import Path
from nonlocalnet import parts
from nonlocalnet.cluster import Cluster
from nonlocalnet.many import predict_many
from nonlocalnet.weights import load

def ours():
    """Workers, and the processes that read for them -> parents: those below this one."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            pass
    below = {os.getpid()}
    for _ in range(5):
        below |= {pid for pid, parent in parents.items() if parent in below}
    named = {p for p in below if Path(f"/proc/{p}/cmdline").read_text().startswith("ray::_Actor")}
    return {pid: parents[pid] for pid in named}

def progress(done, total, broken):
    if done == 12:
        found = ours()
        workers = [pid for pid, parent in found.items() if parent not in found]
        assert len(workers) == 2, found
        os.kill(workers[0], signal.SIGKILL)
    if done == 40:
        print(*ours(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

parts.ROWS, parts.SECONDS = 7, 1e9  # by number alone, however slow the machine is
network, folder, out = sys.argv[1:]
predict_many(load(network), folder, out, cluster=Cluster(workers=2), progress=progress)
'''


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers in /proc")
def test_no_file_is_lost_or_doubled_whatever_dies(
    model: nn.Module, folder: Path, tmp_path: Path
) -> None:
    """One of two workers is killed, then the whole program, then the same command goes on."""
    network, out = tmp_path / "net.safetensors", tmp_path / "out"
    save(model, network)
    begun = [sys.executable, "-c", SCRIPT, str(network), str(folder), str(out)]
    with TemporaryDirectory(prefix="nl", ignore_cleanup_errors=True) as logs:  # left by the kill
        first = subprocess.run(
            begun,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=os.environ | {"TMPDIR": logs},
        )
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert pq.read_table(out).num_rows == 35  # five parts of seven; five rows were not written
    deadline = time.monotonic() + 30
    left = list(map(int, first.stdout.split()))
    assert left
    while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]

    command = [sys.executable, "-W", "error", "-m", "nonlocalnet", "predict-many", network, folder]
    second = subprocess.run(
        [*map(str, command), "-o", str(out), "--workers", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert second.returncode == 1, second.stderr  # one file is broken
    assert not second.stderr
    assert "65 files: 64 predicted, 1 broken; 30 of them now" in second.stdout
    expected = {said.path: said for said in predict(model, folder)}
    found = pq.read_table(out).to_pylist()
    assert sorted(row["path"] for row in found) == sorted(expected)
    for row in found:
        said = expected[row["path"]]
        assert row["error"] == said.error
        assert tuple(row["labels"] or ()) == said.labels
        assert tuple(row["scores"] or ()) == said.scores  # to the last bit
    summary = json.loads((out / "_summary.json").read_text())
    assert (summary["files"], summary["broken"], summary["new"]) == (65, 1, 30)

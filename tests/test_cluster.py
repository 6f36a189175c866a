"""Each file once, whatever dies: workers, files that kill them, workers that never start."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from nonlocalnet import cluster
from nonlocalnet.cluster import Cluster, Row, shares, spread
from nonlocalnet.errors import UserError

pytest.importorskip("ray", reason="an extra: scale")


@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        ({"CPU": 8.0}, Cluster(), (8, 0.0)),
        ({"CPU": 8.0}, Cluster(cpus=3), (2, 0.0)),
        ({"CPU": 1.0}, Cluster(cpus=3), (1, 0.0)),
        ({"CPU": 96.0, "GPU": 8.0}, Cluster(), (32, 0.25)),
        ({"CPU": 4.0, "GPU": 8.0}, Cluster(), (4, 1.0)),
        ({"CPU": 64.0, "GPU": 4.0}, Cluster(workers=10), (10, 0.3333)),
        ({"CPU": 64.0, "GPU": 1.0}, Cluster(workers=6), (6, 0.1666)),
        ({"CPU": 64.0, "GPU": 1.0}, Cluster(gpus=0), (4, 0)),
    ],
)
def test_shares(there: dict[str, float], asked: Cluster, expected: tuple[int, float]) -> None:
    workers, gpus = shares(there, asked)
    assert (workers, gpus) == expected
    assert gpus * -(-workers // there.get("GPU", 1e9)) <= 1 or not gpus  # all of them fit


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"cpus": 0}, {"gpus": 1.5}, {"gpus": -0.5}, {"address": "ray://host:10001"}],
)
def test_values_without_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Cluster(**wrong)


def working() -> type:
    class Work:  # a local class travels to the workers as it is
        def __init__(self, fails: bool) -> None:
            if fails:
                raise RuntimeError("no network here")

        def work(self, paths: list[str]) -> Iterator[Row]:
            for path in paths:
                time.sleep(0.02)
                if path.startswith("poison"):
                    os.kill(os.getpid(), signal.SIGKILL)
                if path.startswith("wrong"):
                    raise UserError("so it goes")
                yield {"path": path, "error": None, "worker": os.getpid()}

    return Work


@pytest.mark.slow
def test_each_file_once_with_a_worker_killed_and_poison() -> None:
    import ray

    before = dict(os.environ)
    files = [f"file {i}" for i in range(150)]
    files[20], files[149] = "poison a", "poison z"
    rows = []
    for row in spread(files, working(), (False,), Cluster(workers=2)):
        rows.append(row)
        if len(rows) == 60:
            assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
            os.kill(row["worker"], signal.SIGKILL)
    assert not ray.is_initialized()
    assert sorted(row["path"] for row in rows) == sorted(files)
    errors = {row["path"]: row["error"] for row in rows if row["error"] is not None}
    assert errors == dict.fromkeys(("poison a", "poison z"), "its worker ended at it, 2 times")
    # the killed one and who came after; whether more had time to answer, the load decides
    assert len({row["worker"] for row in rows if "worker" in row}) >= 2
    assert dict(os.environ) == before


@pytest.mark.slow
def test_what_cannot_work_is_said() -> None:
    with pytest.raises(UserError, match="^so it goes$"):
        list(spread(["a", "b", "wrong"], working(), (False,), Cluster(workers=1)))
    with pytest.raises(
        UserError, match="3 workers in a row ended before they were ready: RuntimeError: no network"
    ):
        list(spread(["a", "b"], working(), (True,), Cluster(workers=1)))
    with pytest.raises(UserError, match="there are no 7 GPUs"):
        list(spread(["a"], working(), (False,), Cluster(workers=1, gpus=7)))


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there(address: str) -> None:
    """Said at once, not after the minutes for which Ray tries."""
    start = time.monotonic()
    with pytest.raises(UserError, match=f"nothing answers at '{address}'"):
        list(spread(["a"], working(), (False,), Cluster(address=address)))
    assert time.monotonic() - start < 30
    assert cluster.QUIET.keys().isdisjoint(os.environ)

"""Two processes on one machine: what one would have done, and what happens when one is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

import nonlocalnet.train as train_module
from nonlocalnet.errors import UserError
from nonlocalnet.protocols import RECIPES
from nonlocalnet.recipes import Recipe
from nonlocalnet.synthetic import render_reunion
from nonlocalnet.train import train
from nonlocalnet.training import checkpoint
from nonlocalnet.training.journal import read_log
from nonlocalnet.training.plan import Plan
from nonlocalnet.weights import load

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and gloo")

TWO = replace(
    RECIPES["reunion"],
    epochs=2,
    accumulate_to=8,
    batch=4,
    optimizer="sgd",
    lr=0.05,
    dropout=0.3,
    workers=0,
    device="cpu",
    log_steps=1,
    save_steps=3,
    hang_seconds=60.0,
)
STEPS = 8  # 2 epochs of 4
Acts = dict[tuple[int, int], str]  # process and step -> a signal, "hang" or "fail"


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it printed."""

    code: int
    said: str


def _one(
    rank: int,
    port: int,
    data: Path,
    out: Path,
    recipe: Recipe,
    resume: bool,
    acts: Acts,
    said: Path,
) -> None:
    """In a process of its own, what torchrun and the command do."""
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    numbers |= {"MASTER_PORT": port}
    os.environ.update({name: str(n) for name, n in numbers.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    # else readers would be started like this process, each importing torch anew
    multiprocessing.set_start_method("fork", force=True)
    real = train_module.learning_rate

    def rate(plan: Plan, step: int) -> float:
        act = acts.get((rank, step), "")
        if act == "hang":
            time.sleep(1000)
        elif act == "fail":
            raise UserError("no room on this machine")
        elif act:
            os.kill(os.getpid(), getattr(signal, act))
        return real(plan, step)

    train_module.learning_rate = rate  # type: ignore[assignment]
    try:
        train(data, recipe, out, resume)
    except UserError as error:
        if not getattr(error, "silent", False):
            print(f"nonlocalnet: {error}", flush=True)
        os._exit(getattr(error, "exit_code", 1))
    sys.stdout.flush()
    os._exit(0)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def two(
    data: Path, out: Path, recipe: Recipe, acts: Acts | None = None, resume: bool = False
) -> list[Ended]:
    """Train in two processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nonlocalnet.train"])
    files = [out.with_name(f"{out.name}.{rank}.txt") for rank in (0, 1)]
    port = _free_port()
    running = [
        context.Process(target=_one, args=(r, port, data, out, recipe, resume, acts or {}, file))
        for r, file in enumerate(files)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
        if process.exitcode is None:
            process.kill()
            process.join()
    codes = [process.exitcode for process in running]
    return [Ended(int(c or 0), f.read_text()) for c, f in zip(codes, files, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_reunion(tmp_path_factory.mktemp("data") / "reunion", train=32, val=8)


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    ended = two(folder, out, TWO)
    assert [e.code for e in ended] == [0, 0], ended
    assert ended[0].said.startswith("i3d_tiny learns")
    assert ended[0].said.count("epoch 1 of 2:") == 1
    assert ended[1].said == ""  # the first one speaks
    return out


def assert_same_bits(one: Path, other: Path) -> None:
    a, b = checkpoint.read(one / "last.ckpt"), checkpoint.read(other / "last.ckpt")
    assert a["state"] == b["state"]
    assert a["state"]["step"] == STEPS
    for name in a["model"]:
        assert torch.equal(a["model"][name], b["model"][name]), name
    for index, state in a["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, b["optimizer"]["state"][index][name]), (index, name)
    for mine, theirs in zip(a["random"], b["random"], strict=True):
        assert torch.equal(mine["cpu"], theirs["cpu"])
    assert (one / "log.jsonl").read_text() == (other / "log.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_one_of_two_killed_changes_no_bit(
    folder: Path, whole: Path, tmp_path: Path, lost: int
) -> None:
    out, recipe = tmp_path / "run", replace(TWO, workers=2 * lost)
    ended = two(folder, out, recipe, {(lost, 5): "SIGKILL"})
    assert ended[lost].code == -signal.SIGKILL
    left = ended[1 - lost]
    assert left.code == 1
    assert f"process {lost} of 2 is gone" in left.said
    assert f"--resume -o {out}" in left.said
    assert "Traceback" not in left.said
    assert checkpoint.read(out / "last.ckpt")["state"]["step"] == 4
    if lost == 0:
        return  # it goes on alike
    again = two(folder, out, recipe, resume=True)
    assert [e.code for e in again] == [0, 0]
    assert_same_bits(out, whole)


@pytest.mark.slow
def test_a_signal_to_one_stops_both(folder: Path, whole: Path, tmp_path: Path) -> None:
    # after step 5, and after the last step of an epoch, whose validation is made up for
    out = tmp_path / "run"
    first = two(folder, out, TWO, {(1, 3): "SIGUSR1"})
    assert [e.code for e in first] == [130, 130]
    words = "".join(e.said for e in first)
    assert words.count("stopped by SIGUSR1 after step 4 of 8; everything is saved") == 1
    second = two(folder, out, TWO, {(0, 5): "SIGTERM"}, resume=True)
    assert [e.code for e in second] == [130, 130]
    assert "".join(e.said for e in second).count("stopped by SIGTERM after step 6 of 8") == 1
    assert [e.code for e in two(folder, out, TWO, resume=True)] == [0, 0]
    assert_same_bits(out, whole)


def test_who_hangs_is_named(folder: Path, tmp_path: Path) -> None:
    recipe = replace(TWO, hang_seconds=4.0)
    began = time.monotonic()
    ended = two(folder, tmp_path / "run", recipe, {(1, 2): "hang"})
    assert time.monotonic() - began < 60
    assert [e.code for e in ended] == [1, 1]
    words = "".join(e.said for e in ended)
    assert words.count("nonlocalnet: process 1 hangs on ") == 1
    assert "at step 2 (" in words
    assert "while the others wait at step 3 (computes)" in words
    assert f"Go on with --resume -o {tmp_path / 'run'}" in words


def test_a_failing_process_says_so_once(folder: Path, tmp_path: Path) -> None:
    ended = two(folder, tmp_path / "run", TWO, {(1, 2): "fail"})
    assert [e.code for e in ended] == [1, 1]
    assert "process 1 of 2: no room on this machine" in ended[1].said
    assert "nonlocalnet: " not in ended[0].said
    assert "Traceback" not in ended[0].said + ended[1].said


def test_what_all_refuse_is_said_once(folder: Path, whole: Path) -> None:
    for changes in ({}, {"lr": 0.3}):
        ended = two(folder, whole, replace(TWO, **changes), resume=bool(changes))  # type: ignore[arg-type]
        assert [e.code for e in ended] == [1, 1]
        assert sum(e.said.count("nonlocalnet: ") for e in ended) == 1


@pytest.mark.slow
def test_shares_of_the_weights_train_alike(folder: Path, whole: Path, tmp_path: Path) -> None:
    """FSDP, killed and resumed, against whole weights; and one process reads what it leaves."""
    recipe, out = replace(TWO, strategy="fsdp"), tmp_path / "run"
    ended = two(folder, out, recipe, {(1, 5): "SIGKILL"})
    assert "process 1 of 2 is gone" in ended[0].said
    ended = two(folder, out, recipe, resume=True)
    assert [e.code for e in ended] == [0, 0], ended
    a, b = checkpoint.read(out / "last.ckpt"), checkpoint.read(whole / "last.ckpt")
    for name, tensor in b["model"].items():
        torch.testing.assert_close(a["model"][name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    best, others = load(out).state_dict(), load(whole).state_dict()
    for name, tensor in others.items():
        torch.testing.assert_close(best[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    logs = [[line for line in read_log(run) if "loss" in line] for run in (out, whole)]
    shares = [[line["block layer2.0.non_local"] for line in lines] for lines in logs]
    assert shares[0] == pytest.approx(shares[1], rel=1e-4)
    result = train(folder, Recipe(strategy="ddp"), out, resume=True, quiet=True)
    assert any("is finished" in word for word in result.words)


FROZEN = {"norm": "none", "zero_init": "out", "freeze_norm": True}
SYNCED = {"sync_norm": True, "precise_norm": 2}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [FROZEN, SYNCED], ids=["frozen norms", "synchronised norms"])
def test_two_times_four_is_eight(folder: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    """Loss, gradient and validation of each step, up to rounding; and broken files of both.

    Sums are added in another order, and steps with batch norms over few clips make more of it.
    """
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    names = [f"train/{name}/99999.mp4" for name in ("different_left", "same_left", "same_right")]
    for name in names:
        (data / name).write_bytes(b"\x00\x01no video at all" * 10)
    recipe = replace(TWO, dropout=0.0, lr=0.01, epochs=2, **changes)  # type: ignore[arg-type]
    ended = two(data, tmp_path / "two", recipe)
    assert [e.code for e in ended] == [0, 0], ended
    result = train(data, replace(recipe, batch=8), tmp_path / "one", quiet=True)
    assert "3 files could not be read" in ended[0].said
    state = checkpoint.read(tmp_path / "two" / "last.ckpt")["state"]
    assert state["broken"] == {b.path: b.reason for b in result.broken}
    curve = [json.loads(line) for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert len(curve) == len(result.curves) == STEPS + 2
    for mine, theirs in zip(curve, result.curves, strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            near = pytest.approx(theirs[key], rel=1e-5 if mine["step"] < 4 else 2e-3)
            assert value == near, (mine["step"], key)


SCRIPT = """
import os, signal, sys
import nonlocalnet.train as module
from nonlocalnet.cli import main
real = module.learning_rate
def rate(plan, step):
    if step == 5 and os.environ["RANK"] == "1" and sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(plan, step)
module.learning_rate = rate
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_torchrun_killed_and_started_again(folder: Path, whole: Path, tmp_path: Path) -> None:
    """The command as a user gives it, up to its report."""
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT)
    flags = ["--recipe", "reunion", "--epochs", "2", "--accumulate-to", "8", "--batch", "4"]
    flags += ["--optimizer", "sgd", "--lr", "0.05", "--dropout", "0.3", "--workers", "0"]
    flags += ["--device", "cpu", "--log-steps", "1", "--save-steps", "3", "--hang-seconds", "60"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}

    def torchrun(what: str, *more: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        call += ["--master-addr", "127.0.0.1", "--master-port", str(_free_port()), str(script)]
        call += [what, "train", str(folder), "-o", str(out), *more]
        return subprocess.run(
            call, env=env, capture_output=True, text=True, timeout=300, check=False
        )

    killed = torchrun("kill", *flags)
    assert killed.returncode != 0
    assert "nonlocalnet: process 1 of 2 is gone" in killed.stderr
    done = torchrun("run", "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "goes on after step 4 of 8" in done.stdout
    assert (out / "report.html").exists()
    assert_same_bits(out, whole)

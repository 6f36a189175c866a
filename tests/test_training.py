"""The parts of training: which clips, what is saved, what is said, what learns."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

pytest.importorskip("tensorboard")

from nonlocalnet.card import Card, card_of
from nonlocalnet.errors import UserError
from nonlocalnet.files import write_text
from nonlocalnet.machine import Machine, clip_bytes, clips_that_fit, this_machine
from nonlocalnet.models import create_model
from nonlocalnet.recipes import Recipe
from nonlocalnet.samples import Sample, Split
from nonlocalnet.training import checkpoint
from nonlocalnet.training.batches import StepSampler, epoch_order, step_keys
from nonlocalnet.training.interrupt import stop_on_signals
from nonlocalnet.training.journal import Journal, Rates, read_log
from nonlocalnet.training.plan import Plan, derive
from nonlocalnet.training.prepare import (
    describe_start,
    freeze,
    make_network,
    make_optimizer,
    set_modes,
    start_from,
)
from nonlocalnet.training.probe import first_broken_module, first_broken_weight
from nonlocalnet.training.wake import wake_words
from nonlocalnet.waking import why_stuck
from nonlocalnet.weights import save


def plan(clips: int = 23, processes: int = 1, **changes: object) -> Plan:
    train = tuple(Sample(f"{i}.mp4", i % 2, str(i)) for i in range(clips))
    recipe = Recipe(**{"epochs": 3, "batch": 2, "accumulate_to": 8, **changes})  # type: ignore[arg-type]
    return derive(recipe, Split(("a", "b"), train, ()), Machine(processes=processes), Card())


# --- batches


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    orders = [epoch_order(23, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_order(23, 1, 1) == orders[3]


def test_sampler_starts_anywhere() -> None:
    p = plan()  # 2 steps an epoch of 4 batches of 2, 3 epochs
    whole = list(StepSampler(p, 23, range(p.steps), 0))
    assert len(whole) == len(StepSampler(p, 23, range(p.steps), 0)) == 3 * 2 * 4
    for step in range(p.steps + 1):
        assert list(StepSampler(p, 23, range(step, p.steps), 0)) == whole[4 * step :]
    for epoch in range(3):
        keys = [key for batch in whole[8 * epoch : 8 * epoch + 8] for key in batch]
        assert {e for e, _ in keys} == {epoch}
        assert [i for _, i in keys] == epoch_order(23, 0, epoch)[:16]


def test_processes_share_a_step() -> None:
    alone, two = plan(), plan(processes=2)
    assert (two.accumulate, two.steps) == (2, alone.steps)
    for step in range(alone.steps):
        shares = [step_keys(two, 23, step, rank) for rank in (0, 1)]
        assert shares[0] + shares[1] == step_keys(alone, 23, step, 0)


# --- checkpoint


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    state = {
        "model": {"w": torch.randn(3).to(torch.bfloat16), "n": torch.tensor(3)},
        "best": (0.5, -1.25),
        "lr": 0.1,
        "broken": {"a.mp4": "why"},
        "none": None,
    }
    checkpoint.write(tmp_path / "last.ckpt", state)
    read = checkpoint.read(tmp_path / "last.ckpt")
    assert read.pop("version") == checkpoint.VERSION
    assert torch.equal(read["model"]["w"], state["model"]["w"])  # type: ignore[index]
    assert {k: v for k, v in read.items() if k != "model"} == {
        k: v for k, v in state.items() if k != "model"
    }
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


class _Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harm",)


def test_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"version": 1, "model": _Harm()}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.read(tmp_path / "last.ckpt")
    assert not (tmp_path / "harm").exists()


def test_checkpoint_damaged_missing_or_newer(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoint.read(path)
    checkpoint.write(path, {"x": torch.zeros(1000)})
    whole = path.read_bytes()
    for damaged in (b"", b"<html>", whole[:500], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            checkpoint.read(path)
    torch.save({"version": 99}, path)
    with pytest.raises(UserError, match="version 99"):
        checkpoint.read(path)


def test_full_disk_is_one_sentence_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    checkpoint.write(path, {"x": torch.ones(10)})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError) as caught:
            checkpoint.write(path, {"x": torch.ones(1_000_000)})
        with pytest.raises(UserError):
            write_text(tmp_path / "split.json", "x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/run"):
        checkpoint.make_folder(tmp_path / "file" / "run")


def test_random_state_comes_back() -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        torch.rand(7)
        state = checkpoint.random_state(torch.device("cpu"))
        first = torch.rand(9)
        # a view into a larger storage, as a checkpoint may hand back
        state["cpu"] = torch.cat([torch.zeros(3, dtype=torch.uint8), state["cpu"]])[3:]
        checkpoint.set_random_state(state, torch.device("cpu"))
        assert torch.equal(torch.rand(9), first)


# --- journal


def test_resumed_journal_has_one_curve(tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    with Journal(tmp_path, 0, 10, quiet) as journal:
        for step in (2, 4, 6):
            journal.write(step, 0, {"loss": 1 / step})
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 8, "lo')  # killed while writing
    assert [line["step"] for line in read_log(tmp_path)] == [2, 4, 6]
    with Journal(tmp_path, 4, 10, quiet) as journal:
        assert [line["step"] for line in read_log(tmp_path)] == [2, 4]
        journal.write(6, 1, {"loss": 0.5})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 2, "epoch": 0, "loss": 0.5},
        {"step": 4, "epoch": 0, "loss": 0.25},
        {"step": 6, "epoch": 1, "loss": 0.5},
    ]


def test_scalars_beyond_the_resumed_step_are_purged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    quiet = Console(quiet=True)
    for start, steps in ((0, (2, 4, 6)), (4, (6, 8))):
        with Journal(tmp_path, start, 10, quiet) as journal:
            for step in steps:
                journal.write(step, 0, {"loss": start + 1 / step})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("loss")] == [
        (2, 0.5),
        (4, 0.25),
        (6, 4.167),
        (8, 4.125),
    ]


@pytest.mark.parametrize(
    ("readers", "reading", "waiting", "working", "says"),
    [
        (2, 4.0, 0.1, 10.0, "reading 50 clips/s, network 10 clips/s: the network is the"),
        (2, 20.0, 9.0, 1.0, "reading 10 clips/s, network 100 clips/s: reading is the"),
        (0, 40.0, 40.0, 80.0, "reading 2.5 clips/s, network 1.2 clips/s: the network is the"),
    ],
)
def test_rates_name_the_bottleneck(
    readers: int, reading: float, waiting: float, working: float, says: str
) -> None:
    rates = Rates(readers)
    for _ in range(10):
        rates.add(10, reading / 10, waiting / 10, working / 10)
    assert rates.words().startswith(says)
    # the first wait, for processes to start, does not count
    assert rates.now() == pytest.approx(100 / (0.9 * waiting + working))


def test_silent_journal_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Journal(None, 0, 10, Console(quiet=True)) as journal:
        journal.write(1, 0, {"loss": 1.0})
        journal.advance(1, 0, 1)
    assert list(tmp_path.iterdir()) == []


# --- interrupt


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGUSR1, "SIGUSR1")],
)
def test_first_signal_asks_and_handlers_come_back(number: signal.Signals, name: str) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert stop.asked is None
        os.kill(os.getpid(), number)
        assert stop.asked == name
        assert signal.getsignal(number) is before  # a second one would act at once
    assert signal.getsignal(number) is before


def test_other_threads_take_no_signals() -> None:
    asked = []

    def work() -> None:
        with stop_on_signals() as stop:
            asked.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [None]


# --- probe


def tiny(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model("c2d_tiny", 3, 1, **options)  # type: ignore[arg-type]


def test_a_block_that_cannot_learn_is_told_at_the_start() -> None:
    network, name = tiny(), "layer2.0.non_local"
    everything = torch.optim.SGD(network.parameters(), lr=0.1)
    assert describe_start(network, everything, [name])[1:] == [
        f"{name}: starts as the identity, which it leaves in the first steps"
    ]
    head = torch.optim.SGD(network.get_submodule("fc").parameters(), lr=0.1)
    assert describe_start(network, head, [name])[1:] == [
        f"warning: {name} will not learn: its parameters are not in the optimizer"
    ]


def test_words_about_a_block_after_some_steps() -> None:
    assert wake_words("a", 200, 0.0011, 0.0, None) is None
    grows, stays = (wake_words("a", 200, 0.0008, before, None) for before in (0.0004, 0.0008))
    assert grows is not None
    assert "adds only 0.08 % to its input, up from 0.04 % after 100: it grows" in grows
    assert stays is not None
    assert "does not grow: raise the learning rate" in stays
    stuck = wake_words("a", 200, 0.5, 0.5, "it is cut off")
    assert stuck == "warning: a has not woken up after 200 steps: it is cut off"
    assert wake_words("a", 200, None, None, None) is None  # not a clip could be read


def test_first_broken_module_is_named() -> None:
    clips = torch.randn(2, 3, 4, 16, 16)
    network = tiny()
    assert "no single module" in first_broken_module(network, clips)
    assert first_broken_weight(network.state_dict()) is None
    assert first_broken_module(network, clips * math.inf) == "the clips themselves"
    network.get_submodule("layer1.0.conv1").weight.grad = torch.full((16, 16, 1, 3, 3), math.nan)
    assert first_broken_module(network, clips) == (
        "the gradient of weight in module 'layer1.0.conv1'"
    )
    with torch.no_grad():
        network.get_submodule("layer2.0.bn1").bias[3] = math.inf  # type: ignore[index,operator]
    assert first_broken_module(network, clips) == "bias of module 'layer2.0.bn1'"
    assert first_broken_weight(network.state_dict()) == "bias of module 'layer2.0.bn1'"


def test_first_broken_output_is_named() -> None:
    network = tiny(dropout=0.0)
    with torch.no_grad():
        network.get_submodule("fc").weight.fill_(3e38)
    assert first_broken_module(network, torch.randn(1, 3, 4, 16, 16)) == (
        "the output of module 'fc'"
    )


# --- prepare


def test_norms_have_no_weight_decay() -> None:
    network = tiny()
    optimizer = make_optimizer(network, plan())
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert len(decays) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        is_norm = ".bn" in f".{name}" or ".norm." in name or "downsample.1" in name
        assert decays[id(parameter)] == (0.0 if is_norm else 1e-4), name


def test_optimizers_follow_the_plan() -> None:
    sgd = make_optimizer(tiny(), plan(lr=0.25, momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, True)
    adamw = make_optimizer(tiny(), plan(optimizer="adamw", lr=0.25))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["lr"] == 0.25


def test_tsms_rates() -> None:
    """Head's weight 5, its bias 10, other biases 2 without decay, norms 1 without decay."""
    network = tiny()
    optimizer = make_optimizer(network, plan(head_lr=5.0, bias_lr=2.0, bias_decay=False))
    found = {
        id(p): (group["rate"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    got = {name: found[id(p)] for name, p in network.named_parameters()}
    assert got["fc.weight"] == (5.0, 1e-4)
    assert got["fc.bias"] == (10.0, 0.0)
    assert got["conv1.weight"] == (1.0, 1e-4)
    assert got["layer2.0.non_local.g.bias"] == (2.0, 0.0)
    assert got["bn1.bias"] == got["layer2.0.non_local.norm.weight"] == (1.0, 0.0)


def test_partial_norms_are_all_but_the_first() -> None:
    network, p = tiny(), replace(plan(), freeze_later_norms=True)
    freeze(network, p)
    set_modes(network, p)
    norms = {n: m for n, m in network.named_modules() if isinstance(m, nn.BatchNorm3d)}
    assert len(norms) > 2
    for name, norm in norms.items():
        assert norm.training == norm.weight.requires_grad == (name == "bn1")
    assert network.get_submodule("layer2.0.non_local.norm").training


def test_frozen_backbone_leaves_head_and_blocks() -> None:
    network, p = tiny(), replace(plan(), freeze_backbone=True)
    freeze(network, p)
    set_modes(network, p)
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning == {
        name for name, _ in network.named_parameters() if "non_local" in name or "fc." in name
    }
    assert not network.get_submodule("layer1.0.bn1").training
    assert network.get_submodule("layer2.0.non_local.norm").training
    assert network.get_submodule("dropout").training
    assert not why_stuck(network, make_optimizer(network, p))


def test_frozen_norms_keep_their_statistics() -> None:
    network, p = tiny(), replace(plan(), freeze_norm=True)
    freeze(network, p)
    set_modes(network, p)
    before = {n: b.clone() for n, b in network.named_buffers()}
    network(torch.randn(2, 3, 4, 16, 16))
    moved = {n for n, b in network.named_buffers() if not torch.equal(b, before[n])}
    assert moved == {n for n in before if "non_local" in n}
    assert not network.get_submodule("bn1").weight.requires_grad
    assert network.get_submodule("conv1").weight.requires_grad


def test_start_from_another_run(tmp_path: Path) -> None:
    network = tiny()
    network.card = replace(card_of(network), mean=(0.1, 0.2, 0.3))  # type: ignore[assignment]
    with torch.no_grad():
        network.get_submodule("layer2.0.non_local").theta.weight.fill_(0.5)  # type: ignore[union-attr]
    save(network, tmp_path / "model.safetensors")
    other = make_network(Recipe(model="c2d_tiny", non_local=("layer2.0", "layer3.0")), 5)
    words = start_from(other, str(tmp_path))
    theirs = network.state_dict()
    for name, tensor in other.state_dict().items():
        same = name in theirs and theirs[name].shape == tensor.shape
        assert not same or torch.equal(theirs[name], tensor), name
    assert card_of(other).mean == (0.1, 0.2, 0.3)
    assert card_of(other).architecture["num_classes"] == 5
    new = sum(name.startswith("layer3.0.non_local.") for name in other.state_dict())
    total = len(other.state_dict())
    assert f"{total - new - 2} of {total} tensors" in words
    with pytest.raises(UserError, match=r"c2d_tiny.*do not fit c2d_resnet18"):
        start_from(make_network(Recipe(model="c2d_resnet18", non_local=0), 2), str(tmp_path))


def test_a_backbone_without_blocks_and_head(tmp_path: Path) -> None:
    """How Caffe2's long clips begin; with them is the paper's sentence."""
    save(tiny(), tmp_path / "model.safetensors")
    theirs = tiny().state_dict()
    for everything in (True, False):
        torch.manual_seed(1)
        other = make_network(Recipe(model="c2d_tiny", non_local=1), 3)
        fresh = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        words = start_from(other, str(tmp_path), everything)
        state = other.state_dict()
        for name in ("fc.weight", "layer2.0.non_local.theta.weight"):
            assert torch.equal(state[name], (theirs if everything else fresh)[name])
        assert torch.equal(state["conv1.weight"], theirs["conv1.weight"])
        assert ("new are the head" in words) != everything


def test_unknown_model_is_a_sentence() -> None:
    with pytest.raises(UserError, match="c2d_tiny"):
        make_network(Recipe(model="resnet"), 2)


# --- machine


def test_clip_bytes_counts_what_is_saved() -> None:
    # conv saves its input (padded to nothing), relu its output; the linear layer's input is saved
    network = nn.Sequential(
        nn.Conv3d(3, 8, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 2 * 4 * 4, 2)
    )
    inputs, features = 3 * 2 * 4 * 4, 8 * 2 * 4 * 4
    assert clip_bytes(network, (3, 2, 4, 4)) == 4 * (inputs + features)
    assert clip_bytes(network, (3, 2, 4, 4)) * 4 == clip_bytes(
        nn.Sequential(*network[:2]), (3, 8, 4, 4)
    )


def test_clips_that_fit_fill_half_the_memory() -> None:
    network = nn.Sequential(nn.Conv3d(3, 8, 1, bias=False), nn.ReLU())
    one = clip_bytes(network, (3, 2, 4, 4))
    weights = 3 * 8 * 4
    machine = Machine(memory=2 * (3 * weights + int(1.5 * one * 10) + 1))
    assert clips_that_fit(network, machine, (3, 2, 4, 4), 64) == 10
    assert clips_that_fit(network, machine, (3, 2, 4, 4), 7) == 7
    with pytest.raises(UserError, match="not even one clip of 2 frames at 4x4"):
        clips_that_fit(network, replace(machine, memory=weights), (3, 2, 4, 4), 64)


def test_estimating_touches_nothing() -> None:
    network = tiny(dropout=0.5).train()
    before = {n: b.clone() for n, b in network.state_dict().items()}
    state = torch.get_rng_state()
    clip_bytes(network, (3, 8, 32, 32))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(b, before[n]) for n, b in network.state_dict().items())


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = this_machine("cpu")
    assert alone.device == "cpu"
    assert alone.memory > 0
    assert alone.cores == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else True
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    shared = this_machine("cpu")
    assert shared.processes == 8
    assert shared.cores == max(1, alone.cores // 4)
    assert shared.memory < alone.memory / 2
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    this_machine("cpu")  # torchrun under srun
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(UserError, match="one torchrun per machine"):
        this_machine("cpu")
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="'cuda' was asked for"):
        this_machine("cuda")

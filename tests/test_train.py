"""Training on a small rendered folder: exact resumption, accumulation, what can go wrong."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

import nonlocalnet.train as train_module
import nonlocalnet.training.run as run_module
from nonlocalnet.datasets import VideoDataset, ViewDataset
from nonlocalnet.errors import UserError
from nonlocalnet.folders import read_folder
from nonlocalnet.listings.data import Data, as_data
from nonlocalnet.models import create_model
from nonlocalnet.precision import mean_average_precision
from nonlocalnet.protocols import RECIPES
from nonlocalnet.recipes import Recipe
from nonlocalnet.samples import Action, Split
from nonlocalnet.scoring import score
from nonlocalnet.synthetic import render_reunion
from nonlocalnet.train import train
from nonlocalnet.training import batches, checkpoint, validate
from nonlocalnet.training.batches import epoch_order
from nonlocalnet.training.interrupt import Stopped
from nonlocalnet.training.plan import Plan
from nonlocalnet.transforms import normalize
from nonlocalnet.video import write_video
from nonlocalnet.weights import load, save

# with dropout, so that a resumed run needs the random state
TINY = replace(
    RECIPES["reunion"],
    epochs=4,
    accumulate_to=8,
    batch=4,
    optimizer="sgd",
    lr=0.1,
    dropout=0.3,
    workers=0,
    device="cpu",
    log_steps=1,
    save_steps=3,
)
STEPS = 16  # 4 epochs of 4 steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_reunion(tmp_path_factory.mktemp("data") / "reunion", train=32, val=8)


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupted."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(folder, TINY, out, quiet=True)
    return out


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, best weights, momentum, position and curve, all to the last bit."""
    a, b = checkpoint.read(one / "last.ckpt"), checkpoint.read(other / "last.ckpt")
    assert a["state"] == b["state"]
    assert a["model"].keys() == b["model"].keys()
    for name in a["model"]:
        assert torch.equal(a["model"][name], b["model"][name]), name
    assert a["optimizer"]["state"].keys() == b["optimizer"]["state"].keys() != set()
    for index, state in a["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, b["optimizer"]["state"][index][name]), (index, name)
    assert torch.equal(a["random"][0]["cpu"], b["random"][0]["cpu"])
    assert (one / "log.jsonl").read_text() == (other / "log.jsonl").read_text()
    best, others = load(one), load(other)
    assert best.card == others.card
    for name, tensor in best.state_dict().items():
        assert torch.equal(tensor, others.state_dict()[name]), name


def test_a_finished_run(folder: Path, whole: Path) -> None:
    result = train(folder, TINY, whole, resume=True, quiet=True)  # nothing left to do
    assert any("is finished: all its 16 steps are done" in word for word in result.words)
    lines = [line for line in result.curves if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    checks = [line["validation accuracy"] for line in result.curves if "validation loss" in line]
    assert len(checks) == 4
    assert result.accuracy == max(checks)
    assert result.broken == ()
    model = load(whole)
    assert model.card.classes == (  # type: ignore[union-attr]
        "different_left",
        "different_right",
        "same_left",
        "same_right",
    )
    assert model.card.frames == 8  # type: ignore[union-attr]
    stored = json.loads((whole / "recipe.json").read_text())
    assert stored["plan"]["steps_per_epoch"] == 4
    assert any("loss" not in word for word in stored["words"])
    assert sorted(p.name for p in whole.iterdir()) == [
        "last.ckpt",
        "log.jsonl",
        "model.safetensors",
        "recipe.json",
        "split.json",
        "tensorboard",
    ]


def test_caller_keeps_its_random_state(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(folder, replace(TINY, epochs=1), tmp_path / "run", quiet=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_decides(folder: Path, whole: Path, tmp_path: Path) -> None:
    train(folder, TINY, tmp_path / "same", quiet=True)
    assert_same_run(tmp_path / "same", whole)
    train(folder, replace(TINY, seed=1, epochs=1), tmp_path / "other", quiet=True)
    ours, others = (checkpoint.read(p / "last.ckpt") for p in (whole, tmp_path / "other"))
    assert not torch.equal(ours["model"]["conv1.weight"], others["model"]["conv1.weight"])


# --- killed, interrupted, resumed


def _train_until_killed(folder: Path, out: Path, recipe: Recipe, at: int, delay: float) -> None:
    """In a process of its own: SIGKILL `delay` seconds after step `at` has begun."""
    torch.set_num_threads(1)
    # else readers would be started like this process, each importing torch anew
    multiprocessing.set_start_method("fork", force=True)
    real = train_module.learning_rate

    def rate(plan: Plan, step: int) -> float:
        if step == at:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return real(plan, step)

    train_module.learning_rate = rate  # type: ignore[assignment]
    train(folder, recipe, out, resume=(out / "recipe.json").exists(), quiet=True)
    if at >= 0:
        time.sleep(60)  # the run was faster than the signal


def _in_a_process(*arguments: object) -> int:
    # a fresh server that has imported torch forks quickly and safely
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nonlocalnet.train"])
    process = context.Process(target=_train_until_killed, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_sigkill_at_random_steps_changes_no_bit(
    folder: Path, whole: Path, tmp_path: Path, workers: int
) -> None:
    draw = random.Random(workers)
    out, recipe = tmp_path / "run", replace(TINY, workers=workers)
    for step in sorted(draw.sample(range(STEPS), 5)):
        code = _in_a_process(folder, out, recipe, step, draw.uniform(0, 0.1))
        assert code == -signal.SIGKILL
        if (out / "last.ckpt").exists():  # whole at any moment
            assert 0 < checkpoint.read(out / "last.ckpt")["state"]["step"] <= STEPS
    assert _in_a_process(folder, out, recipe, -1, 0.0) == 0
    assert_same_run(out, whole)


def _at_step(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], object]) -> None:
    real = train_module.learning_rate

    def rate(plan: Plan, step: int) -> float:
        if step == at:
            act()
        return real(plan, step)

    monkeypatch.setattr(train_module, "learning_rate", rate)


@pytest.mark.parametrize(
    ("number", "name", "step"), [(signal.SIGINT, "Ctrl-C", 5), (signal.SIGTERM, "SIGTERM", 7)]
)
def test_ctrl_c_finishes_the_step_and_leaves_a_resumable_run(
    folder: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    name: str,
    step: int,
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        _at_step(patch, step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Stopped) as caught:
            train(folder, TINY, tmp_path / "run", quiet=True)
    assert caught.value.exit_code == 130
    assert f"stopped by {name} after step {step + 1} of {STEPS}" in str(caught.value)
    assert "--resume" in str(caught.value)
    assert signal.getsignal(number) is before
    # after step 7 comes the end of an epoch, whose validation is given up and made up for
    train(folder, TINY, tmp_path / "run", resume=True, quiet=True)
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_is_as_orderly(
    folder: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    """A terminal or a batch system signals the reading processes as well."""
    reached = []

    def to_all() -> None:
        for reader in multiprocessing.active_children():
            assert reader.pid is not None
            reached.append(reader.pid)
            os.kill(reader.pid, number)
        time.sleep(0.3)  # for a reader that would die of it to do so
        os.kill(os.getpid(), number)

    recipe = replace(TINY, workers=2)
    with monkeypatch.context() as patch:
        _at_step(patch, 5, to_all)
        with pytest.raises(Stopped, match="after step 6 of 16"):
            train(folder, recipe, tmp_path / "run", quiet=True)
    assert len(reached) >= 2
    train(folder, recipe, tmp_path / "run", resume=True, quiet=True)
    assert_same_run(tmp_path / "run", whole)
    left = {reader.pid for reader in multiprocessing.active_children()}
    assert not left & set(reached)


def test_ctrl_c_while_validating(
    folder: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = validate.score

    def score(*arguments: object) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(validate, "score", score)
        with pytest.raises(Stopped, match="after step 4 of 16"):
            train(folder, TINY, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    train(folder, TINY, tmp_path / "run", resume=True, quiet=True)
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.skipif(sys.platform != "linux", reason="the patch reaches forked readers only")
@pytest.mark.parametrize("kind", [VideoDataset, ViewDataset])
def test_a_signal_ends_a_wait_for_readers_that_hang(
    folder: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    recipe, real = replace(TINY, workers=1), kind.__getitem__
    before = set(multiprocessing.active_children())

    def hanging(self: object, key: Any) -> object:
        # in the middle of the second epoch, or of the first validation
        if key == (1, epoch_order(32, TINY.seed, 1)[8]) or key == 5:
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(1000)
        return real(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "__getitem__", hanging)
        patch.setattr(batches, "GRACE", 1.0)
        began = time.monotonic()
        with pytest.raises(Stopped, match="stopped by SIGTERM") as caught:
            train(folder, recipe, tmp_path / "run", quiet=True)
        assert time.monotonic() - began < 60
    assert "--resume" in str(caught.value)
    assert not set(multiprocessing.active_children()) - before  # nor hang when the program ends
    train(folder, recipe, tmp_path / "run", resume=True, quiet=True)
    assert_same_run(tmp_path / "run", whole)


def test_killed_before_the_first_checkpoint(folder: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for name in ("recipe.json", "split.json"):
        shutil.copy(whole / name, out)
    (out / "log.jsonl").write_text('{"step": 1, "epoch": 0, "loss": 1.0}\n{"ste')
    # what the recipe leaves at its default is taken from the run
    train(folder, Recipe(workers=0), out, resume=True, quiet=True)
    assert_same_run(out, whole)


def test_resumes_after_the_folder_moved(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "before")
    recipe = replace(TINY, epochs=1)
    train(tmp_path / "before", recipe, tmp_path / "run", quiet=True)
    (tmp_path / "before").rename(tmp_path / "after")
    result = train(tmp_path / "after", recipe, tmp_path / "run", resume=True, quiet=True)
    assert len([line for line in result.curves if "loss" in line]) == 4


# --- what a step computes


def test_shares_of_the_first_step_worked_out_by_hand(folder: Path, whole: Path) -> None:
    """|z - x| / |x| over the 8 clips of a step, which come in two batches of 4."""
    name = "layer2.0.non_local"
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert all((f"block {name}" in line) == ("loss" in line) for line in lines)  # one curve
    torch.manual_seed(TINY.seed)
    network = create_model("i3d_tiny", 4, 1, zero_init="none", init="msra", dropout=0.3).train()
    seen: list[list[float]] = []

    def hook(_: object, inputs: tuple[torch.Tensor], z: torch.Tensor) -> None:
        x = inputs[0].detach().double()
        seen.append([float(((z.detach() - x) ** 2).sum()), float((x**2).sum())])

    network.get_submodule(name).register_forward_hook(hook)
    card = load(whole).card
    videos = VideoDataset(read_folder(folder).train, card, TINY.seed)  # type: ignore[arg-type]
    items = [videos[0, index] for index in epoch_order(32, TINY.seed, 0)[:8]]
    clips = torch.stack([item[0] for item in items])  # type: ignore[index]
    for batch in clips.split(4):
        network(normalize(batch, card))  # type: ignore[arg-type]
    added, there = (sum(column) for column in zip(*seen, strict=True))
    assert lines[0]["step"] == 1
    assert lines[0][f"block {name}"] == pytest.approx(math.sqrt(added / there), rel=1e-5)


def test_the_log_begins_with_the_first_step(folder: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=2, log_steps=3, zero_init="norm")
    curves = train(folder, recipe, tmp_path / "run", quiet=True).curves
    shares = {line["step"]: line["block layer2.0.non_local"] for line in curves if "loss" in line}
    assert list(shares) == [1, 3, 4, 6, 8]
    assert shares.pop(1) == 0  # the identity
    assert all(share > 0 for share in shares.values())


def test_a_block_that_does_not_wake_up_is_told_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the run's words and in the report's, also where the run was stopped afterwards."""
    out = tmp_path / "run"
    recipe = replace(TINY, epochs=2, lr=1e-5, zero_init="norm", wake_steps=4, log_steps=20)
    with monkeypatch.context() as patch:
        _at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Stopped):
            train(folder, recipe, out, quiet=True)
    result = train(folder, recipe, out, resume=True, quiet=True)
    text = "warning: layer2.0.non_local has hardly woken up after 4 steps: nothing keeps it from"
    for words in (result.words, json.loads((out / "recipe.json").read_text())["words"]):
        told = [word for word in words if "woken up" in word]
        assert len(told) == 1
        assert told[0].startswith(text)
        assert "% after 2: it grows" in told[0]


def _spoil(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], object]) -> None:
    real = run_module.make_network

    def make(recipe: Recipe, classes: int) -> torch.nn.Module:
        network = real(recipe, classes)
        spoil(network.get_submodule("layer2.0.non_local"))
        return network

    monkeypatch.setattr(run_module, "make_network", make)


def test_what_is_known_at_the_start_is_told_there_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoil(monkeypatch, lambda block: torch.nn.init.zeros_(block.out.weight))
    recipe = replace(TINY, epochs=1, wake_steps=2, zero_init="norm")
    words = train(folder, recipe, tmp_path / "run", quiet=True).words
    told = [word for word in words if "W_z and the gain of its norm are both 0" in word]
    assert len(told) == 1
    assert told[0].startswith("warning: layer2.0.non_local will not learn: ")
    assert not any("identity" in word or "woken up" in word for word in words)


def test_a_block_that_no_gradient_reaches_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoil(
        monkeypatch,
        lambda block: block.register_forward_hook(lambda _, inputs, z: z.detach()),
    )
    recipe = replace(TINY, epochs=1, wake_steps=2)
    words = train(folder, recipe, tmp_path / "run", quiet=True).words
    assert [word for word in words if "woken up" in word] == [
        "warning: layer2.0.non_local has not woken up after 2 steps: no gradient comes to it,"
        " though other parts of the network have one: what the block after 'layer2.0' gives out"
        " does not reach the loss (unused, detached, under no_grad, or multiplied by 0)"
    ]


@pytest.mark.parametrize("weights", [False, True])
def test_accumulation_equals_the_big_batch(folder: Path, tmp_path: Path, weights: bool) -> None:
    # without batch statistics and dropout the two are the same function
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    for path in sorted((data / "train" / "same_left").iterdir())[2:]:
        path.unlink()  # classes of 8, 8, 8 and 2
    recipe = replace(
        TINY, dropout=0.0, freeze_norm=True, norm="none", zero_init="out", class_weights=weights
    )
    found = []
    for batch in (8, 4, 2, 1):
        out = tmp_path / f"{batch}"
        train(data, replace(recipe, epochs=2, batch=batch), out, quiet=True)
        found.append(checkpoint.read(out / "last.ckpt"))
    start = create_model("i3d_tiny", 4, 1, norm="none", zero_init="out").state_dict()
    for name, tensor in found[0]["model"].items():
        for other in found[1:]:
            torch.testing.assert_close(other["model"][name], tensor, rtol=1e-4, atol=1e-6)
    assert not torch.equal(found[0]["model"]["conv1.weight"], start["conv1.weight"])


def test_one_step_is_the_mean_gradient_worked_out_by_hand(folder: Path, tmp_path: Path) -> None:
    recipe = replace(
        TINY,
        non_local=0,
        dropout=0.0,
        freeze_norm=True,
        epochs=1,
        accumulate_to=32,
        lr=0.5,
        schedule="cosine",
        weight_decay=0.0,
        clip_grad=0.0,
        momentum=0.75,
    )
    line = train(folder, recipe, tmp_path / "run", quiet=True).curves[0]
    got = checkpoint.read(tmp_path / "run" / "last.ckpt")["model"]

    torch.manual_seed(recipe.seed)
    network = create_model("i3d_tiny", 4, 0, dropout=0.0).eval()
    split = read_folder(folder)
    card = load(tmp_path / "run").card
    videos = VideoDataset(split.train, card, recipe.seed)  # type: ignore[arg-type]
    items = [videos[0, index] for index in epoch_order(32, recipe.seed, 0)]
    clips = torch.stack([item[0] for item in items])  # type: ignore[index]
    labels = torch.tensor([item[1] for item in items])  # type: ignore[index]
    logits = network(normalize(clips, card))  # type: ignore[arg-type]
    loss = -logits.log_softmax(1)[range(32), labels].mean()
    loss.backward()
    assert line["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert line["accuracy"] == (logits.argmax(1) == labels).float().mean().item()
    for name, parameter in network.named_parameters():
        frozen = "bn" in name or "downsample.1" in name
        # Nesterov's first step is (1 + momentum) times the gradient
        step = 0.0 if frozen else 0.5 * 1.75
        assert parameter.grad is not None
        expected = parameter.detach() - step * parameter.grad
        torch.testing.assert_close(got[name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_few_video_mode_moves_head_and_blocks_only(
    folder: Path, whole: Path, tmp_path: Path
) -> None:
    recipe = replace(TINY, epochs=1, pretrained=str(whole), freeze_backbone=True)
    result = train(folder, recipe, tmp_path / "run", quiet=True)
    before = load(whole).state_dict()
    after = checkpoint.read(tmp_path / "run" / "last.ckpt")["model"]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {n for n in moved if "non_local" not in n} == {"fc.weight", "fc.bias"}
    assert "layer2.0.non_local.out.weight" in moved
    assert any(word.startswith(f"starts from {whole}") for word in result.words)


PLAIN = {
    name: getattr(Recipe(), name)
    for name in ("non_local", "pairwise", "mode", "subsample", "scale", "norm", "zero_init", "init")
}


def test_a_trained_network_as_the_model(folder: Path, whole: Path, tmp_path: Path) -> None:
    """Its layers, blocks and preprocessing, a new head; and it goes on after a stop."""
    trained = load(whole)
    card = replace(trained.card, frames=6, mean=(0.1, 0.2, 0.3))  # type: ignore[type-var]
    trained.card = card  # type: ignore[assignment]
    model = tmp_path / "trained.safetensors"
    save(trained, model)
    own = {"frames": None, "stride": None, "colours": None, "dropout": None}
    recipe = replace(TINY, **PLAIN, **own, model=str(model), epochs=1, freeze_backbone=True)
    result = train(folder, recipe, tmp_path / "run", quiet=True)
    assert f"starts from {model}, with a new head" in result.words
    after = load(tmp_path / "run")
    assert after.card.architecture == card.architecture  # type: ignore[union-attr]
    assert (after.card.frames, after.card.mean) == (6, (0.1, 0.2, 0.3))  # type: ignore[union-attr]
    before, state = trained.state_dict(), after.state_dict()
    moved = {name for name in before if not torch.equal(before[name], state[name])}
    assert {n for n in moved if "non_local" not in n} == {"fc.weight", "fc.bias"}
    model.unlink()
    again = train(folder, recipe, tmp_path / "run", resume=True, quiet=True)
    assert any("is finished" in word for word in again.words)
    with pytest.raises(UserError, match="neither a file nor"):
        train(folder, recipe, tmp_path / "new", quiet=True)
    other = replace(recipe, model=str(whole), non_local=1, pairwise="dot_product")
    with pytest.raises(UserError, match=r"as they are: leave out --non-local, --pairwise$"):
        train(folder, other, tmp_path / "other", quiet=True)
    assert not (tmp_path / "other").exists()


def test_it_learns_from_a_plain_folder(tmp_path: Path) -> None:
    """Red or blue, from a folder without train/ and val/, in a minute's tenth."""
    noise = torch.Generator().manual_seed(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(20):
            frames = torch.randint(0, 150, (10, 36, 48, 3), generator=noise)
            frames[..., channel] += 40
            # no common beginning of the names: each is a recording of its own
            path = tmp_path / "data" / name / f"{chr(97 + i)}{name}.mp4"
            write_video(path, frames.to(torch.uint8), 8)
    recipe = replace(RECIPES["reunion"], epochs=8, accumulate_to=4, workers=1, device="cpu")
    result = train(tmp_path / "data", recipe, tmp_path / "run", quiet=True)
    losses = [line["loss"] for line in result.curves if "loss" in line]
    assert losses[-1] < 0.3 * losses[0]
    assert result.accuracy == 1.0


# --- several labels, true statistics


def _two_labels_each(data: Data | Path, *_: object) -> Split:
    """What the balls' colours are and where they go, as two labels of each video."""
    split = read_folder(as_data(data).path)
    train, val = (
        tuple(
            replace(s, label=-1, actions=(Action(s.label // 2), Action(2 + s.label % 2)))
            for s in side
        )
        for side in (split.train, split.val)
    )
    return replace(split, classes=("different", "same", "left", "right"), train=train, val=val)


def test_several_labels_a_video(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "read_data", _two_labels_each)
    recipe = replace(TINY, epochs=2, class_weights=None)
    result = train(folder, recipe, tmp_path / "run", quiet=True)
    checks = [line for line in result.curves if "validation loss" in line]
    assert [line["step"] for line in checks] == [4, 8]
    assert result.accuracy == max(c["validation mean average precision"] for c in checks)
    assert "first answer right" in result.curves[0]
    assert 0.3 < result.curves[0]["loss"] < 1.5  # the mean over four classes, not their sum
    best = load(tmp_path / "run")
    assert best.card.activation == "sigmoid"  # type: ignore[union-attr]
    views = ViewDataset(_two_labels_each(folder).val, best.card, 1, 1)  # type: ignore[arg-type]
    items = [views[i] for i in range(len(views))]
    logits = [score(best, item.clips)[0].tolist() for item in items]  # type: ignore[union-attr]
    there = [[float(k in item.sample.labels) for k in range(4)] for item in items]  # type: ignore[union-attr]
    assert result.accuracy == pytest.approx(mean_average_precision(logits, there))
    losses = [
        math.log1p(math.exp(-v if t else v))
        for row, wanted in zip(logits, there, strict=True)
        for v, t in zip(row, wanted, strict=True)
    ]
    found = max((c["validation mean average precision"], -c["validation loss"]) for c in checks)
    assert -found[1] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    again = train(folder, recipe, tmp_path / "run", resume=True, quiet=True)
    assert any("is finished" in word for word in again.words)


def test_precise_statistics_are_validated_and_leave_training_alone(
    folder: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(TINY, precise_norm=3)
    with monkeypatch.context() as patch:
        _at_step(patch, 9, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            train(folder, recipe, tmp_path / "run", quiet=True)
    train(folder, recipe, tmp_path / "run", resume=True, quiet=True)
    train(folder, recipe, tmp_path / "straight", quiet=True)
    assert_same_run(tmp_path / "run", tmp_path / "straight")
    # the weights, and what goes on with them, are those of the run without
    ours, others = (checkpoint.read(p / "last.ckpt") for p in (tmp_path / "run", whole))
    for name, tensor in others["model"].items():
        assert torch.equal(ours["model"][name], tensor), name
    assert torch.equal(ours["random"][0]["cpu"], others["random"][0]["cpu"])

    one = replace(recipe, epochs=1)
    train(folder, one, tmp_path / "one", quiet=True)
    best = load(tmp_path / "one")
    # after 4 steps of 8 clips, those of the steps 4, 5 and 6, which are of a second epoch
    videos = VideoDataset(read_folder(folder).train, best.card, TINY.seed)  # type: ignore[arg-type]
    order = epoch_order(32, TINY.seed, 1)[:24]
    state = checkpoint.read(tmp_path / "one" / "last.ckpt")["model"]
    network = create_model(**best.card.architecture)  # type: ignore[union-attr]
    network.load_state_dict(state)
    values: list[torch.Tensor] = []
    network.get_submodule("bn1").register_forward_pre_hook(lambda _, x: values.append(x[0]))
    clips = torch.stack([videos[1, index][0] for index in order])  # type: ignore[index]
    with torch.no_grad():
        network.train()(normalize(clips, best.card))  # type: ignore[arg-type]
    columns = values[0].transpose(0, 1).flatten(1)
    norm = best.get_submodule("bn1")
    torch.testing.assert_close(norm.running_mean, columns.mean(1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_var, columns.var(1), rtol=1e-3, atol=1e-6)
    assert not torch.equal(norm.running_mean, state["bn1.running_mean"])  # type: ignore[arg-type]


# --- files and folders


def _copy_with_junk(folder: Path, to: Path, *names: str) -> Path:
    shutil.copytree(folder, to)
    for name in names:
        (to / name).write_bytes(b"\x00\x01this is no video" * 40)
    return to


def test_broken_files_are_told_once_skipped_and_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["train/same_left/99999.mp4", "train/same_right/99999.mp4", "val/same_left/99999.mp4"]
    data = _copy_with_junk(folder, tmp_path / "data", *names)
    result = train(data, replace(TINY, epochs=3, batch=1, accumulate_to=2), tmp_path / "run")
    said = capsys.readouterr().out
    assert sorted(Path(b.path).relative_to(data).as_posix() for b in result.broken) == names
    assert all(b.reason for b in result.broken)
    for name in names:
        assert said.count(f"skipped {data / name}: ") == 1
    assert "3 files could not be read" in said
    assert "clips/s, network" in said  # the rates, although the run was short
    checks = [line for line in result.curves if "validation loss" in line]
    assert len(checks) == 3
    assert " of 8 clips" in said


def test_nothing_readable_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    for path in (tmp_path / "data" / "train").glob("*/*.mp4"):
        path.write_bytes(b"\x00\x01no video at all" * 10)
    with pytest.raises(UserError, match="none of the training videos could be read"):
        train(tmp_path / "data", TINY, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def _ruin(folder: Path, data: Path, *classes: str) -> Path:
    shutil.copytree(folder, data)
    for name in classes:
        for path in (data / "train" / name).glob("*.mp4"):
            path.write_bytes(b"\x00\x01no video at all" * 10)
    return data


def test_a_class_without_a_readable_video_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _ruin(folder, tmp_path / "data", "same_left")
    train(data, replace(TINY, epochs=2), tmp_path / "run")
    said = capsys.readouterr().out
    assert said.count("warning: not one training video of 'same_left' could be read") == 1
    assert "warning: the network never saw 'same_left'" in said


def test_a_single_readable_class_is_refused(folder: Path, tmp_path: Path) -> None:
    ruined = ("same_left", "same_right", "different_left")
    data = _ruin(folder, tmp_path / "data", *ruined)
    with pytest.raises(UserError, match="not one training video of 'different_left', 'same_left'"):
        train(data, TINY, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_validation_without_a_readable_video(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    for path in (tmp_path / "data" / "val").glob("*/*.mp4"):
        path.write_bytes(b"\x00\x01no video at all" * 10)
    result = train(tmp_path / "data", replace(TINY, epochs=1), tmp_path / "run", quiet=True)
    assert result.accuracy is None
    assert len(result.broken) == 8
    load(tmp_path / "run")


# --- numbers that break


def test_a_loss_that_is_no_number_stops_the_run(folder: Path, whole: Path, tmp_path: Path) -> None:
    poisoned = load(whole)
    with torch.no_grad():
        poisoned.get_submodule("layer2.0.conv1").weight[0] = float("nan")  # type: ignore[index,operator]
    save(poisoned, tmp_path / "bad.safetensors")
    recipe = replace(TINY, pretrained=str(tmp_path / "bad.safetensors"))
    with pytest.raises(UserError) as caught:
        train(folder, recipe, tmp_path / "run", quiet=True)
    text = str(caught.value)
    assert text.startswith("step 1: the loss is nan")
    assert "weight of module 'layer2.0.conv1'" in text
    files = [part for part in re.split("[, ]|[.] ", text) if part.endswith(".mp4")]
    assert len(files) == len({f for f in files if Path(f).exists()}) == 8
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_diverging_keeps_the_last_good_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train_module.learning_rate
    monkeypatch.setattr(
        train_module, "learning_rate", lambda p, step: 1e30 if step >= 4 else real(p, step)
    )
    recipe = replace(TINY, save_steps=1, clip_grad=0.0)
    with pytest.raises(UserError, match=r"step \d+"):
        train(folder, recipe, tmp_path / "run", quiet=True)
    saved = checkpoint.read(tmp_path / "run" / "last.ckpt")
    assert saved["state"]["step"] >= 4
    assert all(bool(t.isfinite().all()) for t in saved["model"].values())


# --- refusals


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"preset": "mmaction-i3d", "frames": 2, "stride": 2}, "Output size is too small"),
        ({"preset": "lfb", "frames": 6, "stride": 2}, "3 frames do not divide into groups of 4"),
        ({"preset": "lfb", "frames": 6, "stride": 2, "batch": 2}, "groups of 4; see --frames"),
    ],
)
def test_clips_that_the_network_cannot_take(
    changed: dict[str, Any], match: str, folder: Path, tmp_path: Path
) -> None:
    recipe = replace(TINY, model="i3d_tiny", non_local=1, **changed)
    with pytest.raises(UserError, match=match):
        train(folder, recipe, tmp_path / "run", quiet=True)


def test_a_run_is_not_overwritten(folder: Path, whole: Path) -> None:
    before = {p: p.read_bytes() for p in whole.iterdir() if p.is_file()}
    with pytest.raises(UserError, match=r"holds a run already.*--resume.*-o"):
        train(folder, TINY, whole, quiet=True)
    assert before == {p: p.read_bytes() for p in whole.iterdir() if p.is_file()}


def test_nothing_to_resume(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to resume"):
        train(folder, TINY, tmp_path / "nowhere", resume=True, quiet=True)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "c2d_tiny"}, r"model 'i3d_tiny'.*'c2d_tiny'"),
        ({"lr": 0.5}, r"lr 0.1.*0.5"),
        ({"accumulate_to": 4}, r"accumulate to 8.*4"),
    ],
)
def test_resuming_another_recipe_is_refused(
    folder: Path, whole: Path, change: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        train(folder, replace(TINY, **change), whole, resume=True, quiet=True)  # type: ignore[arg-type]


def test_resuming_on_other_data_is_refused(folder: Path, whole: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    shutil.copytree(folder, more)
    shutil.copy(next((more / "train/same_left").iterdir()), more / "train/same_left/new.mp4")
    with pytest.raises(UserError, match=r"began with 32 train videos.* has 33, .*new\.mp4"):
        train(more, TINY, whole, resume=True, quiet=True)
    named = tmp_path / "named"
    shutil.copytree(folder, named)
    for side in ("train", "val"):
        (named / side / "same_left").rename(named / side / "other")
    with pytest.raises(UserError, match=r"same_left.*and this folder has .*other"):
        train(named, TINY, whole, resume=True, quiet=True)


def test_resuming_a_damaged_checkpoint_is_refused(
    folder: Path, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    last = tmp_path / "run" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last\.ckpt cannot be read"):
        train(folder, TINY, tmp_path / "run", resume=True, quiet=True)


def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot write .*/file is a file; choose another folder"):
        train(folder, TINY, tmp_path / "file" / "run", quiet=True)
    for resume in (False, True):
        with pytest.raises(UserError, match="/file is a file; choose a folder"):
            train(folder, TINY, tmp_path / "file", resume=resume, quiet=True)


def test_a_disk_that_fills_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = tmp_path / "run"

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # checkpoints take 750 kB

    _at_step(monkeypatch, 7, fill)
    try:
        with pytest.raises(UserError, match=r"cannot write"):
            train(folder, replace(TINY, save_steps=3), out, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.read(out / "last.ckpt")["state"]["step"] == 6
    monkeypatch.undo()
    assert train(folder, TINY, out, resume=True, quiet=True).curves[-1]["step"] == STEPS

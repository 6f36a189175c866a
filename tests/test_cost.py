from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nonlocalnet import NonLocalBlock, create_model, insert
from nonlocalnet.card import card_of
from nonlocalnet.cost import compare_functions, cost, momentum_bytes
from nonlocalnet.errors import UserError
from nonlocalnet.models import MODELS
from nonlocalnet.ops import PAIRWISE

CLIPS = {  # with so many of them in inference and in training
    "i3d_resnet18": ((3, 32, 160, 160), 2, 1),
    "i3d_tiny": ((3, 8, 32, 32), 72, 20),
    "block": ((256, 21, 20, 40), 1, 1),  # 16,800 positions
}


def build(name: str, pairwise: str) -> nn.Module:
    if name == "block":
        return NonLocalBlock(256, pairwise=pairwise)
    if name == "i3d_tiny":  # wide, with its block where there are most positions
        return create_model(name, 10, non_local="res2", width=64, pairwise=pairwise)
    return create_model(name, 10, non_local=5, pairwise=pairwise)


MEASURE = """
import ctypes, gc, json, sys, torch
import torch._dynamo  # as torch itself does at the first call of some operators
torch.set_num_threads(1)
from test_cost import CLIPS, build

def step(model, batch, shape, train):
    clips = torch.randn(batch, *shape)
    with torch.set_grad_enabled(train):
        out = model.train(train)(clips)
        if train:
            out.backward(torch.randn_like(out))

def status(key):
    return next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith(key))

name, *functions = sys.argv[1:]
shape, *batches = CLIPS[name]
for pairwise in functions:
    model = build(name, pairwise)
    found = []
    for train, batch in zip((False, True), batches):
        # what the first call loads, and work space that is never given back, are no part of it
        step(model, 1, (shape[0], 8, *shape[2:]), train)
        model.zero_grad()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # nor is what others have left free
        open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from here
        before = status("VmRSS")
        step(model, batch, shape, train)
        found.append((status("VmHWM") - before) * 1024)
    print(json.dumps(found))
"""


@functools.cache
def measured(name: str, *functions: str) -> dict[str, list[int]]:
    """Growth of a fresh process in a step of inference and in one of training, weights apart.

    Every tensor is mapped by itself: which holes of a heap it would fill is chance.
    """
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    command = [sys.executable, "-c", MEASURE, name, *functions]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return dict(zip(functions, map(json.loads, run.stdout.splitlines()), strict=True))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from Linux's /proc")
@pytest.mark.parametrize(
    ("name", "functions"),
    [
        ("i3d_resnet18", ("embedded_gaussian",)),
        ("i3d_tiny", tuple(PAIRWISE)),
        ("block", tuple(PAIRWISE)),
    ],
)
def test_the_peak_is_the_measured_one(name: str, functions: tuple[str, ...]) -> None:
    shape, *batches = CLIPS[name]
    for pairwise, growth in measured(name, *functions).items():
        model = build(name, pairwise)
        weights = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
        for train, batch, found in zip((False, True), batches, growth, strict=True):
            total = cost(model, shape, batch=batch, train=train)[-1]
            what = f"{pairwise}, train={train}"
            assert total.peak - weights == pytest.approx(found, rel=0.15), what
            assert name == "block" or total.peak > 150e6


def test_a_small_network_counted_by_hand() -> None:
    model = nn.Sequential(nn.Linear(100, 1000), nn.ReLU(), nn.Linear(1000, 10))
    x, hidden, out = (4 * 50 * n for n in (100, 1000, 10))
    first, second = 4 * (100 * 1000 + 1000), 4 * (1000 * 10 + 10)
    fixed = first + second + x

    total = cost(model, (100,), batch=50)[-1]
    assert (total.peak, total.adds) == (fixed + 2 * hidden, 2 * hidden)
    assert total.multiply_adds == 50 * (100 * 1000 + 1000 * 10)
    assert (total.shape, total.parameters) == ((10,), (first + second) // 4)

    linear, relu, last, total = cost(model, (100,), batch=50, train=True)
    # ReLU's result stays for the backward pass, its input does not
    assert [row.kept for row in (linear, relu, last, total)] == [0, hidden, out, hidden + out]
    # at its end, with the last gradient: the result, which the caller holds, its gradient, ReLU's
    # result, that of the hidden layer's input and output, and the weights' gradients
    assert relu.peak == fixed + 2 * out + 3 * hidden + second
    assert last.multiply_adds == 3 * 50 * 1000 * 10
    assert linear.multiply_adds == 2 * 50 * 100 * 1000  # the input has no gradient
    # then ReLU's result is free, and the first weights get their gradient
    assert total.peak == linear.peak == fixed + 2 * out + hidden + second + first


def test_the_network_stays_as_it_was() -> None:
    torch.manual_seed(0)
    model = create_model("i3d_tiny", 4, non_local=1).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cost(model, (3, 8, 32, 32), train=True)
    assert not model.training
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any(m._forward_pre_hooks for m in model.modules() if m is not model)
    assert model(torch.randn(1, 3, 8, 32, 32)).isfinite().all()


@pytest.mark.parametrize("train", [False, True])
def test_twice_the_clips_take_twice_the_memory(train: bool) -> None:
    model = create_model("tsm_tiny", 4, non_local="res2", pairwise="dot_product")
    one, two = (cost(model, (3, 8, 64, 64), batch=n, train=train) for n in (4, 8))
    for a, b in zip(one, two, strict=True):
        assert (b.multiply_adds, b.shape) == (2 * a.multiply_adds, a.shape)
        assert b.kept == pytest.approx(2 * a.kept, rel=0.01, abs=1000)
    assert two[-1].adds == pytest.approx(2 * one[-1].adds, rel=0.05)


@pytest.mark.parametrize("name", [name for name in MODELS if "101" not in name])
def test_parts_make_up_the_whole(name: str) -> None:
    with torch.device("meta"):
        at = ("features.6",) if "mobilenet" in name else 1
        model = create_model(name, 4, non_local=at)
    *parts, total = cost(model, (3, 8, 64, 64), train=True)
    outer = [row for row in parts if "." not in row.name]
    assert sum(row.parameters for row in outer) == total.parameters
    assert sum(row.multiply_adds for row in outer) == total.multiply_adds
    assert max(row.peak for row in parts) <= total.peak
    # what lies between: the clip made channels-last, and the mean before the head
    between = total.kept - sum(row.kept for row in outer)
    assert 0 <= between <= 2 * 4 * 3 * 8 * 64 * 64
    (block,) = (row for row in parts if row.kind == "NonLocalBlock")
    stage = next(row for row in outer if block.name.startswith(row.name))
    assert block.kept < stage.kept
    assert block.multiply_adds < stage.multiply_adds


def test_half_precision() -> None:
    model = create_model("i3d_tiny", 4, non_local=1)
    shape = (3, 8, 64, 64)
    full, half = (cost(model, shape, batch=8, dtype=t)[-1] for t in (torch.float32, torch.bfloat16))
    assert half.multiply_adds == full.multiply_adds
    # torch's convolutions in bfloat16 take more on a CPU without instructions for it
    copies = 0.0 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else 0.15
    assert half.peak == pytest.approx((1 + copies) * full.peak / 2, rel=0.1)
    full, mixed = (
        cost(model, shape, batch=8, dtype=t, train=True)[-1]
        for t in (torch.float32, torch.bfloat16)
    )
    assert 0.5 * full.kept < mixed.kept < 0.8 * full.kept  # weights and the clips are float32


def test_functions_side_by_side() -> None:
    model = create_model("i3d_tiny", 4, non_local=("layer2.0", "layer3.0"), scale=0.5)
    found = compare_functions(model, (3, 8, 32, 32), batch=2)
    assert [f.pairwise for f in found] == list(PAIRWISE)
    own = next(f for f in found if f.pairwise == "embedded_gaussian")
    inference, training = (
        cost(model, (3, 8, 32, 32), batch=2, train=train)[-1] for train in (False, True)
    )
    assert own.parameters == inference.parameters
    assert own.multiply_adds == inference.multiply_adds
    assert (own.inference, own.training) == (inference.peak, training.peak)
    assert "pairwise" not in card_of(model).architecture
    with pytest.raises(UserError, match="carries no card"):
        compare_functions(nn.Linear(3, 3), (3,))


def test_a_network_of_ones_own() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 1)), nn.Flatten())
    insert(model, after=("1.0",), pairwise="dot_product")
    rows = cost(model, (3, 18, 18), batch=2, train=True)
    assert [row.name for row in rows] == ["0", "1", "1.0.non_local", "2", "total"]
    model[1].requires_grad_(False)
    assert momentum_bytes(model) == 4 * (8 * 3 * 9 + 8)
    with pytest.raises(ValueError, match="Sequential cannot take a clip of"):
        cost(model, (4, 18, 18))

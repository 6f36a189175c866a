"""The Triton kernels: on a GPU where there is one, and everywhere under Triton's interpreter.

The interpreter must be chosen before Triton is first imported, which another test of the same
process may have done: `test_under_the_interpreter` runs this file again in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
case = pytest.mark.skipif(
    find_spec("triton") is None or not (INTERPRETED or torch.cuda.is_available()),
    reason="no GPU here: these run under Triton's interpreter, in test_under_the_interpreter",
)
INF, NAN = float("inf"), float("nan")


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the run under the interpreter")
def test_under_the_interpreter() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
    assert "no GPU here" not in run.stdout


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from nonlocalnet.kernels import relu_sum_triton as kernels

def build(kernel, values, warps, **constants):
    constants = {k: v for k, v in constants.items() if k in kernel.arg_names}
    sums = "*fp64" if values == "fp64" else "*fp32"
    types = {k: "*" + values for k in ("g_ptr", "other_ptr", "out_ptr")} | {"place_ptr": "*i64"}
    signature = {
        k: "constexpr" if k in constants
        else types.get(k, sums if k.endswith("_ptr") else "i32")
        for k in kernel.arg_names
    }
    options = {"num_warps": warps, "enable_fp_fusion": True}
    source = ASTSource(kernel, signature, constants)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert built.asm["cubin"]

sizes = {k: getattr(kernels, k) for k in ("PLACES", "CHANNELS", "SEGMENTS", "COLUMNS")}
for values in ("bf16", "fp64"):
    for relu, write, dot in ((1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)):
        flags = {"RELU": bool(relu), "WRITE": bool(write), "DOT": bool(dot), **sizes}
        flags["CHANNELS"] //= 2 if values == "fp64" else 1
        build(kernels._answer_segment, values, 1, **flags)
        if not dot:
            build(kernels._sum_segment, values, 1, **flags)
            build(kernels._sum_before, values, 4, **flags)
print("built")
"""


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled under the interpreter")
def test_compiles_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    """What the interpreter lets pass and the compiler would not."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.stdout == "built\n", run.stderr


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    from nonlocalnet.kernels import relu_sum_triton

    return relu_sum_triton


def draw(
    seed: int, n: int, p: int, q: int, d: int, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """a, b, g and dy."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((n, p), (n, q), (n, q, d), (n, p, d))
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


def ours(kernels: ModuleType, t: list[Tensor]) -> list[Tensor]:
    """R, H, da, db and dg."""
    a, b, g, dy = (x.to(DEVICE) for x in t)
    # half, which is exact, and twice
    found = [2 * kernels.sorted_sum(a, b, g, relu, 0.5) for relu in (True, False)]
    gradients = [2 * x for x in kernels.sorted_backward(a, b, g, dy, 0.5)]
    return [x.cpu() for x in (*found, *gradients)]


def pairs(t: list[Tensor]) -> list[Tensor]:
    """The same from the matrix of pairs, in the type given."""
    a, b, g, dy = t
    leaves = [x.clone().requires_grad_() for x in (a, b, g)]
    R = torch.relu(leaves[0].unsqueeze(2) + leaves[1].unsqueeze(1)) @ leaves[2]
    above = (a.unsqueeze(2) + b.unsqueeze(1) > 0).to(g.dtype)
    return [R.detach(), above @ g, *torch.autograd.grad(R, leaves, dy)]


def check(kernels: ModuleType, t: list[Tensor]) -> None:
    for got, want in zip(ours(kernels, t), pairs([x.double() for x in t]), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@case
@pytest.mark.parametrize(
    ("n", "p", "q", "d"),
    [
        (1, 1, 1, 1),
        (2, 15, 17, 1),  # one segment, full
        (2, 16, 17, 3),  # and a place more
        (3, 40, 24, 7),
        (1, 100, 1, 65),
        (1, 1, 100, 64),
        (2, 45, 70, 33),
        (1, 9, 8, 300),
    ],
)
def test_equals_the_sum_over_pairs(kernels: ModuleType, n: int, p: int, q: int, d: int) -> None:
    check(kernels, draw(p + q, n, p, q, d))


@case
def test_more_segments_than_are_added_up_at_once(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "SEGMENTS", 4)
    check(kernels, draw(7, 1, 200, 100, 3))


@case
@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 2),
    p=st.integers(1, 70),
    q=st.integers(1, 70),
    d=st.integers(1, 20),
    levels=st.sampled_from([None, 1, 7]),
)
def test_any_shape_with_and_without_ties(
    kernels: ModuleType, seed: int, n: int, p: int, q: int, d: int, levels: int | None
) -> None:
    a, b, g, dy = draw(seed, n, p, q, d)
    if levels is not None:
        a, b = ((x * levels / 2).round() for x in (a, b))
    check(kernels, [a, b, g, dy])


@case
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0.4, 0.6),  # all queries between two keys
        (-1.0, -0.5),  # below all
        (9.0, 9.5),  # above all
    ],
)
def test_however_queries_and_keys_lie(kernels: ModuleType, low: float, high: float) -> None:
    _, _, g, dy = draw(0, 1, 150, 120, 5)
    crowd = torch.linspace(low, high, 150, dtype=torch.float64).view(1, -1)
    apart = torch.arange(120, dtype=torch.float64).view(1, -1) / 20
    apart = torch.where(apart < 0.5, 0.0, apart + 0.5)
    check(kernels, [crowd, -apart, g, dy])
    check(kernels, [-apart, crowd, dy, g])  # and the keys between two queries


@case
def test_at_zero_there_is_no_slope(kernels: ModuleType) -> None:
    a = torch.tensor([[0.0, -0.0, 1.0, -1.0] * 12])
    _, _, g, dy = draw(0, 1, 48, 48, 3, torch.float32)
    for b in (-a, a, a.flip(1)):
        got, want = ours(kernels, [a, b, g, dy]), pairs([x.double() for x in (a, b, g, dy)])
        for x, y in zip(got, want, strict=True):
            torch.testing.assert_close(x.double(), y, rtol=1e-5, atol=1e-5)


@case
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_float32_is_no_worse_than_the_matrix(kernels: ModuleType, offset: float) -> None:
    a, b, g, dy = draw(5, 1, 500, 400, 16, torch.float32)
    t = [a + offset, b - offset, g, dy]
    for got, matrix, want in zip(
        ours(kernels, t), pairs(t), pairs([x.double() for x in t]), strict=True
    ):
        error, reference = ((x.double() - want).norm() / want.norm() for x in (got, matrix))
        assert error <= 1.2 * reference  # where both are at the last bit


@case
def test_a_large_value_does_not_cover_small_ones(kernels: ModuleType) -> None:
    a, b, g, _ = draw(6, 1, 40, 60, 4, torch.float32)
    g = g.abs()
    for j in (0, 31, 59):
        order = (-b).argsort(dim=1)
        heavy = g.clone()
        heavy[0, order[0, j]] = 1e8
        at = (-b.gather(1, order[:, j : j + 1])).expand(1, 40) + a.abs() * 1e-9
        t = [at, b, heavy, a.unsqueeze(-1).expand(1, 40, 4)]
        got, want = ours(kernels, t)[0], pairs([x.double() for x in t])[0]
        torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0)


@case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(kernels: ModuleType, dtype: torch.dtype) -> None:
    t = draw(1, 2, 70, 90, 20, dtype)
    # the interpreter cuts bfloat16 off where a GPU rounds it
    last = torch.finfo(dtype).eps * (1.01 if INTERPRETED and dtype == torch.bfloat16 else 0.51)
    for got, want in zip(ours(kernels, t), pairs([x.double() for x in t]), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), want, rtol=last, atol=1e-5)


@case
def test_each_type_is_kept(kernels: ModuleType) -> None:
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.float32)
    t = [x.to(kind) for x, kind in zip(draw(2, 1, 30, 20, 3), kinds, strict=True)]
    R, H, da, db, dg = ours(kernels, t)
    assert (R.dtype, H.dtype) == (torch.float16, torch.float16)
    assert (da.dtype, db.dtype, dg.dtype) == kinds[:3]
    for got, want in zip((R, H, da, db, dg), pairs([x.double() for x in t]), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=5e-3, atol=1e-4)


@case
def test_strides_and_neighbours_change_nothing(kernels: ModuleType) -> None:
    t = draw(3, 2, 50, 40, 6, torch.float32)
    whole = ours(kernels, t)
    spread = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in t]
    spread[2] = t[2].mT.contiguous().mT
    first, second = (ours(kernels, [x[i : i + 1] for x in t]) for i in (0, 1))
    alone = [torch.cat(x) for x in zip(first, second, strict=True)]
    for want, *others in zip(whole, ours(kernels, t), ours(kernels, spread), alone, strict=True):
        for got in others:
            assert torch.equal(got, want)


@case
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the interpreter's
@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in ("a", "b", "g", "dy") for value in (INF, -INF, NAN)],
)
@pytest.mark.parametrize("place", [0, 10, 19])
def test_what_is_not_finite_reaches_what_it_reaches_in_a_product(
    kernels: ModuleType, name: str, value: float, place: int
) -> None:
    t = dict(zip(("a", "b", "g", "dy"), draw(4, 2, 20, 20, 3), strict=True))
    order = t["b" if name == "g" else "a"][1].argsort()
    t[name][(1, order[place], *[2] * (t[name].dim() - 2))] = value
    inputs = list(t.values())
    got, want = ours(kernels, inputs), pairs(inputs)
    for i in (0, 2, 3, 4):  # R and the gradients; H is no product
        finite = want[i].isfinite()
        assert torch.equal(got[i].isfinite(), finite)
        torch.testing.assert_close(got[i][finite], want[i][finite], rtol=1e-11, atol=1e-11)


@case
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the interpreter's
def test_what_is_infinitely_far_apart_adds_nothing(kernels: ModuleType) -> None:
    a, b, g, dy = draw(8, 1, 100, 90, 3)
    a[:, ::5], b[:, 40:] = -INF, -INF
    a[:, 30:] = -INF  # more than a segment of each
    check(kernels, [a, b, g, dy])

"""The kernels by themselves, against the matrix of pairs in float64."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nonlocalnet import doctor, non_local, ops
from nonlocalnet.kernels import relu_sum as interface
from nonlocalnet.kernels import softmax_sum
from nonlocalnet.ops import PAIRWISE

FORMS = ("relu_sum_numba", "relu_sum_torch")
EPS = 2.0**-23  # float32: twice the unit roundoff


def form(name: str) -> ModuleType:
    return importlib.import_module(f"nonlocalnet.kernels.{name}")


def numbers(shape: tuple[int, ...], seed: int, kind: str = "normal") -> Tensor:
    """float32: from a normal distribution; the same around 10; or from nine values, for ties."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    return {"normal": x, "far": x + 10, "ties": (2 * x).round() / 2}[kind]


def draw(n: int, p: int, q: int, d: int, seed: int = 0, kind: str = "normal") -> list[Tensor]:
    """a, b, g, and a gradient of the result. "far" has a = -b + something small, and both large."""
    a, b = numbers((n, p), seed, kind), numbers((n, q), seed + 1, kind)
    return [a, -b if kind == "far" else b, *(numbers((n, m, d), seed + m) for m in (q, p))]


def by_pairs(a: Tensor, b: Tensor, g: Tensor, dy: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Half of R, H and the gradient of R in float64; with each, the same of the terms' sizes."""
    a, b, g, dy = (t.double() for t in (a, b, g, dy))
    s = a.unsqueeze(2) + b.unsqueeze(1)  # (N, P, Q)
    weight, step = s.clamp(min=0) / 2, (s > 0).double() / 2
    sizes = dy.abs() @ g.abs().mT * step
    return {
        "R": (weight @ g, weight @ g.abs()),
        "H": (step @ g, step @ g.abs()),
        "da": ((dy @ g.mT * step).sum(2), sizes.sum(2)),
        "db": ((dy @ g.mT * step).sum(1), sizes.sum(1)),
        "dg": (weight.mT @ dy, weight.mT @ dy.abs()),
    }


def by_form(name: str, a: Tensor, b: Tensor, g: Tensor, dy: Tensor) -> dict[str, Tensor]:
    module = form(name)
    sums = {"R": module.sorted_sum(a, b, g, True, 0.5), "H": module.sorted_sum(a, b, g, False, 0.5)}
    gradients = module.sorted_backward(a, b, g, dy, 0.5)
    return sums | dict(zip(("da", "db", "dg"), gradients, strict=True))


SIZES = st.one_of(st.integers(1, 40), st.sampled_from([257, 784, 1500, 5000]))


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 3),
    p=SIZES,
    q=SIZES,
    d=st.sampled_from([1, 2, 3, 16, 31, 64, 255, 300, 1024]),
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["normal", "far", "ties"]),
)
def test_relu_sum_is_exact_to_the_last_rounding(
    name: str, n: int, p: int, q: int, d: int, seed: int, kind: str
) -> None:
    """Within a rounding of each term's size: the sums themselves are formed in float64.

    The torch form rounds its gradient's products to float32 before it adds them over d channels.
    """
    if n * p * q * d > 4e9:
        n, d = 1, 3
    given = draw(n, p, q, d, seed, kind)
    found = by_form(name, *given)
    for what, (want, size) in by_pairs(*given).items():
        roundings = d + 2 if name == "relu_sum_torch" and what in ("da", "db") else 2
        assert found[what].shape == want.shape
        assert ((found[what].double() - want).abs() <= roundings * EPS * size + 1e-30).all(), what


@pytest.mark.parametrize("name", FORMS)
def test_relu_sum_in_other_types_and_layouts(name: str) -> None:
    given = draw(2, 60, 50, 20)
    whole = by_form(name, *given)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        rounded = [t.to(dtype) for t in given]
        found, exact = by_form(name, *rounded), by_pairs(*rounded)
        for what in ("R", "H", "dg"):
            assert found[what].dtype == dtype
            roundings = 60 if dtype == torch.float64 else 1  # there the additions round as well
            close = roundings * torch.finfo(dtype).eps * exact[what][1] + 1e-30
            assert ((found[what].double() - exact[what][0]).abs() <= close).all()
    strided = [torch.stack([t, -t], -1)[..., 0] for t in given]
    strided[2] = given[2].mT.contiguous().mT
    strided[3] = given[3][:1].expand_as(given[3])
    again = by_form(name, *strided[:3], given[3])
    for what, want in whole.items():
        torch.testing.assert_close(again[what], want)
    spread = by_form(name, *given[:3], strided[3])
    for what, want in by_form(name, *given[:3], strided[3].contiguous()).items():
        torch.testing.assert_close(spread[what], want)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("where", ["a", "b", "g", "two b", "a and b"])
def test_what_is_not_finite_goes_where_the_matrix_lets_it(value: float, where: str) -> None:
    a, b, g, dy = draw(1, 30, 20, 3)
    for tensor, name, index in ((a, "a", 4), (b, "b", 7), (g, "g", (5, 1)), (b, "two b", 8)):
        if name in where.split(" and ") or where == name or (where == "two b" and name == "b"):
            tensor[0][index] = value
    inputs = [t.requires_grad_() for t in (a, b, g)]
    want = (a.unsqueeze(2) + b.unsqueeze(1)).relu() @ g
    found = interface.relu_sum(*inputs, 1.0)
    torch.testing.assert_close(found, want, equal_nan=True, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, dy), torch.autograd.grad(want, inputs, dy), strict=True
    ):
        torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=1e-4, atol=1e-4)
    for name in FORMS[1:]:  # the form by itself, which cannot ask: nowhere finite by mistake
        alone = form(name).sorted_sum(*(t.detach() for t in inputs), True, 1.0)
        assert not alone[~want.isfinite()].isfinite().any()


# torch's own check reads .grad of what is no leaf
CHECK = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@CHECK
@pytest.mark.parametrize("op", ["relu_sum", "step_sum", "relu_sum_backward"])
def test_the_sums_are_operators_as_torch_wants_them(op: str) -> None:
    given = [t.requires_grad_() for t in draw(2, 7, 5, 3)]
    given[2] = given[2].detach().mT.contiguous().mT.requires_grad_()
    given = given if op == "relu_sum_backward" else given[:3]
    torch.library.opcheck(getattr(torch.ops.nonlocalnet, op).default, (*given, 0.5))


@CHECK
@pytest.mark.parametrize("op", ["softmax_rows", "softmax_fused"])
def test_the_softmax_forms_are_operators_as_torch_wants_them(op: str) -> None:
    shapes = ((2, 7, 4), (2, 5, 4), (2, 5, 4))
    given: list[Any] = [numbers(s, i) for i, s in enumerate(shapes)]
    given = [t.mT.contiguous().mT.requires_grad_() for t in given]  # as a convolution leaves them
    given.append(3)
    torch.library.opcheck(getattr(torch.ops.nonlocalnet, op).default, given)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 2),
    p=SIZES,
    q=SIZES,
    c=st.sampled_from([1, 7, 64, 300, 1024]),
    size=st.sampled_from([0.1, 1.0, 5.0]),
    fused=st.booleans(),
)
def test_softmax_sums_are_as_good_as_the_matrix(
    n: int, p: int, q: int, c: int, size: float, fused: bool
) -> None:
    """Error against float64, beside that of the matrix form in float32.

    Twice, because two orders of the same additions differ; and some roundings where all is small.
    """
    n = 1 if p * q * c > 1e9 else n
    theta, phi, g = (numbers((n, m, c), i) for i, m in enumerate((p, q, q)))
    theta *= size / c**0.5
    exact = (theta.double() @ phi.double().mT).softmax(-1) @ g.double()
    plain = (theta @ phi.mT).softmax(-1) @ g
    if fused:
        found = softmax_sum.softmax_fused(theta, phi, g, 100)
    else:
        found = softmax_sum.softmax_rows(theta, phi, g, 100)
    error, reference = ((y.double() - exact).norm() / exact.norm() for y in (found, plain))
    assert error <= 2 * reference + 4 * EPS


@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "dot_product"])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_products_are_not_finite_where_the_matrix_is_not(
    pairwise: str, value: float, where: int
) -> None:
    """One number of theta, phi or g. The dot product's inner matrix is shared by all queries.

    So a theta or phi that is not finite also makes nan what the matrix form would make inf.
    """
    given = [numbers((1, m, 3), i) for i, m in enumerate((6, 5, 5))]
    given[where][0, 2, 1] = value
    theta, phi, g = given
    s = theta @ phi.mT
    want = (s.softmax(-1) if pairwise != "dot_product" else s / 5) @ g
    found = non_local(theta, phi, g, pairwise)
    assert torch.equal(found.isfinite(), want.isfinite())


@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("width", [3, 2])
@pytest.mark.filterwarnings("ignore:`torch.jit.script`")  # by torch.func itself
def test_what_torch_func_makes_of_them(
    pairwise: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reverse mode as autograd has it; forward mode right, or refused, but never zero."""
    monkeypatch.setattr(ops, "_weights_are_small", lambda *_: False)
    theta, phi, g = (numbers((1, m, c), m).double() for m, c in ((6, 2), (5, 2), (5, width)))
    weight = numbers((4,), 9).double() if pairwise == "concatenation" else None

    def f(theta: Tensor) -> Tensor:
        return non_local(theta, phi, g, pairwise, weight=weight).square().sum()

    want = torch.autograd.functional.jacobian(f, theta)
    torch.testing.assert_close(torch.func.grad(f)(theta), want)
    try:
        _, tangent = torch.func.jvp(f, (theta,), (torch.ones_like(theta),))
    except (NotImplementedError, RuntimeError):
        return
    torch.testing.assert_close(tangent, want.sum())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("op", ["softmax_rows", "softmax_fused"])
def test_scores_in_16_bits_are_not_rounded(op: str, dtype: torch.dtype) -> None:
    """Error against float64 of the same rounded inputs: what rounding the result costs, twice."""
    theta, phi, g = (numbers((1, 300, 64), i).to(dtype).requires_grad_() for i in range(3))
    exact = [t.detach().double().requires_grad_() for t in (theta, phi, g)]
    want = (exact[0] @ exact[1].mT).softmax(-1) @ exact[2]
    y = getattr(softmax_sum, op)(theta, phi, g, 100)
    dy = numbers((1, 300, 64), 7).to(dtype)
    gradients = torch.autograd.grad(y, (theta, phi, g), dy)
    exact_gradients = torch.autograd.grad(want, exact, dy.double())
    eps = torch.finfo(dtype).eps
    for found, truth in zip((y, *gradients), (want, *exact_gradients), strict=True):
        assert (found.double() - truth).norm() <= 2 * eps * truth.norm()


FORKED = """
import os, sys, torch
from nonlocalnet.kernels import relu_sum_numba
torch.set_num_threads(2)
relu_sum_numba.WORTH_THREADS = 0
def run():
    return relu_sum_numba.sorted_sum(*given, True, 1.0)
given = torch.randn(4, 70), torch.randn(4, 90), torch.randn(4, 90, 300)
want = run()  # the threads exist now
child = os.fork()
if not child:
    os._exit(0 if torch.equal(run(), want) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_computes_too() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    assert subprocess.run(command, timeout=120).returncode == 0


def test_threads_samples_and_callers_do_not_meet() -> None:
    given = draw(4, 700, 900, 600)
    with _threads(1):
        alone = by_form("relu_sum_numba", *given)
    with _threads(2), ThreadPoolExecutor(3) as callers:
        for again in callers.map(lambda _: by_form("relu_sum_numba", *given), range(6)):
            assert all(torch.equal(again[what], alone[what]) for what in alone)


class _threads:  # noqa: N801
    def __init__(self, count: int) -> None:
        self.count, self.before = count, torch.get_num_threads()

    def __enter__(self) -> None:
        torch.set_num_threads(self.count)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)


@pytest.fixture
def _fresh_form() -> Iterator[None]:
    interface.relu_sum_form.cache_clear()
    yield
    interface.relu_sum_form.cache_clear()


@pytest.mark.usefixtures("_fresh_form")
def test_without_numba_plain_torch_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = interface.relu_sum(*draw(1, 9, 8, 3)[:3], 1.0)
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("relu_sum_numba", "numba_form"):
        monkeypatch.delitem(sys.modules, f"nonlocalnet.kernels.{name}", raising=False)
    interface.relu_sum_form.cache_clear()
    assert interface.relu_sum_form("cpu").__name__.endswith("relu_sum_torch")
    torch.testing.assert_close(interface.relu_sum(*draw(1, 9, 8, 3)[:3], 1.0), with_it)
    assert "plain torch" in doctor.kernel("concatenation", "cpu").detail
    missing = doctor.package("numba", "")
    assert missing.state == "missing"
    assert not missing.core


def test_a_compiler_with_nowhere_to_keep_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    from nonlocalnet.kernels import numba_form

    compiler, asked = numba.njit, []

    def njit(*, cache: bool = False, **options: Any) -> Any:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compiler(**options)

    monkeypatch.setattr(numba, "njit", njit)
    assert numba_form.compiled()(lambda x: x + 1)(2) == 3
    assert asked == [True, False]


def test_importing_the_package_imports_no_compiler() -> None:
    code = (
        "import sys, nonlocalnet; import nonlocalnet.block;"
        "sys.exit(any(m in sys.modules for m in ('numba', 'triton')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

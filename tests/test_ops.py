from __future__ import annotations

import sys

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from measure import peak
from memory import SIZES
from torch import Tensor

from nonlocalnet import non_local, ops
from nonlocalnet.ops import PAIRWISE, Pairwise, attention_rows

EXACT = {"rtol": 1e-9, "atol": 1e-9}  # float64, values of order one


def draw(
    seed: int, n: int, p: int, q: int, c: int, d: int, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"theta": (n, p, c), "phi": (n, q, c), "g": (n, q, d), "weight": (2 * c,)}
    return {
        k: torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for k, s in shapes.items()
    }


def both(t: dict[str, Tensor], pairwise: str) -> tuple[Tensor, Tensor]:
    weight = t["weight"] if pairwise == "concatenation" else None
    fast = non_local(t["theta"], t["phi"], t["g"], pairwise, weight=weight)
    slow = oracle.non_local(t["theta"], t["phi"], t["g"], pairwise, weight)
    return fast, slow


def at_once(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    """Whatever the size: so many pairs exist at a time."""
    monkeypatch.setattr(ops, "PAIRS_AT_ONCE", pairs)
    monkeypatch.setattr(ops, "_weights_are_small", lambda *_: pairs == 2**20)


@pytest.mark.parametrize("pairwise", PAIRWISE)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 3),
    p=st.integers(1, 40),
    q=st.integers(1, 40),
    c=st.integers(1, 9),
    d=st.integers(1, 70),
)
def test_equals_the_sum_over_pairs(
    pairwise: str, seed: int, n: int, p: int, q: int, c: int, d: int
) -> None:
    t = draw(seed, n, p, q, c, d)
    fast, slow = both(t, pairwise)
    torch.testing.assert_close(fast, slow, **EXACT)
    inputs = [v for k, v in t.items() if k != "weight" or pairwise == "concatenation"]
    upstream = torch.randn_like(slow)
    for ours, theirs in zip(
        torch.autograd.grad(fast, inputs, upstream),
        torch.autograd.grad(slow, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_chunks_of_rows_change_nothing(pairwise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # the forms for large inputs, forced upon a small one: 7 rows at a time, few channels at a time
    at_once(monkeypatch, 2 * 11 * 7)
    monkeypatch.setattr("nonlocalnet.kernels.relu_sum_torch.CHANNELS_AT_ONCE", 3)
    monkeypatch.setattr("nonlocalnet.kernels.relu_sum_numba.CHANNELS_PER_WALK", 4)
    t = draw(0, 2, 30, 11, 4, 10)
    fast, slow = both(t, pairwise)
    torch.testing.assert_close(fast, slow, **EXACT)
    inputs = [t["theta"], t["phi"], t["g"]]
    for ours, theirs in zip(
        torch.autograd.grad(fast.square().sum(), inputs),
        torch.autograd.grad(slow.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("chunk", [2**20, 10])  # all rows at once; two at a time
@pytest.mark.parametrize("width", [3, 2])  # fused attention serves where g is as wide as theta
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_gradients_of_every_order(
    pairwise: str, width: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch, chunk)
    t = draw(3, 1, 6, 5, 2, width)
    inputs = [t["theta"], t["phi"], t["g"]]
    weight = t["weight"].detach() if pairwise == "concatenation" else None

    def f(*args: Tensor) -> Tensor:
        return non_local(*args, pairwise, weight=weight)

    assert torch.autograd.gradcheck(f, inputs)
    assert torch.autograd.gradgradcheck(f, inputs)


@pytest.mark.parametrize("pairwise", ["gaussian", "dot_product", "concatenation"])
def test_a_differentiable_gradient_is_the_gradient(
    pairwise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """phi and g made from theta: each way is followed once, also with create_graph."""
    at_once(monkeypatch, 10)
    t = draw(4, 1, 6, 6, 2, 3)
    theta, mix = t["theta"], torch.randn(2, 3, dtype=torch.float64)
    weight = t["weight"].detach() if pairwise == "concatenation" else None
    phi = theta.sin()
    y = non_local(theta, phi, phi @ mix, pairwise, weight=weight).square().sum()
    (plain,) = torch.autograd.grad(y, theta, retain_graph=True)
    (again,) = torch.autograd.grad(y, theta, create_graph=True)
    torch.testing.assert_close(again, plain, **EXACT)
    # and with keys that need none
    y = non_local(theta, phi.detach(), t["g"], pairwise, weight=weight).square().sum()
    (again,) = torch.autograd.grad(y, theta, create_graph=True, retain_graph=True)
    torch.testing.assert_close(again, torch.autograd.grad(y, theta)[0], **EXACT)


@pytest.mark.parametrize("autocast", [True, False])
def test_rows_in_half_precision_are_as_good_as_the_whole(
    autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = draw(7, 2, 60, 50, 8, 6)

    def run(chunk: int) -> list[Tensor]:
        at_once(monkeypatch, chunk)
        dtype = torch.float32 if autocast else torch.bfloat16
        t = {k: v.detach().to(dtype).requires_grad_() for k, v in exact.items()}
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = non_local(t["theta"], t["phi"], t["g"], "gaussian")
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
        gradients = [t[name].grad for name in ("theta", "phi", "g")]
        return [y, *(x for x in gradients if x is not None)]

    slow = both(exact, "gaussian")[1]
    inputs = [exact[name] for name in ("theta", "phi", "g")]
    want = [slow, *torch.autograd.grad(slow.square().sum(), inputs)]
    for rows, whole, truth in zip(run(2 * 50 * 7), run(2**20), want, strict=True):
        error, reference = ((x.double() - truth).norm() / truth.norm() for x in (rows, whole))
        assert error <= 1.5 * reference  # a rounding apart, and not the 28 % it once was


def test_a_random_function_is_the_same_in_both_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch, 10)
    torch.manual_seed(0)
    t = draw(8, 1, 9, 5, 3, 2)

    def dropped(theta: Tensor, phi: Tensor) -> Tensor:
        return torch.nn.functional.dropout(theta @ phi.mT, 0.5)

    y = non_local(t["theta"], t["phi"], t["g"], dropped).sum()
    y.backward()
    assert t["g"].grad is not None
    torch.testing.assert_close((t["g"].grad * t["g"]).sum(), y)  # y is linear in g


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_nothing_in_nothing_out(pairwise: str) -> None:
    for n, p, q in ((0, 4, 3), (2, 0, 3), (2, 4, 0)):
        t = draw(0, n, p, q, 3, 5)
        weight = t["weight"] if pairwise == "concatenation" else None
        y = non_local(t["theta"], t["phi"], t["g"], pairwise, weight=weight)
        assert y.shape == (n, p, 5)
        assert not y.any()


def test_dot_product_in_both_orders() -> None:
    for p, q in ((50, 60), (2, 3)):  # the second is cheaper with its few pairs formed
        fast, slow = both(draw(1, 2, p, q, 8, 8), "dot_product")
        torch.testing.assert_close(fast, slow, **EXACT)


def test_concatenation_counts_only_what_is_above_zero() -> None:
    # ties a_i = -b_j are where ReLU is 0 and, in torch's convention, flat
    a = torch.tensor([[-1.0, 0.0, 1.0, 1.0]], dtype=torch.float64).unsqueeze(-1).requires_grad_()
    b = torch.tensor([[1.0, 0.0, -1.0, -1.0, 0.0]], dtype=torch.float64).unsqueeze(-1)
    b.requires_grad_()
    g = torch.arange(1.0, 6.0, dtype=torch.float64).view(1, 5, 1)
    w = torch.ones(2, dtype=torch.float64)
    fast = non_local(a, b, g, "concatenation", weight=w)
    slow = oracle.non_local(a, b, g, "concatenation", w)
    torch.testing.assert_close(fast, slow, **EXACT)
    ours_ab, theirs_ab = (torch.autograd.grad(y.sum(), (a, b)) for y in (fast, slow))
    for ours, theirs in zip(ours_ab, theirs_ab, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("offset", [0.0, 10.0])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_float32_is_no_worse_than_the_matrix(pairwise: str, offset: float) -> None:
    """Error against float64, beside that of the matrix form in float32.

    The offset makes a = -b + small with large a and b, where the textbook prefix sum cancels.
    The margin of 2 is the spread between two orders of the same float32 additions.
    """
    exact = draw(5, 1, 700, 500, 16, 16)
    if pairwise == "concatenation":
        with torch.no_grad():
            exact["theta"][..., 0] += offset / exact["weight"][0]
            exact["phi"][..., 0] -= offset / exact["weight"][16]
    single = {k: v.detach().float() for k, v in exact.items()}
    want = both({k: v.detach().float().double() for k, v in exact.items()}, pairwise)[1]
    fast, slow = both(single, pairwise)
    error, reference = ((y.double() - want).norm() / want.norm() for y in (fast, slow))
    assert error <= 2 * reference + 1e-7


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_rows_times_g_are_the_result(pairwise: str) -> None:
    t = draw(2, 2, 9, 13, 4, 5)
    weight = t["weight"] if pairwise == "concatenation" else None
    rows = attention_rows(t["theta"], t["phi"], pairwise, weight=weight)
    torch.testing.assert_close(rows @ t["g"], both(t, pairwise)[0], **EXACT)
    if PAIRWISE[pairwise].normalize == "softmax":
        torch.testing.assert_close(rows.sum(-1), torch.ones(2, 9, dtype=torch.float64))


@pytest.mark.parametrize("pairwise", ["gaussian", "embedded_gaussian", "dot_product"])
def test_scale_multiplies_the_dot_product(pairwise: str) -> None:
    t = draw(4, 1, 5, 6, 4, 4)
    scaled = non_local(t["theta"], t["phi"], t["g"], pairwise, scale=0.5)
    want = oracle.non_local(t["theta"] * 0.5, t["phi"], t["g"], pairwise)
    torch.testing.assert_close(scaled, want, **EXACT)


def test_a_function_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def negative_distance(theta: Tensor, phi: Tensor) -> Tensor:
        return -torch.cdist(theta, phi).square()

    t = draw(6, 2, 12, 9, 3, 4)
    weights = negative_distance(t["theta"], t["phi"])
    for chunk in (2**20, 2 * 9 * 5):
        at_once(monkeypatch, chunk)
        mean = non_local(t["theta"], t["phi"], t["g"], negative_distance)
        torch.testing.assert_close(mean, weights @ t["g"] / 9, **EXACT)
        soft = non_local(t["theta"], t["phi"], t["g"], Pairwise(negative_distance, "softmax"))
        torch.testing.assert_close(soft, weights.softmax(-1) @ t["g"], **EXACT)
        (ours,) = torch.autograd.grad(soft.sum(), t["phi"], retain_graph=True)
        want = weights.softmax(-1) @ t["g"]
        (theirs,) = torch.autograd.grad(want.sum(), t["phi"], retain_graph=True)
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pairwise": lambda theta, phi: phi @ theta.mT}, r"gave \(1, 5, 4\), not \(1, 4, 5\)"),
        ({"theta": torch.zeros(2, 3)}, "N, positions, channels"),
        ({"phi": torch.zeros(1, 5, 3)}, "must share N, C and Q"),
        ({"g": torch.zeros(1, 4, 2)}, "must share N, C and Q"),
        ({"pairwise": "cosine"}, "gaussian, embedded_gaussian, dot_product, concatenation"),
        ({"pairwise": "concatenation"}, "needs weight"),
        ({"weight": torch.zeros(4)}, "only concatenation"),
        ({"pairwise": "concatenation", "weight": torch.zeros(3)}, r"need \(4,\)"),
        ({"pairwise": "concatenation", "weight": torch.zeros(4), "scale": 2.0}, "scale"),
        ({"pairwise": lambda theta, phi: theta @ phi.mT, "scale": 2.0}, "scale"),
    ],
)
def test_wrong_input_is_told(change: dict[str, object], says: str) -> None:
    args = {"theta": torch.zeros(1, 4, 2), "phi": torch.zeros(1, 5, 2), "g": torch.zeros(1, 5, 2)}
    with pytest.raises(ValueError, match=says):
        non_local(**{**args, **change})  # type: ignore[arg-type]


def test_an_unknown_normaliser_is_told() -> None:
    with pytest.raises(ValueError, match="'softmax' or 'count'"):
        Pairwise(lambda theta, phi: theta @ phi.mT, "sofmax")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from Linux's /proc")
@pytest.mark.parametrize("pairwise", SIZES)
def test_memory_is_linear_in_the_positions(pairwise: str) -> None:
    """Peak growth of forward + backward at 2 N is at most 2.1 times that at N.

    Resident memory of a fresh process each. The N x N matrix would be 1.6 GB at the larger size or
    more.
    """
    n, width = SIZES[pairwise]
    given = {"pairwise": pairwise, "width": width, "backward": True}

    def measured(size: int) -> int:
        return peak("memory:operation", {"n": 64}, n=size, **given)

    small, large = measured(n), measured(2 * n)
    if large > 2.1 * small:
        # which holes of the heap a tensor fills differs by chance, and adds 1 % once in a while;
        # a matrix of pairs would be there again
        large = measured(2 * n)
    assert large <= 2.1 * small, f"{small} bytes at {n} positions, {large} at {2 * n}"

"""The block takes many ways to one result: each is held to the others and to the oracle."""

from __future__ import annotations

import copy
import hashlib
import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from nonlocalnet import NonLocalBlock, ops
from nonlocalnet.ops import PAIRWISE, Pairwise

EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}  # float64, values of order one
LAYERS = ("theta", "phi", "g", "out")
CHANNELS, INNER = 5, 3

# What sees what, and features it takes: no two axes, and no axis and width, are of one length.
VIEWS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "spacetime": ({}, (4, 3, 6)),
    "image": ({}, (4, 7)),
    "sequence": ({}, (9,)),
    "space": ({"mode": "space"}, (2, 3, 6)),
    "time": ({"mode": "time"}, (4, 3, 2)),
    "groups": ({"temporal_group": 2}, (4, 3, 6)),
}
NORMS = ("train", "eval", "frozen", "none")  # a batch norm in train mode and in eval mode first
LAYOUTS = ("first", "last", "slice", "turned")
REST = [  # every pair of norm, layout, bias and batch, four to a norm
    (norm, LAYOUTS[(i + j) % 4], (i + j // 2) % 2 == 0, (1, 3)[j % 2])
    for i, norm in enumerate(NORMS)
    for j in range(4)
]
CASES = [
    (pairwise, view, subsample, *rest)
    for k, (pairwise, view, subsample) in enumerate(
        itertools.product(PAIRWISE, VIEWS, ("before", "after", "none"))
    )
    if view != "time" or subsample == "none"  # no other place to pool
    for rest in REST[k % 4 :: 4]
]


def make(norm: str = "train", seed: int = 0, **options: Any) -> NonLocalBlock:
    """A block with every number drawn, statistics too; float64."""
    kind: Any = "batch" if norm in ("train", "eval") else norm
    options = {"channels": CHANNELS, "inner": INNER, "zero_init": "none", **options}
    block = NonLocalBlock(norm=kind, **options).double()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in block.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(0, 0.5, generator=generator)
            if name == "norm.running_var":
                tensor.abs_().add_(0.5)
    return block.eval() if norm == "eval" else block


def draw(shape: tuple[int, ...], seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers in another order in memory."""
    if layout == "last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "slice":
        wider = torch.full((*x.shape[:-1], 2 * x.shape[-1]), torch.nan, dtype=x.dtype)
        wider[..., ::2] = x
        return wider[..., ::2]
    if layout == "turned":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    return x.contiguous()


def watched(block: NonLocalBlock) -> NonLocalBlock:
    """A copy whose layers are all called, one after the other."""
    twin = copy.deepcopy(block)
    for name in ("theta", "phi", "out"):
        if isinstance(layer := getattr(twin, name), nn.Module):
            layer.register_forward_hook(lambda *_: None)
    return twin


def normed(block: NonLocalBlock, z: Tensor) -> Tensor:
    """The norm after W_z by its definition, for z (N, C, *positions)."""
    state = dict(block.named_parameters()) | dict(block.named_buffers())
    if block.norm is None:
        return z
    axes, shape = [0, *range(2, z.dim())], (1, -1, *[1] * (z.dim() - 2))
    mean, var = (state[f"norm.running_{name}"].view(shape) for name in ("mean", "var"))
    if isinstance(block.norm, nn.BatchNorm1d) and block.training:
        mean, var = z.mean(axes, keepdim=True), z.var(axes, keepdim=True, correction=0)
    gain, bias = (state[f"norm.{name}"].view(shape) for name in ("weight", "bias"))
    return (z - mean) / (var + 1e-5).sqrt() * gain + bias


def before_norm(block: NonLocalBlock, x: Tensor) -> Tensor:
    """W_z y of Eq. 6, with y from the oracle: (N, C, *positions) -> the same."""
    weights: dict[str, Tensor] = dict(block.named_parameters())
    group = block.temporal_group if block.mode == "spacetime" else None
    y = oracle.block(
        x, weights, str(block.pairwise), block.mode, block.subsample, block.scale or 1.0, group
    )
    z = torch.einsum("oc,nc...->no...", weights["out.weight"], y)
    if "out.bias" in weights:
        z = z + weights["out.bias"].view(1, -1, *[1] * (x.dim() - 2))
    return z


def value_and_gradients(
    f: Callable[[Tensor], Tensor], block: nn.Module, x: Tensor
) -> dict[str, Tensor]:
    """f(x), and the gradients of <f(x), a fixed tensor> in x and every parameter."""
    x = x.detach().requires_grad_()
    y = f(x)
    inputs = {"x": x, **dict(block.named_parameters())}
    upstream = draw(tuple(y.shape), seed=2).to(y.dtype)
    found = torch.autograd.grad(y, list(inputs.values()), upstream)
    return {"value": y.detach(), **dict(zip(inputs, found, strict=True))}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], **close: Any) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(
            tensor, theirs[name], **(close or EXACT), msg=lambda text, name=name: f"{name}: {text}"
        )


# --- one result


@pytest.mark.parametrize(
    ("pairwise", "view", "subsample", "norm", "layout", "bias", "batch"), CASES
)
def test_joined_layers_are_the_layers_and_the_paper(
    pairwise: str, view: str, subsample: str, norm: str, layout: str, bias: bool, batch: int
) -> None:
    options, grid = VIEWS[view]
    block = make(norm, pairwise=pairwise, subsample=subsample, out_bias=bias, **options)
    x = laid_out(draw((batch, CHANNELS, *grid)), layout)
    apart = watched(block)
    by_hand = value_and_gradients(
        lambda x: x + normed(block, before_norm(block, x)), block, x.contiguous()
    )
    joined = value_and_gradients(block, block, x)
    assert_same(joined, by_hand)
    assert_same(value_and_gradients(apart, apart, x), by_hand)
    if layout in ("first", "last"):
        value = joined["value"] if layout == "first" else joined["value"].movedim(1, -1)
        assert value.is_contiguous()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    pairwise=st.sampled_from(list(PAIRWISE)),
    view=st.sampled_from(list(VIEWS)),
    subsample=st.sampled_from(["before", "after", "none"]),
    norm=st.sampled_from(NORMS),
    layout=st.sampled_from(LAYOUTS),
    bias=st.booleans(),
    batch=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    channels=st.integers(1, 9),
    inner=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
def test_joined_layers_are_the_layers_at_any_size(
    pairwise: str, view: str, subsample: str, norm: str, layout: str, bias: bool, batch: int,
    sizes: list[int], channels: int, inner: int, seed: int,
) -> None:  # fmt: skip
    options, grid = VIEWS[view]
    grid = tuple(sizes[: len(grid)])
    if view == "groups":
        grid = (2 * grid[0], *grid[1:])
    if norm == "train" and batch * torch.Size(grid).numel() < 3:
        batch = 3  # of two values, a batch norm makes plus and minus one whatever they are
    block = make(
        norm, seed, channels=channels, inner=inner, pairwise=pairwise, subsample=subsample,
        out_bias=bias, **options,
    )  # fmt: skip
    x = laid_out(draw((batch, channels, *grid), seed + 1), layout)
    apart = watched(block)
    close = {"rtol": 1e-8, "atol": 1e-8}
    assert_same(value_and_gradients(block, block, x), value_and_gradients(apart, apart, x), **close)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_are_those_of_a_batch_norm_of_features(
    momentum: float | None, layout: str
) -> None:
    block, twin = make(), nn.BatchNorm3d(CHANNELS, momentum=momentum).double()
    assert isinstance(block.norm, nn.BatchNorm1d)
    block.norm.momentum = momentum
    twin.load_state_dict(block.norm.state_dict())
    for step in range(3):
        x = draw((3, CHANNELS, 4, 3, 6), seed=step)
        want = x + twin(before_norm(block, x))
        torch.testing.assert_close(block(laid_out(x, layout)), want, **EXACT)
    assert_same(block.norm.state_dict(), twin.state_dict())
    assert twin.num_batches_tracked == 3
    torch.testing.assert_close(block.eval()(x), x + twin.eval()(before_norm(block, x)), **EXACT)


@pytest.mark.parametrize("norm", ["eval", "none"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_second_gradients_go_through_joined_layers(pairwise: str, norm: str) -> None:
    block = make(norm, pairwise=pairwise, inner=2, subsample="none")
    names = [name for name, _ in block.named_parameters()]

    def f(x: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(names, parameters, strict=True))
        y: Tensor = torch.func.functional_call(block, named, (x,))
        return y

    inputs = [draw((2, CHANNELS, 3)), *block.parameters()]
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
    assert torch.autograd.gradgradcheck(f, inputs)


# --- replaced and watched layers


HELD = [
    (pairwise, name)
    for pairwise, name in itertools.product(PAIRWISE, LAYERS)
    if PAIRWISE[pairwise].embedded or name in ("g", "out")
]


class Doubled(nn.Linear):
    """A subclass, which its weights do not tell all of."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Adapted(nn.Module):
    """A layer as a low-rank adapter wraps it: base(x) + up(down(x))."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False).double()
        self.up = nn.Linear(2, base.out_features, bias=False).double()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + self.up(self.down(x))
        return y


def double(layer: nn.Linear) -> tuple[nn.Module, Tensor, Tensor]:
    made = Doubled(layer.in_features, layer.out_features).double()
    made.load_state_dict(layer.state_dict())
    return made, 2 * layer.weight, 2 * layer.bias


def adapt(layer: nn.Linear) -> tuple[nn.Module, Tensor, Tensor]:
    made = Adapted(layer)
    return made, layer.weight + made.up.weight @ made.down.weight, layer.bias


def normalize(layer: nn.Linear) -> tuple[nn.Module, Tensor, Tensor]:
    made = weight_norm(copy.deepcopy(layer))
    with torch.no_grad():
        made.parametrizations.weight.original0.mul_(1.5)
    return made, 1.5 * layer.weight, layer.bias


@pytest.mark.parametrize("norm", ["train", "eval", "none"])
@pytest.mark.parametrize(("pairwise", "name"), HELD)
@pytest.mark.parametrize("replace", [double, adapt, normalize])
def test_a_replaced_layer_is_honoured(
    replace: Callable[[nn.Linear], tuple[nn.Module, Tensor, Tensor]],
    pairwise: str, name: str, norm: str,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    block = make(norm, pairwise=pairwise)
    merged = copy.deepcopy(block)
    made, weight, bias = replace(getattr(block, name))
    setattr(block, name, made)
    with torch.no_grad():
        getattr(merged, name).weight.copy_(weight)
        getattr(merged, name).bias.copy_(bias)
    x = draw((3, CHANNELS, 4, 3, 6))
    want = x + normed(merged, before_norm(merged, x))
    torch.testing.assert_close(block(x), want, **EXACT)
    found = value_and_gradients(block, block, x)  # every parameter of the layer takes part
    assert all(bool(found[f"{name}.{own}"].any()) for own, _ in made.named_parameters()
               if (name, own.split(".")[-1], norm) != ("out", "bias", "train"))  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("norm", ["train", "eval", "none"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_every_hook_of_every_layer_is_called(pairwise: str, norm: str, view: str) -> None:
    options, grid = VIEWS[view]
    kinds = ("forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook")
    names = [name for function, name in HELD if function == pairwise]
    for name, kind in itertools.product(names, kinds):
        block = make(norm, pairwise=pairwise, **options)
        calls: list[str] = []
        getattr(getattr(block, name), f"register_{kind}")(
            lambda *_, calls=calls: calls.append("called")
        )
        block(draw((2, CHANNELS, *grid)).requires_grad_()).sum().backward()
        assert calls == ["called"], f"{kind} of {name}"


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_hook_returns_is_honoured(name: str) -> None:
    block = make("eval", pairwise="concatenation")
    merged = copy.deepcopy(block)
    handle = getattr(block, name).register_forward_hook(lambda _layer, _input, y: 3 * y)
    with torch.no_grad():
        for parameter in getattr(merged, name).parameters():
            parameter.mul_(3)
    x = draw((2, CHANNELS, 4, 3, 6))
    torch.testing.assert_close(block(x), merged(x), **EXACT)
    handle.remove()
    assert not torch.allclose(block(x), merged(x))


class Rectified(nn.BatchNorm1d):
    """A norm that does more than a norm."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


@pytest.mark.parametrize("norm", ["train", "eval"])
def test_a_replaced_norm_is_honoured(norm: str) -> None:
    block, x = make(norm), draw((2, CHANNELS, 4, 3, 6))
    z = before_norm(block, x)
    made = Rectified(CHANNELS).double().train(block.training)
    made.load_state_dict(block.norm.state_dict())  # type: ignore[union-attr]
    plain, block.norm = normed(block, z), made
    torch.testing.assert_close(block(x), x + plain.relu(), **EXACT)
    block(x).sum().backward()  # which may need what the norm gave out
    for lacks in ({"affine": False}, {"track_running_stats": False}):
        block.norm = nn.BatchNorm1d(CHANNELS, **lacks).double().train(block.training)  # type: ignore[arg-type]
        twin = nn.BatchNorm3d(CHANNELS, **lacks).double().train(block.training)  # type: ignore[arg-type]
        torch.testing.assert_close(block(x), x + twin(z), **EXACT)


@pytest.mark.parametrize("norm", ["train", "eval", "frozen"])
def test_a_hook_of_the_norm_is_called(norm: str) -> None:
    block, calls = make(norm), []
    assert block.norm is not None
    block.norm.register_forward_hook(lambda *_: calls.append("called"))
    block(draw((2, CHANNELS, 4, 3, 6)))
    assert calls == ["called"]


def test_a_block_with_a_wrapped_output_is_awake() -> None:
    block = make()
    block.out = Adapted(block.out)  # type: ignore[assignment]
    assert block.is_awake()


# --- kept weights, fused attention, rows


def _distance(theta: Tensor, phi: Tensor) -> Tensor:
    return -(theta.unsqueeze(2) - phi.unsqueeze(1)).square().sum(-1)


DISTANCE = Pairwise(_distance, "softmax")
FUNCTIONS: dict[str, str | Pairwise] = {**{name: name for name in PAIRWISE}, "own": DISTANCE}
WAYS = ("kept", "fused", "rows")


def take(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size: all weights at once, fused attention, or some rows at a time."""
    monkeypatch.setattr(ops, "PAIRS_AT_ONCE", 2**20 if way == "kept" else 40)
    monkeypatch.setattr(ops, "_weights_are_small", lambda *_: way == "kept")
    if way == "rows":
        monkeypatch.setattr(ops, "fused_attention_serves", lambda *_: False)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("pairwise", FUNCTIONS)
def test_every_way_to_the_softmax_is_the_same(
    pairwise: str, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = make(norm, pairwise=FUNCTIONS[pairwise], inner=CHANNELS)
    found = []
    for way in WAYS:
        take(way, monkeypatch)
        found.append(value_and_gradients(block, block, draw((2, CHANNELS, 4, 3, 6))))
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pairwise", FUNCTIONS)
def test_activation_checkpointing_changes_nothing(
    pairwise: str, way: str, reentrant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(way, monkeypatch)
    block = make(pairwise=FUNCTIONS[pairwise], inner=CHANNELS)
    found = []
    for recomputed in (False, True):
        x = draw((2, CHANNELS, 4, 3, 6)).requires_grad_()
        block.zero_grad()
        y = checkpoint(block, x, use_reentrant=reentrant) if recomputed else block(x)
        y.square().sum().backward()
        assert x.grad is not None
        gradients = {k: p.grad for k, p in block.named_parameters() if p.grad is not None}
        found.append({"value": y.detach(), "x": x.grad, **gradients})
    assert len(found[0]) == 2 + len(list(block.parameters()))
    assert_same(found[1], found[0], rtol=0, atol=0)


# --- half precision


def by_matrix(block: NonLocalBlock, x: Tensor) -> Tensor:
    """The block as its equations read, in whatever types torch's products come out."""
    z: Tensor
    theta, phi, g = block.embed(x)
    if block.pairwise == "concatenation":
        assert block.w_f is not None
        a, b = theta @ block.w_f[: block.inner], phi @ block.w_f[block.inner :]
        f = (a.unsqueeze(2) + b.unsqueeze(1)).relu() / phi.shape[1]
    elif block.pairwise == "dot_product":
        f = theta @ phi.mT / phi.shape[1]
    else:
        f = (theta @ phi.mT).softmax(-1)
    z = block.out(f.to(g.dtype) @ g).mT.unflatten(2, x.shape[2:])
    if isinstance(block.norm, nn.BatchNorm1d):
        z = block.norm(z.flatten(2)).view(z.shape)
    return torch.add(x, z)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("norm", ["train", "eval", "none"])
@pytest.mark.parametrize("kind", ["autocast", "bfloat16", "float16"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_half_precision_is_as_good_as_the_matrix(
    pairwise: str, kind: str, norm: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors against float64 of the result and of each gradient.

    Twice the matrix form's and one rounding: both forms round as often, but a vector of 16 numbers
    is too short for the luck of either to even out.
    """
    take(way, monkeypatch)
    dtype = torch.float16 if kind == "float16" else torch.bfloat16
    one_rounding = torch.finfo(dtype).eps / 2
    low = make(norm, pairwise=pairwise, channels=16, inner=16).to(dtype)  # its numbers, rounded
    x = draw((2, 16, 4, 6, 6)).to(dtype)
    exact = copy.deepcopy(low).double()
    if kind == "autocast":
        low, x = low.float(), x.float()
    truth = value_and_gradients(lambda x: by_matrix(exact, x), exact, x.double())

    def run(f: Callable[[NonLocalBlock, Tensor], Tensor]) -> dict[str, Tensor]:
        block = copy.deepcopy(low)

        def forward(x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
                return f(block, x)

        return value_and_gradients(forward, block, x)

    ours, matrix = run(lambda block, x: block(x)), run(by_matrix)
    for name, want in truth.items():
        assert ours[name].dtype == matrix[name].dtype == x.dtype, name
        assert ours[name].isfinite().all(), name
        error, reference = ((t[name].double() - want).norm() for t in (ours, matrix))
        assert error <= 2 * reference + one_rounding * want.norm(), f"{name}: {error / reference}"


# --- the same bits


def fingerprint(pairwise: str) -> str:
    """Of the bits of a float32 block's result and gradients."""
    digest = hashlib.sha256()
    for norm, layout in itertools.product(NORMS, LAYOUTS):
        block = make(norm, pairwise=pairwise).float()
        x = laid_out(draw((2, CHANNELS, 4, 3, 6)).float(), layout)
        for tensor in value_and_gradients(block, block, x).values():
            assert tensor.isfinite().all()  # this mode fills memory that nobody wrote with NaN
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


ANOTHER = """
import sys, torch
sys.path[:0] = sys.argv[1:]
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
import test_forms
print(*map(test_forms.fingerprint, test_forms.PAIRWISE))
"""


@pytest.fixture
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.slow
@pytest.mark.usefixtures("_deterministic")
def test_two_runs_and_two_processes_give_the_same_bits() -> None:
    once, again = ([fingerprint(pairwise) for pairwise in PAIRWISE] for _ in range(2))
    assert once == again
    assert len(set(once)) == len(PAIRWISE)
    tests = Path(__file__).parent
    call = [sys.executable, "-c", ANOTHER, str(tests), str(tests.parent)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == once


# --- several processes


DISTRIBUTED = [(pairwise, norm) for pairwise in PAIRWISE for norm in ("train", "frozen")]


def one_of_two(rank: int, folder: str) -> None:
    """Gradients of each function on this process's share, averaged by DDP."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=Path(folder, "meeting").as_uri(), rank=rank, world_size=2
    )
    found = {}
    for pairwise, norm in DISTRIBUTED:
        block = nn.parallel.DistributedDataParallel(make(norm, pairwise=pairwise))
        block(draw((2, CHANNELS, 4, 3, 6), seed=rank)).square().sum().backward()
        found[pairwise, norm] = {k: p.grad for k, p in block.module.named_parameters()}
    torch.save(found, Path(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_the_mean_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "linux":
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    spawn(one_of_two, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for pairwise, norm in DISTRIBUTED:
        want: dict[str, Tensor] = {}
        for rank in range(2):
            block = make(norm, pairwise=pairwise)
            block(draw((2, CHANNELS, 4, 3, 6), seed=rank)).square().sum().backward()
            for name, parameter in block.named_parameters():
                assert parameter.grad is not None
                want[name] = want.get(name, 0) + parameter.grad / 2
        assert_same(found[0][pairwise, norm], want)
        assert_same(found[1][pairwise, norm], want)


# --- compiled and exported


def network(pairwise: str, norm: str, **options: Any) -> nn.Module:
    """Plain features, a block, and a layer on their mean; float32."""
    torch.manual_seed(0)
    conv, head = nn.Conv3d(3, CHANNELS, 3, padding=1), nn.Linear(CHANNELS, 2)
    block = make(norm, pairwise=pairwise, **options).float()
    pooled = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
    return nn.Sequential(conv, block, pooled, head).train(norm == "train")


SINGLE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}  # float32, values of order one


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_compiled_network_trains_as_the_eager_one(pairwise: str, mode: str) -> None:
    model = network(pairwise, mode)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for batch in (2, 3):  # the second size makes the compiler think again
        x = draw((batch, 3, 4, 6, 6)).float()
        assert_same(
            value_and_gradients(compiled, twin, x), value_and_gradients(model, model, x), **SINGLE
        )
    assert_same(twin.state_dict(), model.state_dict(), **SINGLE)


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_an_exported_network_takes_any_batch(pairwise: str, mode: str) -> None:
    model = network(pairwise, mode)
    twin = copy.deepcopy(model)
    free = ({0: torch.export.Dim("batch", min=2, max=64)},)  # torch itself tells one from many
    x = draw((3, 3, 4, 6, 6)).float()
    exported = torch.export.export(twin, (x,), dynamic_shapes=free).module()
    for batch in (2, 7):
        x = draw((batch, 3, 4, 6, 6)).float()
        torch.testing.assert_close(exported(x), model(x), **SINGLE)
    assert_same(dict(exported.state_dict()), dict(model.state_dict()), **SINGLE)


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_one_exported_graph_serves_few_and_many_pairs(
    pairwise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 72 x 12 pairs a sample, all of a batch of two may exist at once, and of seven not."""
    monkeypatch.setattr(ops, "PAIRS_AT_ONCE", 3 * 72 * 12)
    model = network(pairwise, "eval", inner=1)
    free = ({0: torch.export.Dim("batch", min=2, max=64)},)
    x = draw((7, 3, 2, 6, 6)).float()
    exported = torch.export.export(model, (x[:2],), dynamic_shapes=free).module()
    torch.testing.assert_close(exported(x), model(x), **SINGLE)


# --- nothing is kept


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_use_leaves_nothing_behind(pairwise: str, norm: str) -> None:
    block, x = make(norm, pairwise=pairwise), draw((2, CHANNELS, 4, 3, 6))
    before, attributes = copy.deepcopy(block.state_dict()), set(vars(block))
    y = block(x.clone().requires_grad_())
    y.sum().backward()
    after = block.state_dict()
    assert list(after) == list(before)
    assert set(vars(block)) == attributes
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = {f"norm.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed == (statistics if norm == "train" else set())
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(twin(x), y)
        with torch.no_grad():  # and its results follow its weights from now on
            for tensor in twin.state_dict().values():
                tensor.copy_(tensor * 1.5)
        want = x + normed(twin, before_norm(twin, x))
        torch.testing.assert_close(twin(x), want, **EXACT)
        assert torch.equal(block.state_dict()["out.weight"], before["out.weight"])

"""Rows of chosen queries: against the block's output, the support of gradients, and plain sums."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalnet import NonLocalBlock, create_model, insert
from nonlocalnet.attention import attend
from nonlocalnet.errors import UserError
from nonlocalnet.look import Look, centre_of
from nonlocalnet.models import MODELS
from nonlocalnet.ops import PAIRWISE
from nonlocalnet.resnet import ResNet3d
from nonlocalnet.scene import CANDIDATES, spread
from nonlocalnet.surgery import blocks

AWAKE = {"zero_init": "none", "init": "msra"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_clip(*shape: int) -> Tensor:
    return torch.randn(shape or (3, 8, 32, 32), generator=seeded())


def tiny(**options: object) -> ResNet3d:
    torch.manual_seed(0)
    return create_model("i3d_tiny", 4, 1, width=8, **{**AWAKE, **options})


def block_of(model: nn.Module) -> NonLocalBlock:
    (block,) = blocks(model).values()
    return block


def input_of(model: nn.Module, clip: Tensor) -> Tensor:
    """What the block receives, by another way than attend's."""
    block, seen = block_of(model), []
    forward = block.forward
    block.forward = lambda x: (seen.append(x), forward(x))[1]
    with torch.no_grad():
        model.eval()(clip)
    del block.forward
    return seen[0]


def values_of(block: NonLocalBlock, x: Tensor) -> Tensor:
    """The values g on the grid of keys (Q, inner) of one sample, written out."""
    window = [1, 2, 2] if x.dim() == 5 else [2, 2]
    pool = F.max_pool3d if x.dim() == 5 else F.max_pool2d

    def g(features: Tensor) -> Tensor:
        y = features.flatten(2).transpose(1, 2) @ block.g.weight.T + block.g.bias
        return y.transpose(1, 2).unflatten(2, features.shape[2:])

    if block.subsample == "before":
        keys = g(pool(x, window))
    elif block.subsample == "after":
        keys = pool(g(x), window)
    else:
        keys = g(x)
    return keys[0].flatten(1).T


QUERIES_3D = [(0, 0, 0), (3, 17, 9), (7, 31, 31), (5, 2, 30)]


def check_rows(model: nn.Module, clip: Tensor, queries: list[tuple[float, ...]]) -> None:
    looks = attend(model, clip[0], queries)
    block, x = block_of(model), input_of(model, clip)
    with torch.no_grad():
        wanted, g = block.response(x)[0], values_of(block, x)
    sizes = (1, *x.shape[2:])[-3:]
    for look in looks:
        row = look.weights.flatten().to(g.dtype)
        t, h, w = look.cell
        place = (t * sizes[1] + h) * sizes[2] + w
        torch.testing.assert_close(row @ g, wanted[place], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("pairwise", [*PAIRWISE, "own"])
@pytest.mark.parametrize(
    ("mode", "subsample", "group"),
    [
        *product(["spacetime", "space"], ["before", "after", "none"], [None]),
        ("time", "none", None),
        ("spacetime", "before", 4),
        ("spacetime", "none", 2),
    ],
)
def test_rows_times_g_are_the_response(
    pairwise: str, mode: str, subsample: str, group: int | None
) -> None:
    function: object = pairwise
    if pairwise == "own":
        function = lambda theta, phi: (theta @ phi.transpose(1, 2)).tanh()  # noqa: E731
    model = tiny(pairwise=function, mode=mode, subsample=subsample, temporal_group=group)
    check_rows(model, a_clip(1, 3, 8, 32, 32), QUERIES_3D)


@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("subsample", ["before", "after", "none"])
def test_rows_in_a_network_of_images(pairwise: str, subsample: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=4)
    insert(model, "layer3.1", pairwise=pairwise, subsample=subsample, **AWAKE)
    image = a_clip(1, 3, 96, 64)
    check_rows(model, image, [(0, 0), (50, 20), (95, 63)])
    (look,) = attend(model, image, [(50, 20)])  # a batch of one is the image
    assert look.network == "ResNet"
    assert look.query == (0.0, 50.0, 20.0)
    assert look.weights.shape[0] == 1
    assert look.exact
    # every layer pads so that the first cells of all stages are centred on the first pixel
    assert look.cell == (0, 3, 1)
    assert look.centre == (0.0, 48.0, 16.0)
    assert look.grid == (
        ((1, 0), (16, 0), (16, 0)) if subsample == "none" else ((1, 0), (32, 8), (32, 8))
    )


class Quartered(nn.Module):
    """A network that shrinks its features by a function, which no layer tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(4, 4, 1)
        insert(self, "last", **AWAKE)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.avg_pool2d(self.conv(x), 4))


def test_cells_divide_the_clip_evenly_where_no_layer_tells() -> None:
    (look,) = attend(Quartered(), a_clip(1, 3, 32, 16), [(13, 2)])
    assert not look.exact
    assert look.cell == (0, 3, 0)
    assert look.centre == (0, 13.5, 1.5)


def softmax(scores: np.ndarray) -> np.ndarray:
    sizes = np.exp(scores - scores.max())
    return sizes / sizes.sum()


def may_see(query: int, key: int, mode: str, group: int | None, causal: int | None) -> bool:
    """Written out on frames; places are the caller's."""
    if mode == "space":
        return query == key
    if group is not None:
        return query // group == key // group
    return causal is None or query - causal < key <= query


def full_matrix(block: NonLocalBlock, x: Tensor) -> np.ndarray:
    """Every weight of a clip, (T, H, W, T', H', W') in float64, pair by pair."""
    features = x[0].double().numpy()  # (C, T, H, W)

    def pooled(f: np.ndarray) -> np.ndarray:
        c, t, h, w = f.shape
        return f[:, :, : h // 2 * 2, : w // 2 * 2].reshape(c, t, h // 2, 2, w // 2, 2).max((3, 5))

    def embedded(layer: nn.Module | None, f: np.ndarray) -> np.ndarray:
        if layer is None:
            return f
        weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
        return np.einsum("dc,cthw->dthw", weight, f) + bias[:, None, None, None]

    theta = embedded(block.theta, features)
    if block.subsample == "after":
        phi = pooled(embedded(block.phi, features))
    else:
        phi = embedded(block.phi, pooled(features) if block.subsample == "before" else features)
    found = np.zeros((*theta.shape[1:], *phi.shape[1:]))
    for t, h, w in np.ndindex(*theta.shape[1:]):
        q, seen = theta[:, t, h, w], np.zeros(phi.shape[1:], bool)
        for s in range(phi.shape[1]):
            if may_see(t, s, block.mode, block.temporal_group, block.causal):
                seen[s] = True
        if block.mode == "time":
            here = np.zeros_like(seen)
            here[:, h, w] = True
            seen &= here
        keys = phi[:, seen]  # (D, Q)
        if block.pairwise == "concatenation":
            w_f = block.w_f.detach().double().numpy()
            scores = np.maximum(w_f[: len(q)] @ q + w_f[len(q) :] @ keys, 0)
        else:
            scores = q @ keys * (1.0 if block.scale is None else block.scale)
        softly = block.pairwise in ("gaussian", "embedded_gaussian")
        found[t, h, w][seen] = softmax(scores) if softly else scores / len(scores)
    return found


@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize(
    ("mode", "subsample", "group", "causal"),
    [
        *product(["spacetime", "space"], ["before", "after", "none"], [None], [None]),
        ("time", "none", None, None),
        ("spacetime", "before", 2, None),
        ("spacetime", "after", None, 3),
        ("time", "none", None, 2),
    ],
)
def test_rows_and_columns_are_those_of_the_full_matrix(
    pairwise: str, mode: str, subsample: str, group: int | None, causal: int | None
) -> None:
    model = tiny(
        pairwise=pairwise, mode=mode, subsample=subsample, temporal_group=group, causal=causal
    )
    clip = a_clip(1, 3, 6, 24, 20)
    block = block_of(model)
    wanted = full_matrix(block, input_of(model, clip))
    queries = [(0, 0, 0), (2, 13, 9), (5, 23, 19), (3, 2, 18)]
    for look in attend(model, clip, queries, top=5):
        np.testing.assert_allclose(look.weights, wanted[look.cell], rtol=1e-4, atol=1e-6)
        assert look.seen == (wanted[look.cell] != 0).sum() or pairwise == "concatenation"
    totals = np.abs(wanted).sum((3, 4, 5), keepdims=True)
    parts = np.divide(wanted, totals, out=np.zeros_like(wanted), where=totals > 0)
    for look in attend(model, clip, queries, top=5, view="column"):
        column = parts[(slice(None),) * 3 + look.cell]
        np.testing.assert_allclose(look.weights, column, rtol=1e-4, atol=1e-5)
        heaviest = [tuple(map(int, np.unravel_index(i, column.shape)))
                    for i in np.argsort(-np.abs(column), axis=None)[:5]]  # fmt: skip
        assert {key.cell for key in look.keys} == {c for c in heaviest if column[c]}
        if pairwise != "concatenation":  # whose zeros hide what is seen
            seen = wanted != 0
            equal = (seen / seen.sum((3, 4, 5), keepdims=True))[(slice(None),) * 3 + look.cell]
            received = np.abs(column).sum() / equal.sum()
            assert look.received == pytest.approx(received, rel=1e-4)
            assert look.seen == (equal > 0).sum()


def test_a_column_is_where_a_key_is_and_its_queries_are() -> None:
    (look,) = attend(tiny(), a_clip(), [(4, 17, 9)], view="column", top=1000)
    assert look.view == "column"
    assert look.cell == (4, 2, 1)  # keys are centred at 2, 10, 18, ...
    assert look.centre == (4, 18, 10)
    assert look.weights.shape == (8, 8, 8)
    assert {key.cell: key.centre for key in look.keys} == {
        (t, h, w): (t, 4 * h, 4 * w) for t, h, w in product(range(8), range(8), range(8))
    }
    assert math.isnan(look.departure)
    assert look.words()[2].startswith("receives ")


def test_blocks_together_are_the_blocks_alone() -> None:
    torch.manual_seed(0)
    model = create_model("c2d_tiny", 4, ("layer1.0", "layer2.0"), **AWAKE)
    clip, queries = a_clip(2, 3, 8, 32, 32), [(0, 5, 5), (7, 9, 30)]
    together = attend(model, clip, queries, "all")
    assert [(k.sample, k.query[0], k.block) for k in together] == list(
        product([0, 1], [0, 7], ["layer1.0", "layer2.0"])
    )
    for name in ("layer1.0", "layer2.0"):
        alone = attend(model, clip, queries, name)
        some = [look for look in together if look.block == name]
        for a, b in zip(alone, some, strict=True):
            assert torch.equal(a.weights, b.weights)
            assert a.dependence == b.dependence
    assert {k.block for k in attend(model, clip, queries, ["layer2.0", "layer1.0"])} == {
        "layer1.0",
        "layer2.0",
    }


def test_the_dependence_on_the_query_is_the_mean_of_all_departures() -> None:
    model = tiny()
    centres = [centre_of(cell, model.grid("layer2.0")) for cell in spread((8, 8, 8))]
    looks = attend(model, a_clip(), centres)
    mean = sum(look.departure for look in looks) / len(looks)
    assert {look.dependence for look in looks} == {looks[0].dependence}
    assert looks[0].dependence == pytest.approx(mean)
    assert 0 < mean < 1
    (none,) = attend(tiny(pairwise=constant(1.0)), a_clip(), [(4, 16, 16)])
    assert none.dependence == pytest.approx(0, abs=1e-9)


def test_concatenation_says_that_queries_share_their_heaviest_keys() -> None:
    looks = attend(tiny(pairwise="concatenation"), a_clip(), count=8, top=4)
    busy = [look for look in looks if int((look.weights != 0).sum()) >= 4]
    assert len(busy) > 1
    assert len({frozenset(key.cell for key in look.keys) for look in busy}) == 1
    active = int((looks[0].weights != 0).sum())
    assert f"(here {active} of 128)" in looks[0].caveat()
    assert not attend(tiny(), a_clip(), count=1)[0].caveat()


def all_ones(model: ResNet3d) -> ResNet3d:
    """A linear twin: every kernel one, every norm the identity, pooling by mean."""
    twin = copy.deepcopy(model).eval()
    for module in twin.modules():
        if isinstance(module, nn.Conv3d | nn.BatchNorm3d):
            nn.init.ones_(module.weight)
    for name in ("maxpool", "pool2"):
        pool = getattr(twin, name)
        if isinstance(pool, nn.MaxPool3d):
            setattr(twin, name, nn.AvgPool3d(pool.kernel_size, pool.stride, pool.padding))
    for module in twin.modules():
        module._modules.pop("non_local", None)
        module._forward_hooks.clear()
    return twin.double()


def centroid(gradient: Tensor) -> list[float]:
    """The centre of mass (frame, y, x) of (3, T, H, W)."""
    mass = gradient.sum(0)
    found = []
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        along = mass.sum(others)
        found.append(float((along * torch.arange(len(along))).sum() / along.sum()))
    return found


@pytest.mark.parametrize(
    ("name", "stem", "at", "size"),
    [
        ("i3d_tiny", None, "layer1.0", (8, 32, 32)),
        ("i3d_tiny", None, "layer2.0", (8, 48, 64)),
        ("c2d_resnet18", "slowfast", "layer3.0", (4, 192, 192)),
        ("i3d_resnet18", "slowfast", "layer2.1", (20, 128, 128)),
        ("i3d_resnet18", "paper", "layer2.0", (64, 96, 96)),
        ("c2d_resnet18", "caffe2-32", "layer2.1", (32, 160, 160)),
        ("i3d_resnet18", "caffe2-8", "layer1", (16, 96, 96)),
        ("c2d_resnet50", "image", "layer2.1", (4, 128, 128)),
    ],
)
def test_cells_are_centred_where_the_gradient_says(
    name: str, stem: str | None, at: str, size: tuple[int, int, int]
) -> None:
    """The centre of a cell is the centre of what it sees, where no border cuts that off."""
    model = create_model(name, 2, (at,), stem=stem, width=1)
    middle = tuple(s // 2 for s in size)
    (look,) = attend(model, torch.zeros(3, *size), [middle])
    assert look.exact
    twin, features = all_ones(model), []
    twin.get_submodule(at).register_forward_hook(lambda *args: features.append(args[2]))
    clip = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True)
    twin(clip)
    t, h, w = look.cell
    (cell,) = torch.autograd.grad(features[0][0, :, t, h, w].sum(), clip, retain_graph=True)
    assert centroid(cell[0]) == pytest.approx(look.centre, abs=1e-6)
    assert all(
        abs(c - m) <= s / 2
        for c, m, (s, _) in zip(look.centre, middle, model.grid(at), strict=True)
    )

    kt, kh, kw = key = tuple(s // 2 for s in look.weights.shape)
    pooled = features[0][0, :, kt, 2 * kh : 2 * kh + 2, 2 * kw : 2 * kw + 2]
    (gradient,) = torch.autograd.grad(pooled.sum(), clip)
    assert centroid(gradient[0]) == pytest.approx(centre_of(key, look.grid), abs=1e-6)


def test_every_cell_is_found_from_its_centre() -> None:
    model = tiny()
    grid = model.grid("layer2.0")
    cells = list(product(range(8), range(8), range(8)))
    points = [centre_of(cell, grid) for cell in cells]
    looks = attend(model, a_clip(), points)
    assert [look.cell for look in looks] == cells
    assert [look.centre for look in looks] == points


def test_a_point_falls_into_the_cell_with_the_nearest_centre() -> None:
    model, generator = tiny(), seeded(1)
    grid = model.grid("layer2.0")
    points = (torch.rand(50, 3, generator=generator) * torch.tensor([8, 32, 32]) - 0.5).tolist()
    centres = {cell: centre_of(cell, grid) for cell in product(range(8), range(8), range(8))}
    for point, look in zip(points, attend(model, a_clip(), points), strict=True):
        nearest = min(centres, key=lambda cell: math.dist(centres[cell], point))
        assert look.cell == nearest
        assert look.query == tuple(point)


def test_fractions_of_the_clip() -> None:
    model = tiny()
    (a,) = attend(model, a_clip(), [(0.5, 0.25, 1)], unit="fraction")
    assert a.query == (3.5, 7.5, 31.5)


@pytest.mark.parametrize("where", [(2, 8, 24), (6, 24, 12)])
def test_the_brightest_place_is_found(where: tuple[int, int, int]) -> None:
    """Gaussian weights of a network that only blurs are largest where the clip is brightest."""
    model = create_model("c2d_tiny", 2, 1, width=1, pairwise="gaussian", subsample="before")
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        elif isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)
    t, y, x = where
    clip = torch.full((3, 8, 32, 32), 0.2)
    clip[:, t, y - 3 : y + 4, x - 3 : x + 4] = 3.0
    for query in [(0, 0, 0), where]:
        (look,) = attend(model, clip, [query], top=1)
        assert look.keys[0].centre[0] == t
        assert math.dist(look.keys[0].centre[1:], (y, x)) < 6  # keys are 8 pixels apart


def test_figures_against_plain_sums() -> None:
    model = tiny(pairwise="dot_product")
    looks = attend(model, a_clip(), [(0, 4, 4), (6, 20, 12)], top=7)
    candidates = attend(
        model, a_clip(), [centre_of(c, model.grid("layer2.0")) for c in spread((8, 8, 8))]
    )
    rows = [look.weights.flatten().numpy() for look in candidates]
    average = np.mean([row / np.abs(row).sum() for row in rows], 0)
    for look in looks:
        row = look.weights.flatten().numpy()
        sizes = np.abs(row) / np.abs(row).sum()
        order = np.argsort(-sizes)
        assert look.seen == row.size == 8 * 4 * 4
        assert [k.weight for k in look.keys] == pytest.approx(row[order[:7]].tolist())
        assert [k.cell for k in look.keys] == [
            tuple(map(int, np.unravel_index(i, look.weights.shape))) for i in order[:7]
        ]
        assert look.share == pytest.approx(sizes[order[:7]].sum())
        assert look.uniform == 7 / 128
        assert look.negative == pytest.approx(sizes[row < 0].sum())
        assert 0 < look.negative < 1
        assert look.entropy == pytest.approx(-(sizes * np.log(sizes)).sum())
        assert look.relative_entropy == pytest.approx(look.entropy / np.log(128))
        assert look.departure == pytest.approx(np.abs(row / np.abs(row).sum() - average).sum() / 2)
        assert look.per_frame.sum() == pytest.approx(1)
        negative = np.where(row < 0, sizes, 0).reshape(8, 16).sum(1)
        assert look.per_frame[1].tolist() == pytest.approx(negative.tolist())


def test_keys_are_centred_on_their_cells() -> None:
    (look,) = attend(tiny(), a_clip(), [(4, 16, 16)], top=1000)
    assert len(look.keys) == look.seen == 128
    assert {key.cell: key.centre for key in look.keys} == {
        (t, h, w): (t, 4 * (2 * h + 0.5), 4 * (2 * w + 0.5))
        for t, h, w in product(range(8), range(4), range(4))
    }


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"mode": "space"}, 16),
        ({"mode": "time"}, 8),
        ({"temporal_group": 2}, 32),
        ({"subsample": "none"}, 512),
    ],
)
def test_a_query_that_sees_little(options: dict[str, object], seen: int) -> None:
    (look,) = attend(tiny(**options), a_clip(), [(4, 16, 16)], top=8)
    assert look.seen == seen == int((look.weights != 0).sum())
    assert look.uniform == 8 / seen
    assert 0 < look.entropy <= math.log(seen) + 1e-6
    assert float(look.weights.sum()) == pytest.approx(1, abs=1e-5)


def constant(value: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda theta, phi: value + 0 * theta @ phi.transpose(1, 2)


def test_equal_weights() -> None:
    (look,) = attend(tiny(pairwise=constant(2.0)), a_clip(), [(4, 16, 16)])
    assert look.share == pytest.approx(look.uniform) == pytest.approx(20 / 128)
    assert look.relative_entropy == pytest.approx(1)
    assert look.departure == pytest.approx(0, abs=1e-9)
    assert look.pairwise == "custom"


def test_a_row_of_zeros() -> None:
    (look,) = attend(tiny(pairwise=constant(0.0)), a_clip(), [(4, 16, 16)])
    assert look.keys == ()
    assert look.share == look.entropy == look.negative == 0
    assert look.words() == ("every weight of this row is zero",)


def test_a_block_that_is_still_the_identity() -> None:
    model = create_model("i3d_tiny", 4, 1)
    (look,) = attend(model, a_clip(), [(4, 16, 16)])
    assert not look.awake
    assert (look.network, look.block, look.pairwise, look.mode) == (
        "i3d_tiny", "layer2.0", "embedded_gaussian", "spacetime",
    )  # fmt: skip
    assert attend(tiny(), a_clip(), [(4, 16, 16)])[0].awake


def test_the_block_is_chosen_by_name() -> None:
    model = create_model("c2d_tiny", 4, ("layer1.0", "layer2.0"))
    assert attend(model, a_clip(), [(0, 0, 0)])[0].block == "layer2.0"
    (look,) = attend(model, a_clip(), [(0, 0, 0)], "layer1.0")
    assert look.weights.shape == (8, 8, 8)


def test_chosen_queries_are_the_furthest_first() -> None:
    model, clip = tiny(init="normal"), a_clip()
    cells = spread((8, 8, 8))
    looks = attend(model, clip, [centre_of(c, model.grid("layer2.0")) for c in cells])
    rows = torch.stack([look.weights.flatten() for look in looks])
    known, expected = [rows.mean(0)], []
    for _ in range(4):
        away = torch.stack([(rows - row).abs().sum(1) for row in known]).amin(0)
        expected.append(int(away.argmax()))
        known.append(rows[expected[-1]])
    chosen = attend(model, clip, count=4)
    assert [look.cell for look in chosen] == [cells[i] for i in expected]
    assert all(look.query == look.centre for look in chosen)
    assert chosen[0].departure == max(look.departure for look in looks)


def test_chosen_queries_differ_even_where_all_rows_agree() -> None:
    looks = attend(tiny(pairwise=constant(1.0)), a_clip(), count=5)
    assert len({look.cell for look in looks}) == 5


@pytest.mark.parametrize(
    "cells", [(1, 7, 7), (8, 8, 8), (4, 14, 14), (32, 32, 32), (1, 1, 1), (1, 2, 90)]
)
def test_candidates_are_spread_over_the_grid(cells: tuple[int, int, int]) -> None:
    found = spread(cells)
    assert 1 <= len(found) == len(set(found)) <= CANDIDATES
    assert len(found) >= min(CANDIDATES // 4, math.prod(max(1, c - 2) for c in cells))
    for axis, size in enumerate(cells):
        values = {cell[axis] for cell in found}
        assert min(values) >= 0
        assert max(values) < size
        # no part of the axis is left out, but for the border
        assert max(np.diff([-1, *sorted(values), size])) <= max(4, math.ceil(size / 2) + 1)


def test_a_batch_is_its_clips_one_by_one() -> None:
    model, clips = tiny(), a_clip(2, 3, 8, 32, 32)
    looks = attend(model, clips, [(0, 5, 5), (7, 9, 30)])
    assert [look.sample for look in looks] == [0, 0, 1, 1]
    alone = [
        *attend(model, clips[0], [(0, 5, 5), (7, 9, 30)]),
        *attend(model, clips[1], [(0, 5, 5), (7, 9, 30)]),
    ]
    for a, b in zip(looks, alone, strict=True):
        torch.testing.assert_close(a.weights, b.weights, rtol=1e-4, atol=1e-6)
        assert a.departure == pytest.approx(b.departure, abs=1e-4)
    assert len(attend(model, clips, count=2)) == 4


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def test_the_network_is_left_as_it_was() -> None:
    model = tiny().train()
    model.bn1.eval()  # frozen inside a network in training
    modes = [m.training for m in model.modules()]
    state = copy.deepcopy(model.state_dict())
    count, random_state = hooks(model), torch.get_rng_state()
    (look,) = attend(model, a_clip(), [(4, 16, 16)])
    assert [m.training for m in model.modules()] == modes
    assert hooks(model) == count
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not look.weights.is_inference()
    again = attend(model.eval(), a_clip(), [(4, 16, 16)])[0]
    assert torch.equal(again.weights, look.weights)  # dropout and batch statistics were off


def test_the_network_is_left_as_it_was_by_a_failure() -> None:
    model = tiny().train()
    count = hooks(model)
    model.fc = nn.Linear(3, 2)  # the forward pass fails after the block
    with pytest.raises(RuntimeError):
        attend(model, a_clip(), [(0, 0, 0)])
    assert all(m.training for m in model.modules())
    assert hooks(model) == count


def test_other_precisions() -> None:
    wanted = attend(tiny(), a_clip(), [(4, 16, 16)])[0]
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.05)):
        found = attend(tiny().to(dtype), a_clip(), [(4, 16, 16)])[0]
        assert found.weights.dtype == torch.float64
        torch.testing.assert_close(found.weights, wanted.weights, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "name", [n for n in MODELS if "resnet101" not in n and "resnet50" not in n]
)
def test_every_family(name: str) -> None:
    size = 32 if "tiny" in name else 64
    model = (
        create_model(name, 2, ("features.6",))
        if "mobilenet" in name
        else create_model(name, 2, 1, width=8)
    )
    looks = attend(model, a_clip(3, 16, size, size), count=1)
    assert looks[0].exact
    assert all(0 <= c <= s for c, s in zip(looks[0].keys[0].centre, (16, size, size), strict=True))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 1)
        insert(self, "conv")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.conv(x)


class Folded(nn.Module):
    """A network of images that takes clips and folds their frames into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        insert(self, "conv")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2).flatten(0, 1))


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 1)
        insert(self, "conv")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.flatten(2))


def spoilt() -> ResNet3d:
    model = tiny()
    with torch.no_grad():
        block_of(model).g.weight.fill_(1)
        model.conv1.weight.fill_(math.nan)
    return model


def bad_input() -> Iterator[tuple[str, Callable[[], object], type[Exception], str]]:
    clip, here = a_clip(), [(0, 0, 0)]
    yield "none", lambda: attend(create_model("i3d_tiny", 2), clip), UserError, "no non-local block"
    yield "name", lambda: attend(tiny(), clip, here, "layer9"), UserError, "'layer9'.* layer2.0"
    yield "frame", lambda: attend(tiny(), clip, [(8, 0, 0)]), UserError, "8 frames of 32 x 32"
    yield "pixel", lambda: attend(tiny(), clip, [(0, -1, 0)]), UserError, "does not lie"
    yield "two", lambda: attend(tiny(), clip, [(0, 0)]), UserError, r"\(frame, y, x\)"
    yield (
        "share",
        lambda: attend(tiny(), clip, [(0, 2, 0)], unit="fraction"),
        UserError,
        "fractions",
    )
    yield "nan", lambda: attend(spoilt(), clip, here), UserError, "not numbers"
    yield "bytes", lambda: attend(tiny(), clip.byte(), here), ValueError, "normalised float"
    yield "shape", lambda: attend(tiny(), clip[0], here), ValueError, r"\(3, T, H, W\)"
    yield "top", lambda: attend(tiny(), clip, here, top=0), ValueError, "at least 1"
    yield "twice", lambda: attend(Twice(), clip, here), ValueError, "called 2 times"
    yield "folded", lambda: attend(Folded(), clip[None], here), ValueError, "one clip each"
    yield "line", lambda: attend(Line(), clip, here), ValueError, "images and clips"


@pytest.mark.parametrize(
    ("act", "error", "words"), [pytest.param(*case, id=name) for name, *case in bad_input()]
)
def test_bad_input(act: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        act()


def test_a_look_says_how_much_there_is_to_see() -> None:
    (look,) = attend(tiny(), a_clip(), [(4, 16, 16)])
    assert isinstance(look, Look)
    first, second, third = look.words()
    assert first.startswith("top-20 hold ")
    assert first.endswith("(uniform 16 %)")
    assert second.startswith("entropy ")
    assert "from the average map (all queries: " in third

from __future__ import annotations

import copy
import itertools
import pickle
import sys
from typing import Any

import oracle
import pytest
import torch
from measure import peak
from torch import Tensor, nn

from nonlocalnet import NonLocalBlock
from nonlocalnet.ops import PAIRWISE, Pairwise

EXACT = {"rtol": 1e-9, "atol": 1e-9}  # float64, values of order one
SHAPES = {3: (2, 6, 4, 5, 6), 2: (2, 6, 5, 6), 1: (2, 6, 9)}
CASES = [
    (pairwise, mode, subsample, dim)
    for pairwise, mode, subsample, dim in itertools.product(
        PAIRWISE, ("spacetime", "space", "time"), ("before", "after", "none"), SHAPES
    )
    if dim == 3 or mode == "spacetime"  # without a time axis there is one frame, or one place
]


def make(seed: int = 0, channels: int = 6, **options: Any) -> NonLocalBlock:
    torch.manual_seed(seed)
    block = NonLocalBlock(channels, zero_init="none", **options).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def draw(shape: tuple[int, ...], seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(block: NonLocalBlock, x: Tensor, **options: Any) -> Tensor:
    """z of Eq. 6 with y from the oracle, the norm by its definition on batch statistics."""
    weights = dict(block.named_parameters())
    y = oracle.block(x, weights, block.pairwise, scale=block.scale or 1.0, **options)
    z = torch.einsum("oc,nc...->no...", weights["out.weight"], y)
    axes = [0, *range(2, x.dim())]
    shape = (1, -1, *[1] * (x.dim() - 2))
    z = z + weights["out.bias"].view(shape)
    z = (z - z.mean(axes, keepdim=True)) / (z.var(axes, keepdim=True, correction=0) + 1e-5).sqrt()
    return x + z * weights["norm.weight"].view(shape) + weights["norm.bias"].view(shape)


@pytest.mark.parametrize(("pairwise", "mode", "subsample", "dim"), CASES)
def test_equals_the_paper_in_value_and_gradient(
    pairwise: str, mode: str, subsample: str, dim: int
) -> None:
    block = make(pairwise=pairwise, mode=mode, subsample=subsample)
    x = draw(SHAPES[dim]).requires_grad_()
    ours = block(x)
    theirs = reference(block, x, mode=mode, subsample=subsample)
    same_value_and_gradient(ours, theirs, [x, *block.parameters()])


def same_value_and_gradient(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, **EXACT)
    # all but the output's bias, which the norm takes away: its gradient is rounding around 0
    upstream = draw(tuple(ours.shape), seed=2)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, upstream),
        torch.autograd.grad(theirs, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("mode", ["spacetime", "time"])
@pytest.mark.parametrize(("subsample", "window"), [("before", 2), ("after", 3), ("none", 9)])
def test_causal_blocks_see_their_window_on_clips_and_frame_by_frame(
    pairwise: str, mode: str, subsample: str, window: int
) -> None:
    block = make(pairwise=pairwise, mode=mode, subsample=subsample, causal=window)
    x = draw(SHAPES[3]).requires_grad_()
    ours = block(x)
    theirs = reference(block, x, mode=mode, subsample=subsample, causal=window)
    same_value_and_gradient(ours, theirs, [x, *block.parameters()])
    block.eval()
    keys, frames = None, []
    for t in range(x.shape[2]):
        z, keys = block.step(x[:, :, t : t + 1], keys)
        frames.append(z)
    torch.testing.assert_close(torch.cat(frames, 2), block(x), **EXACT)


@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "dot_product", "own"])
def test_streams_of_a_batch_may_begin_at_different_frames(pairwise: str) -> None:
    def distance(theta: Tensor, phi: Tensor) -> Tensor:
        return -torch.cdist(theta, phi)

    own = Pairwise(distance, "softmax") if pairwise == "own" else pairwise
    block, x = make(pairwise=own, causal=3).eval(), draw(SHAPES[3])
    z, keys = block.step(x[:, :, :1])
    _, keys = block.step(x[:, :, 1:2], keys)
    keys = (keys[0].clone(), keys[1].clone(), keys[2].clone())
    for part in keys:
        part[1] = 0  # the second stream begins anew
    z, _ = block.step(x[:, :, 2:3], keys)
    torch.testing.assert_close(z[0], block(x[:1])[0, :, 2:3], **EXACT)
    torch.testing.assert_close(z[1], block(x[1:, :, 2:3])[0], **EXACT)


def test_a_step_takes_one_frame_and_its_own_keys() -> None:
    x = draw(SHAPES[3])
    for block, frames in ((make(), 1), (make(causal=2), 2)):
        with pytest.raises(ValueError, match="one frame"):
            block.step(x[:, :, :frames])
    _, keys = make(causal=2).step(x[:, :, :1])
    with pytest.raises(ValueError, match="begin anew"):
        make(causal=3).step(x[:, :, 1:2], keys)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_temporal_groups_see_only_themselves(group: int) -> None:
    block = make(temporal_group=group)
    x = draw(SHAPES[3])
    torch.testing.assert_close(block(x), reference(block, x, group=group), **EXACT)
    if group == 1:
        space = make(mode="space")
        torch.testing.assert_close(space(x), block(x), **EXACT)


CELLS = [
    ((1, 2, 2), (2, 6, 4, 5, 6)),
    ((2, 2, 2), (2, 6, 4, 5, 6)),
    ((2, 1, 1), (2, 6, 5, 3, 2)),  # time alone, a frame is left over
    ((4, 3, 2), (2, 6, 4, 7, 6)),
    ((2, 2, 2), (1, 6, 1, 4, 5)),  # a single frame is not pooled
    ((3, 1), (2, 6, 7, 5)),
    ((2, 2), (2, 6, 5, 6)),
    ((3,), (2, 6, 10)),
    ((1,), (2, 6, 9)),
]


@pytest.mark.parametrize("subsample", ["before", "after"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("cells", "shape"), CELLS)
def test_keys_of_other_cells(
    cells: tuple[int, ...], shape: tuple[int, ...], last: bool, subsample: str
) -> None:
    block = make(cells=cells, subsample=subsample)
    x = draw(shape)
    if last and x.dim() > 3:
        kind = torch.channels_last_3d if x.dim() == 5 else torch.channels_last
        x = x.contiguous(memory_format=kind)
    x.requires_grad_()
    theirs = reference(block, x, subsample=subsample, cells=cells)
    torch.testing.assert_close(block(x), theirs, **EXACT)
    upstream = draw(shape, seed=2)
    (ours,) = torch.autograd.grad(block(x), x, upstream)
    torch.testing.assert_close(ours, torch.autograd.grad(theirs, x, upstream)[0], **EXACT)
    # rows lie on the grid of keys, and times g are the response
    grid = x.shape[2:]
    keys = oracle.pool(x, cells)
    assert block.key_grid(grid) == tuple(keys.shape[2:])
    assert block.key_stride(grid) == tuple(map(min, cells, grid))
    query = tuple(s - 1 for s in grid)
    rows = block.rows(x, [query])[:, 0].flatten(1)
    assert rows.shape[1] == keys.flatten(2).shape[2]
    _, _, g = block.embed(x)
    y = block.response(x).transpose(1, 2).unflatten(2, grid)
    torch.testing.assert_close(
        (rows.unsqueeze(2) * g).sum(1), y[(slice(None), slice(None), *query)], **EXACT
    )


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_cells_hold_for_every_function(pairwise: str) -> None:
    for subsample in ("before", "after"):
        block = make(cells=(2, 2, 2), pairwise=pairwise, subsample=subsample)
        x = draw(SHAPES[3])
        theirs = reference(block, x, subsample=subsample, cells=(2, 2, 2))
        torch.testing.assert_close(block(x), theirs, **EXACT)


@pytest.mark.parametrize("options", [{}, {"mode": "space"}, {"temporal_group": 2}])
def test_the_papers_cells_may_be_given(options: dict[str, Any]) -> None:
    x = draw(SHAPES[3])
    given, plain = make(cells=(1, 2, 2), **options), make(**options)
    assert torch.equal(given(x), plain(x))
    assert given.key_grid(x.shape[2:]) == plain.key_grid(x.shape[2:])
    assert "cells=(1, 2, 2)" in repr(given)
    wide = make(cells=(1, 3, 2), **options)
    named = {"mode": "space"} if "mode" in options else {"group": options.get("temporal_group")}
    torch.testing.assert_close(wide(x), reference(wide, x, cells=(1, 3, 2), **named), **EXACT)


@pytest.mark.parametrize("norm", ["batch", "frozen", "none"])
@pytest.mark.parametrize("dim", SHAPES)
def test_identity_at_construction(norm: str, dim: int) -> None:
    block = NonLocalBlock(6, norm=norm)
    x = draw(SHAPES[dim]).float()
    assert torch.equal(block(x), x)
    assert not block.is_awake()
    assert NonLocalBlock(6, norm=norm, zero_init="none").is_awake()


def test_learns_from_the_identity() -> None:
    # theta's gradient is 0 in the first step by design; after two steps it has moved
    block = NonLocalBlock(6).double()
    start = copy.deepcopy(block.theta)
    optimiser = torch.optim.SGD(block.parameters(), 0.5)
    for step in range(3):
        optimiser.zero_grad()
        (block(draw(SHAPES[3], seed=step)) * draw(SHAPES[3], seed=9)).sum().backward()
        optimiser.step()
    assert block.is_awake()
    assert start is not None
    assert block.theta is not None
    assert not torch.equal(start.weight, block.theta.weight)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"norm": "frozen", "zero_init": "norm"}, "gradient zero for ever"),
        ({"norm": "none", "zero_init": "norm"}, "does not exist"),
        ({"mode": "temporal"}, "'spacetime', 'space', 'time'"),
        ({"subsample": True}, "'before', 'after', 'none'"),
        ({"pairwise": "cosine"}, "gaussian, embedded_gaussian"),
        ({"pairwise": "concatenation", "scale": "1/sqrt(d)"}, "scale"),
        ({"temporal_group": 4, "mode": "time"}, "temporal_group"),
        ({"temporal_group": 0}, "temporal_group"),
        ({"causal": 1}, "from 2 on"),
        ({"causal": 4, "mode": "space"}, "belongs to the modes 'spacetime' and 'time'"),
        ({"causal": 4, "temporal_group": 2}, "without a temporal_group"),
        ({"causal": 4, "cells": (2, 2, 2)}, "in space alone"),
        ({"inner": 0}, "at least 1"),
        ({"cells": ()}, "one to three positive numbers"),
        ({"cells": (0, 2, 2)}, "one to three positive numbers"),
        ({"cells": (1, 1, 2, 2)}, "one to three positive numbers"),
        ({"cells": (2, 2, 2), "mode": "space"}, "in space alone"),
        ({"cells": (2, 2, 2), "mode": "time"}, "in space alone"),
        ({"cells": (2, 2, 2), "temporal_group": 2}, "in space alone"),
        ({"cells": (2, 2), "temporal_group": 2}, "in space alone"),
        ({"scale": "1/sqrt(D)"}, "None, a number or"),
        ({"pairwise": lambda theta, phi: phi @ theta.mT}, r"gave \(2, 4, 3\), not \(2, 3, 4\)"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        NonLocalBlock(6, **options)


@pytest.mark.parametrize(
    ("options", "shape", "says"),
    [
        ({}, (2, 5, 3, 3), r"\(N, 6, \*positions\)"),
        ({}, (2, 6), r"\(N, 6, \*positions\)"),
        ({"mode": "time"}, (2, 6, 3, 3), r"\(N, C, T, H, W\)"),
        ({"cells": (2, 2)}, (2, 6, 4, 3, 3), "3 axes of positions, and cells came as"),
        ({"cells": (1, 2, 2)}, (2, 6, 3, 3), "2 axes of positions, and cells came as"),
        ({"causal": 2}, (2, 6, 3, 3), r"\(N, C, T, H, W\)"),
        ({"temporal_group": 3}, (2, 6, 4, 3, 3), "4 frames do not divide into groups of 3"),
    ],
)
def test_features_that_do_not_fit_are_refused(
    options: dict[str, Any], shape: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        NonLocalBlock(6, **options)(torch.zeros(shape))


def test_scale_is_one_over_the_root_of_the_width() -> None:
    assert NonLocalBlock(32, scale="1/sqrt(d)").scale == 0.25  # inner 16
    assert NonLocalBlock(64, scale="1/sqrt(d)", pairwise="gaussian").scale == 0.125  # x itself
    block = make(scale="1/sqrt(d)")
    x = draw(SHAPES[3])
    torch.testing.assert_close(block(x), reference(block, x), **EXACT)


@pytest.mark.parametrize(
    ("pairwise", "mode", "subsample", "dim", "causal"),
    [
        (*case, causal)
        for case in CASES
        for causal in ((None,) if case[3] != 3 or case[1] == "space" else (None, 2))
    ],
)
def test_rows_times_values_are_the_response(
    pairwise: str, mode: str, subsample: str, dim: int, causal: int | None
) -> None:
    block = make(pairwise=pairwise, mode=mode, subsample=subsample, causal=causal)
    x = draw(SHAPES[dim])
    grid = x.shape[2:]
    queries = [tuple(s // 2 for s in grid), tuple(s - 1 for s in grid), (0,) * len(grid)]
    rows = block.rows(x, queries)
    assert rows.shape == (2, 3, *block.key_grid(grid))
    g = oracle.pool(x) if subsample == "before" and mode != "time" else x
    g = torch.einsum("oc,nc...->no...", block.g.weight, g) + block.g.bias.view(
        1, -1, *[1] * len(grid)
    )
    if subsample == "after" and mode != "time":
        g = oracle.pool(g)
    y = block.response(x).transpose(1, 2).unflatten(2, grid)
    for i, query in enumerate(queries):
        got = (rows[:, i].unsqueeze(1) * g).flatten(2).sum(-1)
        torch.testing.assert_close(got, y[(slice(None), slice(None), *query)], **EXACT)
    with pytest.raises(ValueError, match="does not lie on the grid"):
        block.rows(x, [tuple(grid)])


@pytest.mark.parametrize("dim", [3, 2])
def test_memory_layout_is_kept_and_changes_nothing(dim: int) -> None:
    last = torch.channels_last_3d if dim == 3 else torch.channels_last
    block = make()
    x = draw(SHAPES[dim])
    y, y_last = block(x), block(x.contiguous(memory_format=last))
    assert y.is_contiguous()
    assert y_last.is_contiguous(memory_format=last)
    torch.testing.assert_close(y, y_last, **EXACT)


def test_a_function_of_the_users_own() -> None:
    distance = Pairwise(_negative_distance, "softmax")
    block = make(pairwise=distance)
    x = draw(SHAPES[2])
    theta, phi, g = block.embed(x)
    want = (-torch.cdist(theta, phi).square()).softmax(-1) @ g
    torch.testing.assert_close(block.response(x), want, **EXACT)
    assert torch.equal(pickle.loads(pickle.dumps(block))(x), block(x))


def _negative_distance(theta: Tensor, phi: Tensor) -> Tensor:
    return -torch.cdist(theta, phi).square()


def test_axes_of_length_one_are_not_pooled() -> None:
    block = make()
    assert block.key_grid((4, 1, 5)) == (4, 1, 2)
    x = draw((1, 6, 4, 1, 5))
    torch.testing.assert_close(
        block.response(x).transpose(1, 2).unflatten(2, x.shape[2:]),
        oracle.block(x, dict(block.named_parameters()), "embedded_gaussian"),
        **EXACT,
    )


def test_frozen_norm_is_batch_norm_in_eval() -> None:
    block = make(norm="frozen")
    twin = nn.BatchNorm1d(6).double().eval()
    for name, tensor in twin.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(draw((6,), seed=len(name)).abs() + 0.1)
    assert block.norm is not None
    block.norm.load_state_dict(twin.state_dict())
    z = draw((7, 6))
    torch.testing.assert_close(block.norm(z), twin(z), **EXACT)
    assert not list(block.norm.parameters())
    assert block.norm(z.bfloat16()).dtype == torch.bfloat16


def test_sync_batch_norm_is_asleep_too() -> None:
    block = nn.SyncBatchNorm.convert_sync_batchnorm(NonLocalBlock(6))
    assert isinstance(block.norm, nn.SyncBatchNorm)
    assert not block.is_awake()


@pytest.mark.parametrize("options", [{}, {"mode": "space"}, {"mode": "time"}])
def test_an_empty_batch_comes_out_empty(options: dict[str, Any]) -> None:
    block = make(**options).eval()
    assert block(torch.zeros(0, 6, 4, 5, 6, dtype=torch.float64)).shape == (0, 6, 4, 5, 6)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from Linux's /proc")
@pytest.mark.parametrize("subsample", ["before", "none"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_memory_of_a_training_step_at_16800_positions(pairwise: str, subsample: str) -> None:
    """Forward and backward take less than four times the input and the gradients of the weights.

    With keys that are not pooled, the gradient of a softmax holds seven tensors of half the input's
    size and some rows: 3.5 times the input, and what the BLAS takes for its own.
    """
    most = 4.1 if subsample == "none" else 4.0
    grown = peak("memory:block", {"places": 2}, pairwise=pairwise, subsample=subsample, places=60)
    weights = NonLocalBlock(256, pairwise=pairwise).parameters()
    assert grown < most * 4 * (16_800 * 256 + sum(p.numel() for p in weights))

"""The operation and the block as others compute them, written from their equations.

None of their code is here and none of their packages is needed. Each form takes the weights of a
`NonLocalBlock` with the same options, so that both sides of a benchmark compute the same result.
`tests/test_benchmarks.py` holds every form to ours, `exact` to the oracle of the tests.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalnet import NonLocalBlock

# How each pools its keys when it does: before the embeddings or after them.
POOLS: dict[str, Any] = {"PySlowFast": "before", "mmcv": "after", "AlexHex7": "after"}

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def conv(linear: nn.Linear, dims: int) -> nn.Module:
    """A 1x1x1 convolution with the weights of a linear layer."""
    layer = CONVS[dims](linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    layer.weight.data = linear.weight.data.clone()[(..., *[None] * dims)]
    if layer.bias is not None:
        layer.bias.data = linear.bias.data.clone()
    return layer


def pool(dims: int) -> nn.Module:
    return {1: nn.MaxPool1d(2), 2: nn.MaxPool2d(2), 3: nn.MaxPool3d((1, 2, 2))}[dims]


def norm(block: NonLocalBlock, dims: int) -> nn.Module:
    assert block.norm is not None
    layer = NORMS[dims](block.channels)
    layer.load_state_dict(block.norm.state_dict())
    return layer


class SlowFastForm(nn.Module):
    """PySlowFast's block, and PyTorchVideo's: three convolutions, einsum, softmax, einsum.

    The keys are pooled before phi and g. With the softmax, theta . phi is divided by the root of
    its width; the dot product has no such factor and is divided by the number of keys. They are
    3-D only; fewer dimensions are the same with nn.Conv1d and nn.Conv2d.
    """

    def __init__(self, block: NonLocalBlock, dims: int = 3) -> None:
        super().__init__()
        assert block.theta is not None
        assert block.phi is not None
        self.theta, self.phi, self.g, self.out = (
            conv(layer, dims) for layer in (block.theta, block.phi, block.g, block.out)
        )
        self.pool = pool(dims) if block.subsample == "before" else nn.Identity()
        self.norm = norm(block, dims)
        self.softmax, self.scale = block.pairwise == "embedded_gaussian", block.scale

    def forward(self, x: Tensor) -> Tensor:
        keys = self.pool(x)
        theta, phi, g = (
            layer(t).flatten(2)  # (N, C, *positions) -> (N, inner, P or Q)
            for layer, t in ((self.theta, x), (self.phi, keys), (self.g, keys))
        )
        pairs = torch.einsum("ncp,ncq->npq", theta, phi)
        if self.scale is not None:
            pairs = pairs * self.scale
        pairs = pairs.softmax(-1) if self.softmax else pairs / pairs.shape[-1]
        y = torch.einsum("npq,ncq->ncp", pairs, g).unflatten(2, x.shape[2:])
        return x + self.norm(self.out(y))


class MmcvForm(nn.Module):
    """mmcv's NonLocalNd, which MMAction2's networks use: four functions, two matrix products.

    The keys are pooled after phi and g, or not, which is its default. The Gaussian compares x
    with itself over all channels. Concatenation fills the tensor of pairs (N, 2 inner, P, Q),
    repeats and all, and takes a 1x1 convolution and a ReLU of it.
    """

    def __init__(self, block: NonLocalBlock, dims: int = 3) -> None:
        super().__init__()
        self.theta, self.phi = (
            None if layer is None else conv(layer, dims) for layer in (block.theta, block.phi)
        )
        self.g, self.out = (conv(layer, dims) for layer in (block.g, block.out))
        self.pool = pool(dims) if block.subsample == "after" else nn.Identity()
        self.norm = norm(block, dims)
        self.pairwise, self.scale = block.pairwise, block.scale
        if block.w_f is not None:
            self.project = nn.Conv2d(len(block.w_f), 1, 1, bias=False)
            self.project.weight.data = block.w_f.data.clone().view(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        g = self.pool(self.g(x)).flatten(2).transpose(1, 2)  # (N, Q, inner)
        theta = (x if self.theta is None else self.theta(x)).flatten(2)  # (N, C, P)
        phi = self.pool(x if self.phi is None else self.phi(x)).flatten(2)  # (N, C, Q)
        y = (self.weights(theta, phi) @ g).transpose(1, 2).contiguous()  # (N, inner, P)
        return x + self.norm(self.out(y.unflatten(2, x.shape[2:])))

    def weights(self, theta: Tensor, phi: Tensor) -> Tensor:
        if self.pairwise == "concatenation":
            left = theta.unsqueeze(3).repeat(1, 1, 1, phi.shape[2])
            right = phi.unsqueeze(2).repeat(1, 1, theta.shape[2], 1)
            pairs = F.relu(self.project(torch.cat([left, right], dim=1))).squeeze(1)
        else:
            pairs = theta.transpose(1, 2) @ phi
        if self.scale is not None:
            pairs = pairs * self.scale
        if self.pairwise in ("gaussian", "embedded_gaussian"):
            return pairs.softmax(-1)
        return pairs / pairs.shape[-1]


class AlexForm(MmcvForm):
    """AlexHex7's Non-local_pytorch, concatenation: the same tensor of pairs.

    It differs in what its block is made with: a bias in the output convolution beside the norm,
    and pooled keys by default.
    """


FORMS: dict[str, type[nn.Module]] = {
    "PySlowFast": SlowFastForm,
    "mmcv": MmcvForm,
    "AlexHex7": AlexForm,
}


def matrix_form(
    theta: Tensor, phi: Tensor, g: Tensor, pairwise: str, weight: Tensor | None = None
) -> Tensor:
    """The operation with its N x M matrix, as every eager code has it; arguments of `non_local`.

    For concatenation the matrix is ReLU(a + b), the best that can be done without sorting: the
    tensor of pairs above is many times slower still.
    """
    if pairwise == "concatenation":
        assert weight is not None
        a, b = (t @ w for t, w in zip((theta, phi), weight.chunk(2), strict=True))
        pairs = F.relu(a.unsqueeze(2) + b.unsqueeze(1))
    else:
        pairs = theta @ phi.mT
    if pairwise in ("gaussian", "embedded_gaussian"):
        return pairs.softmax(-1) @ g
    return (pairs / pairs.shape[-1]) @ g


def exact_operation(
    theta: Tensor, phi: Tensor, g: Tensor, pairwise: str, weight: Tensor | None = None
) -> Tensor:
    """`matrix_form` in float64, some rows at a time: what errors are measured against."""
    theta, phi, g = (t.double() for t in (theta, phi, g))
    weight = None if weight is None else weight.double()
    rows = max(1, 2**24 // max(1, theta.shape[0] * phi.shape[1]))
    some = [matrix_form(part, phi, g, pairwise, weight) for part in theta.split(rows, dim=1)]
    return torch.cat(some, dim=1)


def exact_block(block: NonLocalBlock, x: Tensor) -> Tensor:
    """What the block adds to x, z - x, in float64 and by the equation; x may want gradients.

    The norm is as the block is: with the batch's statistics in training, the kept ones else.
    """
    dims, x = x.dim() - 2, x.double()
    theta, phi, g, out = (
        None if layer is None else conv(layer, dims).to(x)
        for layer in (block.theta, block.phi, block.g, block.out)
    )
    assert g is not None
    assert out is not None
    before, after = (
        pool(dims) if block.subsample == when else nn.Identity() for when in ("before", "after")
    )
    queries = x if theta is None else theta(x)
    keys = after(before(x) if phi is None else phi(before(x)))
    values = after(g(before(x)))
    queries, keys, values = (t.flatten(2).mT for t in (queries, keys, values))
    if block.scale is not None:
        queries = queries * block.scale
    assert isinstance(block.pairwise, str)
    y = exact_operation(queries, keys, values, block.pairwise, block.w_f)
    z = out(y.mT.unflatten(2, x.shape[2:]))
    layer = copy.deepcopy(block.norm)
    assert layer is not None
    return layer.double()(z.flatten(2)).view_as(z)  # (N, C, P), as BatchNorm1d takes it

"""The non-local block, section 3.3 of the paper:  z_i = W_z y_i + x_i  with y of Eq. 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import (
    FrozenBatchNorm,
    Layer,
    add_normed,
    add_product,
    followed,
    is_plain,
    normed,
    with_norm,
)
from .ops import (
    NARROW_CONCATENATION,
    Pairwise,
    Scores,
    attention_rows,
    factors,
    find_pairwise,
    non_local,
)
from .positions import Mode, fold, locate, pool, to_grid, to_rows, to_tokens, unfold, window

Subsample = Literal["before", "after", "none"]
Norm = Literal["batch", "frozen", "none"]
ZeroInit = Literal["norm", "out", "none"]
Init = Literal["normal", "msra"]
Options = tuple[str | Pairwise | Scores, float | None, Tensor | None]  # pairwise, scale, w_f


class BlockOptions(TypedDict, total=False):
    """The keyword arguments of `NonLocalBlock`, for functions that hand them on."""

    inner: int | None
    pairwise: str | Pairwise | Scores
    mode: Mode
    subsample: Subsample
    scale: float | Literal["1/sqrt(d)"] | None
    norm: Norm
    zero_init: ZeroInit | None
    out_bias: bool
    temporal_group: int | None
    init: Init
    cells: tuple[int, ...] | None


class NonLocalBlock(nn.Module):
    """A non-local block for features (N, C, *positions) of one, two or three dimensions.

    z = x + norm(W_z y),  y_i = 1/C sum_j f(x_i, x_j) g(x_j)    (paper Eq. 1 and 6, Figure 2)

    W_theta, W_phi, W_g and W_z are 1x1x1 convolutions, held as linear layers, so the same block
    and the same weights serve (N, C, L), (N, C, H, W) and (N, C, T, H, W). At construction the
    block is the identity and can be inserted into a trained network.

    Args:
        channels: C, the width of the features.
        inner: width of the embeddings; None is the paper's C / 2.
        pairwise: "gaussian", "embedded_gaussian", "dot_product", "concatenation", a function
            f(theta, phi) -> (N, P, Q), or a `Pairwise`.
        mode: which positions a query sees. "spacetime": all (paper); "space": those of its own
            frame; "time": those at its own place (paper Table 2d). "space" and "time" are for
            (N, C, T, H, W).
        subsample: the paper's 1x2x2 max pooling of the keys. "before" phi and g: x_hat in the
            paper's equation, Caffe2, PySlowFast, PyTorchVideo. "after" them: the paper's sentence,
            MMAction2, AlexHex7, TSM. "none". In 1-D two neighbours are pooled; an axis of length
            one is not. Mode "time" has no other place to pool, so there it is always "none".
        scale: factor on theta . phi. None: the paper, TSM, AlexHex7, MMAction2's I3D and TSM.
            "1/sqrt(d)", d the width of theta: Caffe2, PySlowFast, PyTorchVideo.
        norm: after W_z. "batch": the paper; "frozen": constants, for small batches on a frozen
            backbone; "none": Caffe2's long-clip models.
        zero_init: what is zero at construction, to make the block the identity. "norm": its gain
            (paper); "out": W_z (Caffe2's USE_ZERO_INIT_CONV); "none": the block starts awake,
            which is quicker on small data from scratch. None: "norm" where the norm learns,
            else "out".
        out_bias: whether W_z has a bias; MMAction2 has none.
        temporal_group: only frames of the same group of this many see each other (Caffe2's
            long-clip models use 4 in res3). None: no groups.
        init: of theta, phi, g (and W_z unless zero). "normal": N(0, 0.01^2), Caffe2 and mmcv;
            "msra": the paper's sentence, PySlowFast.
        cells: how many positions one pooled key stands for, per axis. None: the paper's (1, 2, 2),
            and 2 along each axis of images and sequences; PySlowFast may pool frames too.

    Raises:
        ValueError: options that do not fit each other, among them the combination that could
            never learn: a frozen norm with zero gain has a zero gradient for ever.
    """

    def __init__(
        self,
        channels: int,
        inner: int | None = None,
        pairwise: str | Pairwise | Scores = "embedded_gaussian",
        mode: Mode = "spacetime",
        subsample: Subsample = "before",
        scale: float | Literal["1/sqrt(d)"] | None = None,
        norm: Norm = "batch",
        zero_init: ZeroInit | None = None,
        out_bias: bool = True,
        temporal_group: int | None = None,
        init: Init = "normal",
        cells: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        _one_of("mode", mode, Mode)
        _one_of("subsample", subsample, Subsample)
        _one_of("norm", norm, Norm)
        _one_of("init", init, Init)
        if zero_init is None:
            zero_init = "norm" if norm == "batch" else "out"
        _one_of("zero_init", zero_init, ZeroInit)
        if zero_init == "norm" and norm != "batch":
            why = "would keep its gradient zero for ever" if norm == "frozen" else "does not exist"
            raise ValueError(
                f"norm={norm!r} with zero_init='norm': the gain of a {norm!r} norm {why};"
                " use zero_init='out'"
            )
        if cells is not None and (min(cells, default=0) < 1 or len(cells) > 3):
            raise ValueError(f"cells are one to three positive numbers, not {cells!r}")
        folds = mode != "spacetime" or temporal_group is not None
        if cells is not None and folds and (len(cells) != 3 or cells[0] != 1):
            raise ValueError(
                f"mode={mode!r} and temporal_group={temporal_group} tell frames apart, so keys are"
                f" pooled in space alone: cells=(1, h, w), not {cells!r}"
            )
        if temporal_group is not None and (mode != "spacetime" or temporal_group < 1):
            raise ValueError(
                "temporal_group is a positive number of frames and belongs to mode='spacetime';"
                f" it came as {temporal_group} with mode={mode!r}"
            )
        function = find_pairwise(pairwise)
        inner = max(1, channels // 2) if inner is None else inner
        if channels < 1 or inner < 1:
            raise ValueError(f"channels and inner must be at least 1, not {channels} and {inner}")
        self.channels, self.inner = channels, inner
        self.pairwise, self.mode = pairwise, mode
        self.subsample: Subsample = "none" if mode == "time" else subsample
        self.cells = None if cells is None else tuple(cells)
        self.temporal_group = 1 if mode == "space" else temporal_group
        width = inner if function.embedded else channels
        if isinstance(scale, str) and scale != "1/sqrt(d)":
            raise ValueError(f"scale is None, a number or '1/sqrt(d)', not {scale!r}")
        self.scale = width**-0.5 if isinstance(scale, str) else scale

        self.theta = nn.Linear(channels, inner) if function.embedded else None
        self.phi = nn.Linear(channels, inner) if function.embedded else None
        self.g = nn.Linear(channels, inner)
        self.w_f = nn.Parameter(torch.empty(2 * inner)) if function.weighted else None
        self.out = nn.Linear(inner, channels, bias=out_bias)
        self.norm: nn.Module | None = None
        if norm == "batch":
            self.norm = nn.BatchNorm1d(channels)
        elif norm == "frozen":
            self.norm = FrozenBatchNorm(channels)
        self._initialize(init, zero_init)
        # Refuse now what the operation would refuse at the first batch.
        non_local(*self._probe(function), pairwise, self.scale, self.w_f)

    def _initialize(self, init: Init, zero_init: ZeroInit) -> None:
        if self.g.weight.is_meta:
            return
        for layer in (self.theta, self.phi, self.g, self.out):
            if layer is None:
                continue
            if init == "normal":
                nn.init.normal_(layer.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if self.w_f is not None:
            # as the 1x1 convolution to one channel that it is: fan-in 2 C
            std = 0.01 if init == "normal" else self.inner**-0.5
            nn.init.normal_(self.w_f, std=std)
        if zero_init == "out":
            nn.init.zeros_(self.out.weight)
        elif zero_init == "norm" and isinstance(self.norm, nn.BatchNorm1d):
            nn.init.zeros_(self.norm.weight)

    def _probe(self, function: Pairwise) -> tuple[Tensor, Tensor, Tensor]:
        width = self.inner if function.embedded else self.channels
        n, p, q = 2, 3, 4  # all different, to tell a transposed matrix of pairs
        return torch.zeros(n, p, width), torch.zeros(n, q, width), torch.zeros(n, q, self.inner)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *positions) -> the same shape, in x's memory layout."""
        if not is_plain(self.out):
            z = self.out(self.response(x))  # (N, P, inner) -> (N, P, C)
            return x + to_grid(normed(z, self.norm), x.shape[2:])
        theta, phi, g, function = self._operands(x)
        weight, bias, norm = with_norm(self.out, self.norm)
        if self.mode != "time" and self.temporal_group is None:
            left, right = factors(theta, phi, g, weight.mT, *function)
        else:  # groups of positions, whose results go back to their places first
            left, right = self._unfold(non_local(theta, phi, g, *function), x), weight.mT
        if norm is None:
            return add_product(x, left, right, bias)
        return add_normed(x, norm, left, right, bias)

    def _unfold(self, y: Tensor, x: Tensor) -> Tensor:
        return unfold(y, x.shape, self.mode, self.temporal_group)

    def response(self, x: Tensor) -> Tensor:
        """The operation's result y before W_z: (N, C, *positions) -> (N, P, inner)."""
        theta, phi, g = self.embed(x)
        y = non_local(theta, phi, g, self.pairwise, self.scale, self.w_f)
        return self._unfold(y, x)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """theta, phi and g of x, folded so that only positions that see each other share a row.

        (N, C, *positions) -> (N', P', inner), (N', Q', inner), (N', Q', inner) where N' is N, or
        N times the number of frame groups ("space", temporal_group) or of places ("time").
        """
        return self._embed(x, self.theta, self.phi)

    def _embed(
        self, x: Tensor, theta_of: Layer | None, phi_of: Layer | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        self._check(x)
        tokens = to_rows(x)  # (N, P, C): a view where x is channels-last
        theta = tokens if theta_of is None else theta_of(tokens)
        if self.subsample == "after":
            g = to_tokens(pool(to_grid(self.g(tokens), x.shape[2:]), self.cells))
            keys = x if phi_of is None else to_grid(phi_of(tokens), x.shape[2:])
            phi = to_tokens(pool(keys, self.cells))
        else:
            keys = to_rows(pool(x, self.cells)) if self.subsample == "before" else tokens
            phi = keys if phi_of is None else phi_of(keys)
            g = self.g(keys)
        frames = x.shape[2]
        mode, group = self.mode, self.temporal_group
        return (
            fold(theta, frames, mode, group),
            fold(phi, frames, mode, group),
            fold(g, frames, mode, group),
        )

    def _operands(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Options]:
        """What Eq. 1 is computed from. For concatenation, a = w_f . theta is one channel wide:

        the product of w_f and W_theta is formed first, and likewise with phi unless it is pooled,
        since the largest of several sums is not the sum of the largest.
        """
        plain = is_plain(self.theta) and is_plain(self.phi)
        if self.w_f is None or self.pairwise != "concatenation" or not plain:
            return *self.embed(x), (self.pairwise, self.scale, self.w_f)
        left, right = self.w_f.unsqueeze(0).split(self.inner, dim=1)  # (1, inner) each
        theta_of, phi_of = followed(self.theta, left), self.phi
        narrow: Options = NARROW_CONCATENATION, None, None
        if self.subsample != "after":
            return *self._embed(x, theta_of, followed(phi_of, right)), narrow
        a, phi, g = self._embed(x, theta_of, phi_of)
        return a, F.linear(phi, right), g, narrow

    def rows(self, x: Tensor, queries: Sequence[Sequence[int]]) -> Tensor:
        """The normalised weights of chosen queries over the grid of keys.

        Args:
            x: the block's input (N, C, *positions).
            queries: positions on x's grid, such as (t, h, w).

        Returns:
            (N, len(queries), *key_grid(x.shape[2:])); zero where the query does not see. Computed
            for these queries only, whatever form the forward pass takes; a row times g is the
            query's `response`.
        """
        theta, phi, _ = self.embed(x)
        n, grid = x.shape[0], tuple(x.shape[2:])
        theta, phi = (t.unflatten(0, (n, -1)) for t in (theta, phi))  # (N, folds, P', C)
        keys = self.key_grid(grid)
        out = x.new_zeros(n, len(queries), *keys)
        for i, query in enumerate(queries):
            own, row, seen = locate(query, grid, self.mode, self.temporal_group)
            one = theta[:, own, row : row + 1]  # (N, 1, C)
            weights = attention_rows(one, phi[:, own], self.pairwise, self.scale, self.w_f)
            part = out[:, i][(slice(None), *seen)]
            part.copy_(weights.reshape(part.shape))
        return out

    def key_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        """The grid of keys for features on `grid`: halved in space when sub-sampled."""
        return tuple(s // k for s, k in zip(grid, self.key_stride(grid), strict=True))

    def key_stride(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Cells of the features per key cell and axis, (1, 2, 2) for the paper's pooling."""
        return window(grid, self.cells) if self.subsample != "none" else (1,) * len(grid)

    def is_awake(self) -> bool:
        """False while the operation's result cannot reach the output, as at construction."""
        weights = [getattr(layer, "weight", None) for layer in (self.out, self.norm)]
        return all(weight is None or bool(weight.any()) for weight in weights)

    def extra_repr(self) -> str:
        name = self.pairwise if isinstance(self.pairwise, str) else "custom"
        text = f"{self.channels}, inner={self.inner}, {name}, {self.mode}, keys={self.subsample}"
        if self.cells is not None:
            text += f", cells={self.cells}"
        if self.scale is not None:
            text += f", scale={self.scale:.4g}"
        if self.temporal_group is not None and self.mode != "space":
            text += f", temporal_group={self.temporal_group}"
        return text

    def _check(self, x: Tensor) -> None:
        if not 3 <= x.dim() <= 5 or x.shape[1] != self.channels:
            raise ValueError(
                f"this block takes features (N, {self.channels}, *positions) with one to three"
                f" axes of positions; they came as {tuple(x.shape)}"
            )
        folds = self.mode != "spacetime" or self.temporal_group is not None
        if folds and x.dim() != 5:
            raise ValueError(
                f"mode {self.mode!r} or a temporal_group tells frames apart, so it takes"
                f" (N, C, T, H, W); features came as {tuple(x.shape)}"
            )
        if self.temporal_group is not None and x.shape[2] % self.temporal_group:
            raise ValueError(
                f"{x.shape[2]} frames do not divide into groups of {self.temporal_group}"
            )


def _one_of(name: str, value: str, choice: object) -> None:
    allowed = choice.__args__  # type: ignore[attr-defined]
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(map(repr, allowed))}, not {value!r}")

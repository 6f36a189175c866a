"""The non-local block, section 3.3 of the paper:  z_i = W_z y_i + x_i  with y of Eq. 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .block_options import Init, Norm, Subsample, ZeroInit, check_options
from .causal import of_newest, over_clip
from .linear import FrozenBatchNorm, Layer, add_normed, followed, is_plain, normed, with_norm
from .ops import (
    NARROW_CONCATENATION,
    Pairwise,
    Scores,
    attention_rows,
    factors,
    find_pairwise,
    non_local,
)
from .positions import (
    Mode,
    fold,
    locate,
    pool,
    to_grid,
    to_rows,
    to_tokens,
    unfold,
    visible,
    window,
)

Options = tuple[str | Pairwise | Scores, float | None, Tensor | None]  # pairwise, scale, w_f
Keys = tuple[Tensor, Tensor, Tensor]  # phi and g of earlier frames, how many there are


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
        causal: W; a query sees the keys of its own frame and of the W - 1 before it, so that the
            network can run frame by frame (`step`). None: frames to come are seen too.
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
        causal: int | None = None,
        init: Init = "normal",
        cells: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if zero_init is None:
            zero_init = "norm" if norm == "batch" else "out"
        check_options(mode, subsample, norm, zero_init, temporal_group, causal, init, cells)
        function = find_pairwise(pairwise)
        inner = max(1, channels // 2) if inner is None else inner
        if channels < 1 or inner < 1:
            raise ValueError(f"channels and inner must be at least 1, not {channels} and {inner}")
        self.channels, self.inner = channels, inner
        self.pairwise, self.mode = pairwise, mode
        self.subsample: Subsample = "none" if mode == "time" else subsample
        self.cells = None if cells is None else tuple(cells)
        self.temporal_group = 1 if mode == "space" else temporal_group
        self.causal = causal
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
        theta, phi, g, function = self._operands(x)
        all_see_all = self.mode == "spacetime" and self.temporal_group is self.causal is None
        if all_see_all and is_plain(self.out):
            weight, bias, norm = with_norm(self.out, self.norm)
            return add_normed(x, norm, *factors(theta, phi, g, weight.mT, *function), bias)
        return self._add(x, self._sum(x, theta, phi, g, function))

    def response(self, x: Tensor) -> Tensor:
        """The operation's result y before W_z: (N, C, *positions) -> (N, P, inner)."""
        theta, phi, g = self._embed(x, self.theta, self.phi)
        return self._sum(x, theta, phi, g, (self.pairwise, self.scale, self.w_f))

    def step(self, x: Tensor, keys: Keys | None = None) -> tuple[Tensor, Keys]:
        """One frame of a causal block: (N, C, 1, H, W) and what was seen before -> z, what is seen.

        keys: phi (N, (W - 1) Q, C) and g (N, (W - 1) Q, inner) of the frames before, oldest first,
            and how many of these frames each stream has seen (N,) int64; all of a stream's are
            zero where it begins, as for None. phi is one number wide for concatenation, of which
            only w_f . phi is needed.

        Frame by frame it gives what `forward` gives for the whole clip.

        Raises ValueError if the block is not causal, for more frames than one, and for keys of
        other features.
        """
        if self.causal is None or x.dim() != 5 or x.shape[2] != 1:
            raise ValueError(
                "a step takes one frame (N, C, 1, H, W) through a causal block; the features came"
                f" as {tuple(x.shape)} and the block has causal={self.causal}"
            )
        theta, phi, g, function = self._operands(x)
        n, q, window, past = x.shape[0], phi.shape[1], self.causal, self.causal - 1
        if keys is None:
            begin = torch.zeros(n, dtype=torch.int64, device=x.device)
            none = (f.new_zeros(n, past * q, f.shape[2]) for f in (phi, g))
            keys = next(none), next(none), begin
        want = n, past * q, phi.shape[2]
        if keys[0].shape != want:
            raise ValueError(
                f"the keys of the {past} frames before these are {want}; they came as"
                f" {tuple(keys[0].shape)}: begin anew with keys=None"
            )
        phi, g = torch.cat([keys[0], phi], 1), torch.cat([keys[1], g], 1)  # (N, W Q, ...)
        age = torch.arange(past, -1, -1, device=x.device)  # frames ago, oldest first
        there = (age <= keys[2].unsqueeze(1)).unsqueeze(2).expand(-1, -1, q).flatten(1)  # (N, W Q)
        kept = phi[:, q:], g[:, q:], (keys[2] + 1).clamp(max=past)
        theta = fold(theta, 1, self.mode, None)
        phi, g, there = (fold(t, window, self.mode, None) for t in (phi, g, there.unsqueeze(2)))
        y = of_newest(theta, phi, g, there.squeeze(2), *function)
        return self._add(x, unfold(y, x.shape, self.mode, None)), kept

    def _sum(self, x: Tensor, theta: Tensor, phi: Tensor, g: Tensor, function: Options) -> Tensor:
        """Eq. 1 over what each query sees, (N, P, inner), from the embeddings of all positions."""
        frames, mode, group = x.shape[2], self.mode, self.temporal_group
        theta, phi, g = (fold(t, frames, mode, group) for t in (theta, phi, g))
        if self.causal is None:
            y = non_local(theta, phi, g, *function)
        else:
            y = over_clip(theta, phi, g, frames, self.causal, *function)
        return unfold(y, x.shape, mode, group)

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        """Eq. 6: z of the block's input and the operation's result y (N, P, inner)."""
        if not is_plain(self.out):
            return x + to_grid(normed(self.out(y), self.norm), x.shape[2:])
        weight, bias, norm = with_norm(self.out, self.norm)
        return add_normed(x, norm, y, weight.mT, bias)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """theta, phi and g of x, folded so that only positions that see each other share a row.

        (N, C, *positions) -> (N', P', inner), (N', Q', inner), (N', Q', inner) where N' is N, or
        N times the number of frame groups ("space", temporal_group) or of places ("time").
        """
        parts = self._embed(x, self.theta, self.phi)
        theta, phi, g = (fold(t, x.shape[2], self.mode, self.temporal_group) for t in parts)
        return theta, phi, g

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
        return theta, phi, g

    def _operands(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Options]:
        """What Eq. 1 is computed from. For concatenation, a = w_f . theta is one channel wide:

        the product of w_f and W_theta is formed first, and likewise with phi unless it is pooled,
        since the largest of several sums is not the sum of the largest.
        """
        plain = is_plain(self.theta) and is_plain(self.phi)
        if self.w_f is None or self.pairwise != "concatenation" or not plain:
            return *self._embed(x, self.theta, self.phi), (self.pairwise, self.scale, self.w_f)
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
        alike: dict[str, list[tuple[int, int]]] = {}  # queries that see the same keys
        for i, query in enumerate(queries):
            own, row = locate(query, grid, self.mode, self.temporal_group)
            seen = visible(query, self.mode, self.temporal_group, self.causal)
            alike.setdefault(f"{own} {seen}", []).append((i, row))
        for some in alike.values():
            which, rows = map(list, zip(*some, strict=True))
            own, _ = locate(queries[which[0]], grid, self.mode, self.temporal_group)
            seen = visible(queries[which[0]], self.mode, self.temporal_group, self.causal)
            there = phi[:, own]
            if self.causal is not None:
                there = there.unflatten(1, (grid[0], -1))[:, seen[0]].flatten(1, 2)
            args = theta[:, own, rows], there, self.pairwise, self.scale, self.w_f
            place: Any = (slice(None), which, *seen)
            out[place] = attention_rows(*args).reshape(out[place].shape)
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
        if self.causal is not None:
            text += f", causal={self.causal}"
        return text

    def _check(self, x: Tensor) -> None:
        if not 3 <= x.dim() <= 5 or x.shape[1] != self.channels:
            raise ValueError(
                f"this block takes features (N, {self.channels}, *positions) with one to three"
                f" axes of positions; they came as {tuple(x.shape)}"
            )
        groups = self.temporal_group, self.causal
        if (self.mode != "spacetime" or groups != (None, None)) and x.dim() != 5:
            raise ValueError(
                f"mode {self.mode!r}, a temporal_group or causal tells frames apart, so it takes"
                f" (N, C, T, H, W); features came as {tuple(x.shape)}"
            )
        if self.temporal_group is not None and x.shape[2] % self.temporal_group:
            raise ValueError(
                f"{x.shape[2]} frames do not divide into groups of {self.temporal_group}"
            )

"""The temporal shift of TSM (Lin, Gan, Han; ICCV 2019): motion for no multiplication."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Direction = Literal["both", "past"]


class TemporalShift(nn.Module):
    """Move a part of the channels one frame along time; zeros come in at the ends.

        channels [0, C/n)     out[t] = x[t + 1]     from the future
        channels [C/n, 2C/n)  out[t] = x[t - 1]     from the past
        the rest              out[t] = x[t]

    (mit-han-lab/temporal-shift-module, offline and bidirectional.) Online, frames come one by one
    and there is no future: channels [0, C/n) come from the past and the rest stays. It has no
    parameters.

    Args:
        fraction: n above; 8 in TSM, so a quarter of the channels moves (an eighth online).
        direction: "both", or "past" for online networks.
        frames: T, for features of a 2-D network that come as (N T, C, H, W). None: features are
            (N, C, T, H, W).

    Raises:
        ValueError: a fraction under 2, features of another shape or of too few channels.
    """

    def __init__(
        self, fraction: int = 8, frames: int | None = None, direction: Direction = "both"
    ) -> None:
        super().__init__()
        if direction not in ("both", "past"):
            raise ValueError(f"direction is 'both' or 'past', not {direction!r}")
        if fraction < 2:
            raise ValueError(f"two parts of the channels move, so fraction >= 2, not {fraction}")
        if frames is not None and frames < 1:
            raise ValueError(f"frames is the length of a clip, at least 1, not {frames}")
        self.fraction, self.frames, self.direction = fraction, frames, direction

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W), or (N T, C, H, W) with `frames`, to the same shape."""
        if self.frames is None:
            if x.dim() != 5:
                raise ValueError(
                    f"the shift takes (N, C, T, H, W), features came as {tuple(x.shape)}; for a"
                    " 2-D network whose batch holds the frames, give frames=T"
                )
            return self._shift(x)
        if x.dim() != 4 or x.shape[0] % self.frames:
            raise ValueError(
                f"the shift takes (N T, C, H, W) with T = {self.frames} frames;"
                f" features came as {tuple(x.shape)}"
            )
        clips = x.unflatten(0, (-1, self.frames)).transpose(1, 2)  # (N, C, T, H, W), a view
        return self._shift(clips).transpose(1, 2).flatten(0, 1)

    def step(self, x: Tensor, cache: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One frame (N, C, 1, H, W) or (N, C, H, W) and what the last one left -> shifted, cache.

        cache: channels [0, C/n) of the frame before, (N, C/n, ...); zero where a stream begins, as
            for None. Frame by frame it gives what `forward` gives for the whole clip.

        Raises ValueError if the shift is from the future too, for more frames than one, and for a
        cache of other features.
        """
        if self.direction != "past":
            raise ValueError("half of this shift comes from the next frame: use direction='past'")
        if x.dim() == 5 and x.shape[2] != 1:
            raise ValueError(f"a step takes one frame, features came as {tuple(x.shape)}")
        fold = self._fold(x)
        now = x[:, :fold].clone()  # a view would hold, and share, all of x
        if cache is None:
            cache = torch.zeros_like(now)
        if cache.shape != now.shape:
            raise ValueError(
                f"the cache of these features is {tuple(now.shape)}; it came as"
                f" {tuple(cache.shape)}: begin anew with cache=None"
            )
        return torch.cat([cache, x[:, fold:]], 1), now

    def _fold(self, x: Tensor) -> int:
        fold = x.shape[1] // self.fraction
        if fold == 0:
            raise ValueError(
                f"1/{self.fraction} of {x.shape[1]} channels is none: shift where there are more,"
                " or lower fraction"
            )
        return fold

    def _shift(self, x: Tensor) -> Tensor:
        fold = self._fold(x)
        if torch.compiler.is_exporting():  # where each assignment would become a scatter
            from_past = F.pad(x[:, : 2 * fold, :-1], (0, 0, 0, 0, 1, 0))
            if self.direction == "past":
                return torch.cat([from_past[:, :fold], x[:, fold:]], 1)
            from_future = F.pad(x[:, :fold, 1:], (0, 0, 0, 0, 0, 1))
            return torch.cat([from_future, from_past[:, fold:], x[:, 2 * fold :]], 1)
        out = x.clone()
        if self.direction == "past":
            out[:, :fold, 1:] = x[:, :fold, :-1]
            out[:, :fold, :1] = 0
            return out
        ahead, back = slice(0, fold), slice(fold, 2 * fold)
        out[:, ahead, :-1] = x[:, ahead, 1:]
        out[:, ahead, -1:] = 0
        out[:, back, 1:] = x[:, back, :-1]
        out[:, back, :1] = 0
        return out

    @property
    def moves(self) -> str:
        """What moves, in words."""
        ahead = f"1/{self.fraction} from the future, " if self.direction == "both" else ""
        return f"{ahead}1/{self.fraction} from the past"

    def extra_repr(self) -> str:
        return self.moves if self.frames is None else f"{self.moves}, frames={self.frames}"

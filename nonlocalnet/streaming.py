"""One frame at a time: `logits, state = stream(frame, state)`, the state a plain tuple of tensors.

A network whose shifts come from the past and whose blocks are causal needs, of the frames before,
a few features each (C/8 channels of a shift, the keys of a block's last frames). Carried from call
to call, they make frame by frame the same logits as the whole clip at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from .block import NonLocalBlock
from .card import Card
from .errors import UserError
from .shift import TemporalShift

State = tuple[Tensor, ...]

LOCAL = (nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, nn.AvgPool3d, nn.LPPool3d)
LINEAR = (nn.Linear, nn.Dropout, nn.Flatten, nn.Identity)  # whose mean is that of the mean


class Streaming(nn.Module):
    """A copy of a network that takes the frames of N streams one by one.

        stream = Streaming(load("runs/online"))
        state = None
        for frame in frames:                       # (N, 3, H, W), normalised
            logits, state = stream(frame, state)   # (N, K), of this frame

    The mean of the logits over the frames of a clip is what the network gives for the clip. The
    state belongs to the caller: it can be copied, stored, moved and mixed, `restart` lets some of
    the streams begin anew, and nothing of it stays in here. Its tensors, named in `names`, have
    the streams as their first axis; all zeros is a stream that has seen nothing.

    Streams at once are rows of the batch; calls at once from several threads need one copy each.

    Args:
        model: a network for clips (N, 3, T, H, W) whose every layer sees the past alone, or a 2-D
            network for frames (N, 3, H, W), shifted or not. It is copied, and in eval mode.

    Raises:
        UserError: layers that look ahead or mix frames, each by name, with what to use instead.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        check_streams(model)
        self._flat = _is_flat(model)
        self.model = copy.deepcopy(model).eval()
        card = getattr(model, "card", None)
        if isinstance(card, Card):
            self.card = card
        self._carried: dict[str, _Carried] = {}
        for name, module in list(self.model.named_modules()):
            causal = isinstance(module, NonLocalBlock) and module.causal is not None
            if causal or isinstance(module, TemporalShift):
                self._carried[name] = _Carried(module)
                parent, _, child = name.rpartition(".")
                setattr(self.model.get_submodule(parent), child, self._carried[name])

    @property
    def names(self) -> tuple[str, ...]:
        """A name per tensor of the state: "layer1.0.conv1.temporal_shift.cache" and the like."""
        return tuple(
            f"{name}.{part}" for name, carried in self._carried.items() for part in carried.parts
        )

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Frames (N, 3, H, W), one of each stream, and the state -> logits (N, K), the next state.

        state: None where all streams begin. Raises ValueError for frames of another shape, and for
        a state that is not one of this network and this number of streams.
        """
        if frame.dim() != 4:
            raise ValueError(f"frames are (N, 3, H, W), one per stream, not {tuple(frame.shape)}")
        parts = None if state is None else self._parts(frame, state)
        for carried in self._carried.values():
            carried.state = None if parts is None else next(parts)
        try:
            logits = self._logits(frame)
            after = tuple(t for carried in self._carried.values() for t in carried.state or ())
        finally:
            for carried in self._carried.values():
                carried.state = None
        return logits, after

    def start(self, frame: Tensor) -> State:
        """The state of streams that have seen nothing, for frames of this shape, type and place."""
        with torch.no_grad():
            return tuple(torch.zeros_like(t) for t in self(frame)[1])

    def _logits(self, frame: Tensor) -> Tensor:
        frames = getattr(self.model, "frames", None)
        if callable(frames):  # (N, 3, 1, H, W) -> (N, 1, K)
            return frames(frame.unsqueeze(2)).squeeze(1)
        return self.model(frame if self._flat else frame.unsqueeze(2))

    def _parts(self, frame: Tensor, state: State) -> Iterator[State]:
        """The state of each layer that carries one."""
        n = frame.shape[0]  # not len(), which would make a number of it in a graph
        if len(state) != len(self.names) or any(t.shape[0] != n for t in state):
            raise ValueError(
                f"the state of {n} streams is {len(self.names)} tensors whose first axis is {n};"
                f" it came as {[tuple(t.shape) for t in state]}: begin anew with state=None"
            )
        rest = iter(state)
        return (tuple(next(rest) for _ in c.parts) for c in self._carried.values())


def check_streams(model: nn.Module) -> None:
    """Raises `UserError` as `Streaming` does, without making the copy."""
    ahead = [f"{name} {why}" for name, why in _looks_ahead(model, _is_flat(model))]
    if ahead:
        more = f", and {len(ahead) - 3} more" if len(ahead) > 3 else ""
        raise UserError(
            f"this {type(model).__name__} cannot run frame by frame: {'; '.join(ahead[:3])}{more}."
            " Train an online network: a tsm_ model with --shift online, and --causal for its"
            " blocks"
        )


def _is_flat(model: nn.Module) -> bool:
    """Whether a network is 2-D, so that its batch holds frames."""
    return not any(isinstance(m, nn.Conv3d) for m in model.modules())


def restart(state: State, which: Tensor) -> State:
    """The state with some of its streams at their beginning; which: (N,) bool."""
    return tuple(t.masked_fill(which.view(-1, *[1] * (t.dim() - 1)), 0) for t in state)


def step_through(stream: nn.Module, clips: Tensor) -> Tensor:
    """Every frame's logits, one step after the other: (N, 3, T, H, W), normalised -> (N, T, K).

    The clips are N streams that begin together. stream: see `is_stream`.
    """
    state, answers = None, []
    for frame in clips.unbind(2):
        logits, state = stream(frame.contiguous(), state)
        answers.append(logits)
    return torch.stack(answers, 1)


def is_stream(model: nn.Module) -> bool:
    """Whether a network takes frame after frame: a `Streaming`, or one that was exported."""
    return callable(getattr(model, "start", None))


class _Carried(nn.Module):
    """A layer whose memory is put in before a call of the network, and taken out after it."""

    def __init__(self, layer: TemporalShift | NonLocalBlock) -> None:
        super().__init__()
        self.layer = layer
        self.state: State | None = None
        shifts = isinstance(layer, TemporalShift)
        self.parts = ("cache",) if shifts else ("keys", "values", "seen")

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.layer, TemporalShift):
            y, cache = self.layer.step(x, *self.state or ())
            self.state = (cache,)
            return y
        y, self.state = self.layer.step(x, self.state)  # type: ignore[arg-type]
        return y


def _looks_ahead(model: nn.Module, flat: bool) -> Iterator[tuple[str, str]]:
    """The layers that need more than the frame at hand and what `_Carried` keeps, and why.

    flat: the network is 2-D, its batch holds frames, and a block sees one of them.
    """
    for name, module in model.named_modules():
        if isinstance(module, TemporalShift) and module.direction != "past":
            yield name, "is a shift from the next frame too"
        elif isinstance(module, NonLocalBlock):
            if not (flat or module.mode == "space" or module.causal is not None):
                yield name, "is a block that sees all frames"
        elif isinstance(module, LOCAL):
            for what in ("kernel_size", "stride", "padding"):
                size = getattr(module, what, 0)
                first = size[0] if isinstance(size, tuple) else size
                if isinstance(first, int) and first > (what != "padding"):
                    yield name, f"has a {what.removesuffix('_size')} of several frames"
                    break
        elif _mixes(module, flat):
            yield name, "is a norm over all frames at hand"
    yield from _pooled(model)


def _mixes(module: nn.Module, flat: bool) -> bool:
    """Whether a norm takes its statistics from the input, where that is more than one frame."""
    if not isinstance(module, _NormBase | nn.GroupNorm):
        return False
    own = isinstance(module, _InstanceNorm | nn.GroupNorm)  # statistics of each sample by itself
    return getattr(module, "running_mean", None) is None and not (flat and own)


def _pooled(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Where all frames become one before the end, so that the mean of answers is another."""
    head = getattr(model, "head", None)
    if head in ("7x7-softmax", "7x7-sigmoid"):
        yield "its head", f"joins places of all frames ({head!r}; 'global' and '7x7-logits' do not)"
    leaves = [(n, m) for n, m in model.named_modules() if not any(m.children())]
    last = max((i for i, (_, m) in enumerate(leaves) if not isinstance(m, LINEAR)), default=0)
    for i, (name, module) in enumerate(leaves):
        if isinstance(module, nn.AdaptiveMaxPool3d | nn.AdaptiveAvgPool3d):
            size = module.output_size
            kept = isinstance(size, tuple | list) and size[0] is None
            if not kept and (i < last or isinstance(module, nn.AdaptiveMaxPool3d)):
                yield name, "pools all frames"

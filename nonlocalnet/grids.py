"""Where features lie in the input of any network, from what its layers do while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Axis = tuple[float, float]  # (stride, offset): cell i is centred at offset + stride * i
Axes = tuple[Axis, ...]

LAYERS = (nn.Conv2d, nn.Conv3d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)


@contextmanager
def tracing(model: nn.Module, size: Sequence[int]) -> Iterator[dict[tuple[int, ...], Axes | None]]:
    """While the network runs inside: the grids of its features, by the shape of their positions.

    size: of the input, (T, H, W) or (H, W). Features of one shape are taken to lie alike, as they
    must to be added. None stands where layers say otherwise. Shapes that come about without a
    convolution or pooling layer, such as by a function, are not there.
    """
    known: dict[tuple[int, ...], Axes | None] = {tuple(size): ((1.0, 0.0),) * len(size)}

    def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            return
        before, after = tuple(inputs[0].shape[2:]), tuple(output.shape[2:])
        if before in known:
            found = _through(layer, before, after, known[before])
            known[after] = found if known.get(after, found) == found else None

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, LAYERS)]
    try:
        yield known
    finally:
        for handle in handles:
            handle.remove()


def _through(
    layer: nn.Module, before: tuple[int, ...], after: tuple[int, ...], axes: Axes | None
) -> Axes | None:
    """The grid behind a layer; None if it does not do what its attributes say, as TF's "same"."""
    if axes is None:
        return None
    kernel, stride, pad, dilation = (
        _each(getattr(layer, name, 1), len(before))
        for name in ("kernel_size", "stride", "padding", "dilation")
    )
    if pad is None or kernel is None or stride is None or dilation is None:
        return axes if before == after else None  # a padding in words
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    ceil = getattr(layer, "ceil_mode", False)
    for b, a, r, s, p in zip(before, after, reach, stride, pad, strict=True):
        if a != (b + 2 * p - r - 1 + (s - 1 if ceil else 0)) // s + 1:
            return None
    return tuple(
        (step * s, start + step * (r / 2 - p))
        for (step, start), r, s, p in zip(axes, reach, stride, pad, strict=True)
    )


def _each(value: Any, axes: int) -> tuple[int, ...] | None:
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) if isinstance(value, tuple) else None

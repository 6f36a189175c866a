"""From an architecture and tensors to a network, strictly and with one copy of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..head import is_head
from ..models import create_model
from .differ import compare


def build(architecture: Mapping[str, Any], path: Path) -> nn.Module:
    """The network on the meta device: its names and shapes, without memory for weights.

    Raises UserError for arguments that `create_model` refuses.
    """
    try:
        with torch.device("meta"):
            return create_model(**architecture)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} names a network that cannot be built: {error}") from None


def assemble(
    architecture: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    path: Path,
    *,
    new_head: bool = False,
    theirs: Callable[[str], str | None] = lambda name: None,
) -> nn.Module:
    """The network with these tensors as its weights, in the layout that its kernels want.

    Shapes may differ by axes of length one, which other codebases keep or drop. A count of batches
    that is missing becomes zero; everything else must be there, and nothing more. `new_head` makes
    a last layer of its own, N(0, 0.01^2). `theirs` gives the file's name of ours, for messages.

    Raises UserError with a table of what is missing, unexpected or of another shape.
    """
    model = build(architecture, path)
    wanted = model.state_dict()
    odd = [n for n, t in tensors.items() if n in wanted and _other_kind(t, wanted[n])]
    if odd:
        raise UserError(
            f"{path} has {tensors[odd[0]].dtype} in {odd[0]}, which are no weights as they are"
            f" ({len(odd)} tensors); save the network unquantised"
        )
    state = {name: _shaped(tensor, wanted.get(name)) for name, tensor in tensors.items()}
    for name, like in wanted.items():
        if new_head and is_head(name):
            state[name] = _fresh(name, like)
        elif name not in state and name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(like.shape, dtype=like.dtype)
    rows = compare(wanted, state, theirs)
    if rows:
        raise UserError(f"{path} does not fit the network {architecture['name']}:\n{rows}")
    model.load_state_dict(state, assign=True)
    if any(buffer.is_meta for buffer in model.buffers()):  # constants, which no file holds
        with torch.random.fork_rng(devices=[]):
            model = create_model(**architecture)
        model.load_state_dict(state, assign=True)
    return model


def _other_kind(tensor: Tensor, like: Tensor) -> bool:
    """Whether whole or complex numbers are where real ones belong."""
    return like.is_floating_point() and not tensor.is_floating_point()


def fitted(tensor: Tensor, like: Tensor) -> Tensor:
    """In the other's shape where only axes of length one differ, else as it is."""
    sizes = [[s for s in t.shape if s != 1] for t in (tensor, like)]
    return tensor.reshape(like.shape) if sizes[0] == sizes[1] else tensor


def _shaped(tensor: Tensor, like: Tensor | None) -> Tensor:
    """A copy in memory of its own: what is read from a file may lie in it, mapped."""
    if like is None:
        return tensor
    tensor = fitted(tensor, like)
    channels_last = tensor.dim() == 5 and tensor.shape == like.shape
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    copy = torch.empty(tensor.shape, dtype=like.dtype, memory_format=layout)
    return copy.copy_(tensor)


def _fresh(name: str, like: Tensor) -> Tensor:
    made = torch.zeros(like.shape, dtype=like.dtype)
    return nn.init.normal_(made, std=0.01) if name.endswith("weight") else made

"""A network from any checkpoint of its kind: our own, or that of another codebase."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..errors import UserError
from . import selftest
from .container import read
from .foreign import load_foreign
from .native import is_native, load_native


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    preset: str | None = None,
    num_classes: int | None = None,
    verify: bool = False,
) -> nn.Module:
    """A network from its checkpoint, or from a run folder holding model.safetensors.

    Family and architecture are recognised from the tensors: video-nonlocal-net, PySlowFast,
    PyTorchVideo, MMAction2, mit-han-lab's TSM, AlexHex7, and our own. No code in a file is
    executed. The network is in eval mode, ready to take normalised clips (N, 3, T, H, W); its
    `card` says which frames, size, colours, views and class names it was made for.

    Args:
        path: the file or folder.
        device: where the network goes.
        preset: a key of `PRESETS`, for files that fit several networks (Caffe2's 8x8 and 32x2 have
            equal names and shapes, for one). Without it such a file is refused and the
            candidates are named.
        num_classes: a new head of so many classes, untrained, if the file's has another number.
        verify: compare with the self-test that the file carries; see `convert`.

    Raises:
        UserError: no such file, no checkpoint of these families or a damaged one, several networks
            that it fits, tensors missing or too many (with a table), or a failed self-test.
    """
    if num_classes is not None and num_classes < 1:
        raise UserError(f"num_classes is at least 1; it came as {num_classes}")
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        kind = "a run folder without model.safetensors" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {kind}; give a run made by `nonlocalnet train` or a checkpoint")
    container = read(file)
    if is_native(container):
        if preset is not None:
            raise UserError(f"{file} says itself what network it is; leave out preset={preset!r}")
        model = load_native(container, file, num_classes)
    else:
        model = load_foreign(container, file, preset, num_classes)
    model.eval()
    if verify:
        record = container.notes.get("selftest")
        if record is None:
            raise UserError(f"{file} carries no self-test; `nonlocalnet convert` writes one")
        if num_classes not in (None, selftest.parse(record)["classes"]):
            raise UserError("a network with a new head cannot pass the self-test of the old one")
        selftest.verify(model, record)
    return model.to(device)

"""An .onnx file in ONNX Runtime, which is imported here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .errors import UserError

try:
    from onnxruntime import (
        InferenceSession,
        SessionOptions,
        __version__,
        get_available_providers,
    )
except ImportError as error:
    raise ImportError(
        'an .onnx file needs ONNX Runtime: pip install "nonlocalnet[export]"'
    ) from error

PROVIDERS = {"cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}
ERRORS = 3  # of its log; its warnings are about its own optimiser


def open_onnx(path: Path, device: torch.device) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """A function from the graph's inputs to its outputs, both on the CPU, on torch's threads.

    It computes on `device` where the installed ONNX Runtime can, else on the CPU.

    Raises `UserError` if the file cannot be opened.
    """
    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = ERRORS
    wanted = PROVIDERS.get(device.type), "CPUExecutionProvider"
    providers = [name for name in wanted if name in get_available_providers()]
    try:
        session = InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # its exceptions have no other base
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"onnxruntime {__version__} cannot open {path}: {first}") from error
    names = [port.name for port in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        feed = {name: x.detach().cpu().numpy() for name, x in zip(names, inputs, strict=True)}
        return [torch.from_numpy(y) for y in session.run(None, feed)]

    return run

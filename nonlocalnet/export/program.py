"""A network as one graph of torch's own operators, and that graph as ONNX."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..kernels.plain import plain_forms
from ..sidecar import BATCH, Port
from ..streaming import is_stream

Program = torch.export.ExportedProgram


@dataclass(frozen=True)
class Traced:
    """A graph with the names, types and shapes of what goes in and comes out."""

    program: Program
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


class Door(nn.Module):
    """A network whose first input and first output are float32, whatever it computes in.

    Flat: (clips) -> (logits), or (frame, *state) -> (logits, *state).
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        x = x.to(self.dtype)
        if not is_stream(self.model):
            return (self.model(x).float(),)
        logits, after = self.model(x, state)
        return (logits.float(), *after)


def trace(model: nn.Module, example: Tensor, *, half: bool = False, free: bool = False) -> Traced:
    """The graph of a network in eval mode for inputs of the example's shape.

    model: of clips (N, 3, T, H, W), or a `Streaming` of frames (N, 3, H, W).
    half: compute in float16. free: for any number of clips or streams; the example then has two,
        since torch itself tells one from many.

    Raises `UserError` with torch's reason where the network has no such graph.
    """
    dtype = torch.float16 if half else torch.float32
    model = copy.deepcopy(model).cpu().to(dtype).eval()
    state = model.start(example.to(dtype)) if is_stream(model) else ()  # type: ignore[operator]
    args = (example, *state)
    sizes = tuple({0: torch.export.Dim(BATCH)} for _ in args) if free else None
    shapes = (sizes[0], sizes[1:]) if sizes and state else sizes
    try:
        with torch.no_grad(), _quietly():
            program = torch.export.export(Door(model, dtype), args, dynamic_shapes=shapes)
            program = program.run_decompositions(plain_forms())
    except Exception as error:  # torch's exporter raises many kinds
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"torch {torch.__version__} cannot make a graph of this network: {reason}"
        ) from error
    names = tuple(model.names) if is_stream(model) else ()  # type: ignore[arg-type]
    with torch.no_grad():
        found = program.module()(*args)
    return Traced(
        program,
        _ports(["frame" if state else "clips", *names], args, free),
        _ports(["logits", *(f"next.{name}" for name in names)], found, free),
    )


def _ports(names: Sequence[str], tensors: Sequence[Tensor], free: bool) -> tuple[Port, ...]:
    return tuple(
        Port(
            name,
            str(x.dtype).removeprefix("torch."),
            (BATCH if free else x.shape[0], *x.shape[1:]),
        )
        for name, x in zip(names, tensors, strict=True)
    )


def write_pt2(traced: Traced, path: Path) -> None:
    """Write the graph in torch's own format; the name ends in .pt2."""
    program = traced.program
    program.example_inputs = None  # which would be in the file too
    for node in program.graph.nodes:  # as would where on this machine the network's code lies
        node.meta.pop("stack_trace", None)
    with _quietly():
        torch.export.save(program, path)


def write_onnx(traced: Traced, path: Path) -> int:
    """Write the graph as ONNX. Returns the version of its operators."""
    from .layout import simplify

    try:
        with _quietly():
            made: Any = torch.onnx.export(
                traced.program,
                (),
                dynamo=True,
                verbose=False,
                input_names=[port.name for port in traced.inputs],
                output_names=[port.name for port in traced.outputs],
            )
            simplify(made.model, traced.inputs, traced.outputs)
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise UserError(f"this network has an operation that ONNX lacks: {reason}") from error
    made.save(path)
    return int(made.model.opset_imports[""])


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter tells of its own inner workings, in print, logs and warnings."""
    log = logging.getLogger("onnxscript")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)

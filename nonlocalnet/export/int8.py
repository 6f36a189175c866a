"""An ONNX file in 8 bits: weights per channel, activations by the ranges seen on real clips."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..streaming import is_stream

try:
    from onnx import GraphProto, load
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
except ImportError as error:
    raise ImportError('int8 needs ONNX Runtime: pip install "nonlocalnet[export]"') from error

COMPUTED = ("Add", "Clip", "Conv", "Gemm", "MatMul", "MaxPool", "Relu")
# without these, what stands between two layers would go to float and back
MOVED = ("Concat", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
Feed = dict[str, np.ndarray]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """What the quantiser asks for the inputs of one run after another."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self.feeds = feeds

    def get_next(self) -> Feed | None:
        return next(self.feeds, None)


def quantize(
    source: Path, path: Path, exported: nn.Module, names: Sequence[str], batches: list[Tensor]
) -> Counter[str]:
    """Write the network of an .onnx file in int8, and count the operations that stay in float.

    exported: `source`, opened: it steps streams, whose states are calibrated too. names: of the
    graph's inputs. batches: normalised clips (N, 3, T, S, S) each.
    """
    reader = _Reader(_feeds(exported, names, batches))
    with tempfile.TemporaryDirectory() as folder, _silent():
        made = Path(folder) / "int8.onnx"
        quantize_static(
            source,
            made,
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*COMPUTED, *MOVED],
            nodes_to_exclude=_masked(load(source).graph),
            per_channel=True,
            # 7 bits of weights: sums of pairs overflow on processors without VNNI otherwise
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # products of two activations, softmax(theta phi) g, lose the most by 8 bits
            extra_options={"MatMulConstBOnly": True},
        )
        graph = load(made)
        path.write_bytes(graph.SerializeToString())
    return _in_float(graph.graph)


def _feeds(exported: nn.Module, names: Sequence[str], batches: list[Tensor]) -> Iterator[Feed]:
    for clips in batches:
        if not is_stream(exported):
            yield {names[0]: clips.numpy()}
            continue
        frames = clips.unbind(2)
        state = exported.start(frames[0])  # type: ignore[operator]
        for frame in frames:
            yield dict(zip(names, [x.numpy() for x in (frame, *state)], strict=True))
            with torch.inference_mode():
                _, state = exported(frame, state)


def _masked(graph: GraphProto) -> list[str]:
    """The sums that a softmax is taken of: -inf hides keys there, which no range holds."""
    read = {name for node in graph.node if node.op_type == "Softmax" for name in node.input}
    return [node.name for node in graph.node if read & set(node.output)]


def _in_float(graph: GraphProto) -> Counter[str]:
    """The nodes that compute and read no dequantised input, by kind."""
    integers = {out for n in graph.node if n.op_type == "DequantizeLinear" for out in n.output}
    computing = (*COMPUTED, "ReduceMean", "Softmax")
    return Counter(
        node.op_type
        for node in graph.node
        if node.op_type in computing and not any(name in integers for name in node.input)
    )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The quantiser advises a pre-processing that `layout` has done, through the root logger.

    It also finds ranges that nobody asks for, those of `_masked` among them, which end at -inf.
    """
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(invalid="ignore"):
            yield
    finally:
        logging.root.setLevel(level)

"""An ONNX graph with frames as they are: what stands between convolutions no longer moves memory.

In torch, (N, C, T, H, W) and frames (N T, C, H, W) are views of the same memory, and `layers` goes
from one to the other around every convolution for nothing. In ONNX each way is a transposition, and
keeps the runtime from joining a convolution with the norm, sum and ReLU behind it. Here everything
that treats a frame by itself is moved onto the frames, and norms into the convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..sidecar import Port

try:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
    from onnxscript import ir
    from onnxscript.optimizer import fold_constants
except ImportError as error:
    raise ImportError(
        'writing ONNX needs onnx and onnxscript: pip install "nonlocalnet[export]"'
    ) from error

LARGEST = 1 << 31  # bytes, which is what an ONNX file can hold
SWAP = [0, 2, 1, 3, 4]  # (N, C, T, H, W) <-> (N, T, C, H, W)
BY_ELEMENT = ("Add", "BatchNormalization", "Clip", "Relu")
BY_CHANNEL = ("Concat", "Slice")  # where they go along axis 1


def simplify(model: ir.Model, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    """Move the graph onto frames, fold its norms, name what goes in and comes out."""
    # weights too, which the exporter holds too large to compute with
    fold_constants(model, input_size_limit=LARGEST, output_size_limit=LARGEST)
    _Frames(model.graph).move()
    RemoveUnusedNodesPass()(model)
    _fold_norms(model.graph)
    RemoveUnusedNodesPass()(model)
    ClearMetadataAndDocStringPass()(model)  # where on this machine the network's code lies
    for values, ports in ((model.graph.inputs, inputs), (model.graph.outputs, outputs)):
        for value, port in zip(values, ports, strict=True):
            value.name = port.name
            value.shape = ir.Shape(port.shape)


class _Frames:
    """Which clips (N, C, T, H, W) of a graph are there as frames (N T, C, H, W) too."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.of: dict[ir.Value, ir.Value] = {}

    def move(self) -> None:
        """One walk over the nodes, in order; what becomes useless is left behind."""
        for node in tuple(self.graph):
            out = node.outputs[0]
            if (frames := _joined(node)) is not None:
                self.of[out] = frames
            elif (clips := _parted(node)) is not None:
                self._replace(out, self._frames(clips, node))
            elif self._by_frame(node):
                self._move(node)

    def _by_frame(self, node: ir.Node) -> bool:
        """Whether a node treats each frame by itself, and has frames among its inputs."""
        given = [value for value in node.inputs if value is not None]
        clips = [value for value in given if _rank(value) == 5]
        if not any(value in self.of for value in clips) or _rank(node.outputs[0]) != 5:
            return False
        if any(value.shape[2] != clips[0].shape[2] for value in clips):  # type: ignore[index]
            return False
        if any(_rank(value) not in (0, 1, 5) or value.is_initializer() for value in clips):
            return False
        return node.op_type in BY_ELEMENT or (node.op_type in BY_CHANNEL and _axis(node) == 1)

    def _move(self, node: ir.Node) -> None:
        """The same node on frames, and its result as clips for those that need them."""
        given = [
            self._frames(value, node) if value is not None and _rank(value) == 5 else value
            for value in node.inputs
        ]
        out = node.outputs[0]
        frames = self._add(node, node.op_type, given, dict(node.attributes))
        frames.type = out.type
        assert out.shape is not None
        (_, channels, t, *picture) = out.shape
        if t == 1:
            frames.shape = ir.Shape([out.shape[0], channels, *picture])
            clips = self._add(node, "Unsqueeze", [frames, self._ints(2)])
        else:
            frames.shape = ir.Shape([None, channels, *picture])
            parted = self._add(node, "Reshape", [frames, self._ints(-1, t, channels, *picture)])
            clips = self._add(node, "Transpose", [parted], {"perm": ir.AttrInt64s("perm", SWAP)})
        clips.shape, clips.type = out.shape, out.type
        self.of[clips] = frames
        self._replace(out, clips)

    def _frames(self, clips: ir.Value, before: ir.Node) -> ir.Value:
        """The frames of a clip, made in front of a node if they are not there."""
        if clips not in self.of:
            assert clips.shape is not None
            (n, channels, t, *picture) = clips.shape
            if t == 1:
                frames = self._add(before, "Squeeze", [clips, self._ints(2)])
                frames.shape = ir.Shape([n, channels, *picture])
            else:
                perm = {"perm": ir.AttrInt64s("perm", SWAP)}
                turned = self._add(before, "Transpose", [clips], perm)
                frames = self._add(before, "Reshape", [turned, self._ints(-1, channels, *picture)])
                frames.shape = ir.Shape([None, channels, *picture])
            frames.type = clips.type
            self.of[clips] = frames
        return self.of[clips]

    def _add(
        self,
        before: ir.Node,
        kind: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, ir.Attr] | None = None,
    ) -> ir.Value:
        node = ir.Node("", kind, inputs, attributes or {})
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def _ints(self, *numbers: int | ir.SymbolicDim) -> ir.Value:
        name = "sizes_" + "_".join(map(str, numbers))
        if name not in self.graph.initializers:
            return _initializer(self.graph, name, np.array(numbers, dtype=np.int64))
        return self.graph.initializers[name]

    def _replace(self, value: ir.Value, by: ir.Value) -> None:
        ir.convenience.replace_all_uses_with(value, by, replace_graph_outputs=True)
        if value in self.of and value is not by:
            self.of.setdefault(by, self.of[value])


def _fold_norms(graph: ir.Graph) -> None:
    """Make the batch norms behind convolutions part of their weights."""
    for norm in tuple(graph):
        if norm.op_type != "BatchNormalization":
            continue
        conv = norm.inputs[0].producer()  # type: ignore[union-attr]
        if conv is None or conv.op_type != "Conv" or len(conv.outputs[0].uses()) != 1:
            continue
        bias = conv.inputs[2] if len(conv.inputs) > 2 else None
        given = [None if v is None else _array(v) for v in (conv.inputs[1], bias, *norm.inputs[1:])]
        weight, bias_now, gain, shift, mean, var = given
        if weight is None or (bias is not None and bias_now is None):
            continue
        assert gain is not None
        assert shift is not None
        assert mean is not None
        assert var is not None
        gain = gain / np.sqrt(var + norm.attributes["epsilon"].as_float())
        shift = shift + gain * ((0 if bias_now is None else bias_now) - mean)
        weight = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
        name, kind = norm.outputs[0].name, conv.inputs[1].dtype.numpy()  # type: ignore[union-attr]
        made = [
            _initializer(graph, f"{name}.{part}", array.astype(kind))
            for part, array in (("weight", weight), ("bias", shift))
        ]
        folded = ir.Node("", "Conv", [conv.inputs[0], *made], dict(conv.attributes))
        graph.insert_before(norm, folded)
        out = folded.outputs[0]
        out.shape, out.type = norm.outputs[0].shape, norm.outputs[0].type
        ir.convenience.replace_all_uses_with(norm.outputs[0], out, replace_graph_outputs=True)


def _array(value: ir.Value) -> np.ndarray | None:
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy().astype(np.float64)


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array)
    kind = ir.TensorType(tensor.dtype)
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=kind)
    graph.register_initializer(value)
    return value


def _rank(value: ir.Value) -> int:
    return -1 if value.shape is None else len(value.shape)


def _joined(node: ir.Node) -> ir.Value | None:
    """The frames of which a node's result is the clip: it ends `layers.from_frames`."""
    if node.op_type == "Unsqueeze" and _rank(node.outputs[0]) == 5 and _constant(node, 1) == [2]:
        return node.inputs[0]
    if node.op_type != "Transpose" or list(node.attributes["perm"].as_ints()) != SWAP:
        return None
    before = node.inputs[0].producer()  # type: ignore[union-attr]
    if before is None or before.op_type != "Reshape":
        return None
    frames, parted = before.inputs[0], before.outputs[0]
    assert frames is not None
    same = _rank(frames) == 4 and list(frames.shape)[1:] == list(parted.shape)[2:]  # type: ignore[arg-type]
    return frames if same else None


def _parted(node: ir.Node) -> ir.Value | None:
    """The clip of which a node's result is the frames: it ends `layers.to_frames`."""
    if node.op_type != "Reshape" or _rank(node.outputs[0]) != 4:
        return None
    before = node.inputs[0].producer()  # type: ignore[union-attr]
    if before is None or before.op_type != "Transpose":
        return None
    turned, frames = before.outputs[0], node.outputs[0]
    if list(before.attributes["perm"].as_ints()) != SWAP:
        return None
    same = list(turned.shape)[2:] == list(frames.shape)[1:]  # type: ignore[arg-type]
    return before.inputs[0] if same else None


def _constant(node: ir.Node, index: int) -> list[int] | None:
    value = node.inputs[index]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy().ravel().tolist()


def _axis(node: ir.Node) -> int:
    """The only axis that a Concat or Slice goes along; -1 if it is not known."""
    if node.op_type == "Concat":
        return node.attributes["axis"].as_int()
    axes = _constant(node, 3) if len(node.inputs) > 3 else None
    return axes[0] if axes is not None and len(axes) == 1 else -1

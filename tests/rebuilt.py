"""Checkpoints of other codebases, rebuilt from small files: tests/golden/README.md says how.

The tensors are random numbers, seeded by their names; the logits are those that the other
codebase's own network gave for them, run once with everything stored here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from py2pickle import dumps
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
Array = NDArray[Any]


@dataclass(frozen=True)
class Peer:
    """One network of another codebase: its tensors, what it was given and what it gave."""

    name: str
    meta: dict[str, Any]
    arrays: dict[str, Array]

    @property
    def logits(self) -> Tensor:
        return torch.from_numpy(self.arrays["logits"])

    def tensors(self) -> dict[str, Tensor]:
        """In the checkpoint's order. Raises ValueError if they are not those of the logits."""
        made = {row[0]: torch.from_numpy(self._array(*row)) for row in self.meta["manifest"]}
        digest = hashlib.sha256()
        for name, tensor in made.items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        if digest.hexdigest() != self.meta["sha256"]:
            self._check_sums(made)
        return made

    def _array(self, name: str, shape: list[int], dtype: str, how: str, *told: float) -> Array:
        if how == "const":
            array = np.full(shape, told[0])
        elif how == "stored":
            first = int(told[0])
            array = self.arrays["stats"][first : first + int(np.prod(shape, dtype=np.int64))]
        else:
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
            bits = np.random.Generator(np.random.PCG64(seed))
            array = bits.standard_normal(tuple(shape), dtype=np.float32)
            array *= np.float32(told[0])
            array += np.float32(told[1])
        return np.ascontiguousarray(array).astype(dtype, copy=False).reshape(shape)

    def _check_sums(self, made: dict[str, Tensor]) -> None:
        """Another NumPy may round a last digit differently, and no more than that."""
        for tensor, want in zip(made.values(), self.arrays["sums"], strict=True):
            total, size = (float(t.double().sum()) for t in (tensor, tensor.abs()))
            if not abs(total - want) <= 1e-5 * max(size, 1e-30):
                raise ValueError(f"{self.name}: this NumPy does not make the tensors again")

    def clip(self, which: str = "input") -> Tensor:
        """The input (N, C, T, H, W), normalised; see `clip`."""
        return clip(self.meta[which])

    def write(self, path: Path, container: str | None = None) -> None:
        """The checkpoint as its codebase writes it."""
        kind, tensors = container or self.meta["container"], self.tensors()
        if kind == "caffe2_pkl":
            names = self.meta.get("caffe2_names")  # PySlowFast publishes these names too
            if names:
                tensors = {names[n]: t for n, t in tensors.items() if n in names}
            blobs: dict[str, Any] = {name: t.numpy() for name, t in tensors.items()}
            for name, tensor in tensors.items():
                if not name.endswith(("_rm", "_riv")):
                    shape = tuple(tensor.shape) if tensor.numel() < 100_000 else (1,)
                    blobs[f"{name}_momentum"] = np.full(shape, 0.01, np.float32)
            blobs |= {"lr": np.array(1e-4, np.float32), "model_iter": 400_001}
            path.write_bytes(dumps({"blobs": blobs}))
            return
        cfg = self.meta.get("cfg", "")
        wrapped: dict[str, Any] = {
            "pyslowfast_pyth": {"epoch": 195, "model_state": tensors, "cfg": cfg},
            "pytorchvideo_pyth": {"model_state": tensors},
            "mmaction2_pth": {"meta": {"epoch": 100, "cfg": cfg}, "state_dict": tensors},
            "tsm_pth": {"epoch": 50, "state_dict": tensors, "best_prec1": torch.tensor(71.2)},
            "plain": tensors,
        }
        torch.save(wrapped[kind], path)


def peer(name: str) -> Peer:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    return Peer(name, json.loads(arrays.pop("meta").tobytes()), arrays)


def clip(spec: dict[str, Any]) -> Tensor:
    """The input that a specification describes: noise, and where it is a "mix", noise by cells,

    by frame and by clip, so that clips, frames and places all differ.
    """
    generator = np.random.Generator(np.random.PCG64(spec["seed"]))

    def draw(*shape: int) -> Array:
        return generator.standard_normal(shape, dtype=np.float32)

    x = draw(*spec["shape"])
    if spec["kind"] == "mix":
        n, c, t, h, w = spec["shape"]
        cell = spec["cell"]
        rows, columns = -(-h // cell), -(-w // cell)
        x *= np.float32(0.5)
        cells = draw(n, c, t, rows, columns).repeat(cell, 3).repeat(cell, 4)[..., :h, :w]
        x += cells * np.float32(0.6)
        x += draw(n, c, t, 1, 1) * np.float32(0.6)
        x += draw(n, c, 1, 1, 1) * np.float32(0.6)
    return torch.from_numpy(x * np.float32(spec.get("times", 1)))


def variants(blocks: Peer) -> Iterator[tuple[str, dict[str, Any], dict[str, Tensor], Tensor]]:
    """Of a file of blocks, each one's name, options, tensors and input."""
    tensors = blocks.tensors()
    for name, told in blocks.meta["variants"].items():
        own = {k.partition("/")[2]: t for k, t in tensors.items() if k.startswith(f"{name}/")}
        yield name, told, own, clip(told["input"])

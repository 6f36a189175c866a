"""Any checkpoint file -> named tensors, told by its bytes and never by its name. Nothing is run.

safetensors                  as it is
torch.save, zip or legacy    torch's weights-only reader; `torchfile.py`
a pickle of NumPy arrays     Caffe2's files, and Python 2's; `pickles.py`
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError
from .arrays import Array, RefusedError, Span, as_text
from .pickles import Pickle
from .torchfile import LEGACY, read_torch

Kind = Literal["safetensors", "torch", "caffe2"]

WRAPPERS = ("model_state", "state_dict", "model")  # PySlowFast, MMAction2 and TSM, others
BESIDES = ("optimizer", "optimizer_state", "message_hub", "param_schedulers", "scaler_state")
DEPTH = 2  # meta.dataset_meta.classes

PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"Rar!": "rar",
}
CAFFE2_NUMBERS = ("lr", "model_iter")


@dataclass(frozen=True)
class Container:
    """What a checkpoint file holds.

    kind: how it was written.
    tensors: by the file's own names, in the file's order. Those of a zip or safetensors file may
        lie in the file, mapped: copy them into a network, do not keep them.
    notes: what else it says, as text: `cfg` (PySlowFast), `meta.cfg` (MMAction2), `arch` (TSM),
        `epoch`, `lr`, the metadata of safetensors; lists of words have one per line.
    """

    kind: Kind
    tensors: dict[str, Tensor]
    notes: dict[str, str] = field(default_factory=dict)


def read(path: str | Path) -> Container:
    """The tensors of a checkpoint of any kind; no code in it is ever run.

    Raises:
        UserError: no such file, no checkpoint, damaged, without tensors, or one that asks to run
            something.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the checkpoint file in it")
        if not path.exists():
            raise UserError(f"{path}: no such file; give a checkpoint")
        if not path.is_file():
            raise UserError(f"{path} is no ordinary file; give a checkpoint")
        with path.open("rb") as file:
            kind = _kind(path, file.read(512))
            if kind == "safetensors":
                tensors, notes = _safetensors(path)
            elif kind == "torch":
                tensors, notes = _torch(path, read_torch(path, file))
            else:
                tensors, notes = _caffe2(path, file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if not tensors:
        raise UserError(f"{path} holds no tensors; give a file with a network's weights")
    return Container(kind, tensors, notes)


def _kind(path: Path, head: bytes) -> Kind:
    """What the first bytes show, or a `UserError` that says what they show instead."""
    if not head:
        raise UserError(f"{path} is empty; fetch it again")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{path} is a Git LFS pointer, not the file it stands for; run `git lfs pull` or fetch"
            " the file itself"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise UserError(
            f"{path} is a web page, not a checkpoint: the address led to a page about it, a login"
            " or an error; fetch the file itself"
        )
    packed = next((name for start, name in PACKED.items() if head.startswith(start)), "")
    if packed or head[257:262] == b"ustar":
        raise UserError(
            f"{path} is an archive ({packed or 'tar'}); unpack it and give the checkpoint inside"
        )
    if head.startswith((b"PK\x03\x04", LEGACY)):
        return "torch"
    if head.startswith((b"PK", LEGACY[:6])):
        raise UserError(f"{path} starts as a file of torch.save but is cut off; fetch it again")
    # eight bytes of length, then JSON; as text they would be a length beyond any file's
    if head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 1 << 40:
        return "safetensors"
    if (head[0] == 0x80 and head[1:2] <= b"\x05") or head[:1] in b"(}]c":
        return "caffe2"
    raise UserError(
        f"{path} is no checkpoint that can be read here (a safetensors file, a file of torch.save"
        f" or a pickle of arrays): it starts with {head[:8]!r}"
    )


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.offset_keys()}
            return tensors, dict(opened.metadata() or {})
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise UserError(
            f"{path} is a damaged safetensors file, or one cut off ({error}); fetch it again"
        ) from None


def _torch(path: Path, read: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    if isinstance(read, Tensor):
        raise UserError(f"{path} holds one tensor without a name; give a network's state dict")
    if not isinstance(read, dict):
        raise UserError(f"{path} holds a {type(read).__name__}; give a network's state dict")
    wrapper = next((w for w in WRAPPERS if _any_tensor(read.get(w))), None)
    state = read if wrapper is None else read[wrapper]
    if wrapper is None and not _any_tensor(read):
        keys = ", ".join(str(k)[:40] for k in list(dict.keys(read))[:5])
        raise UserError(
            f"{path} holds no tensors by name ({keys or 'nothing'}), neither at its top nor under"
            f" {', '.join(WRAPPERS)}; give a file with a network's weights"
        )
    notes: dict[str, str] = {}
    tensors = {}
    # the class's own methods: a file may give an OrderedDict attributes of these names
    for name, value in _items(state):
        if isinstance(value, Tensor):
            tensors[_checked_name(path, name)] = _plain(path, name, value)
    size = path.stat().st_size
    stored = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()
    }
    # torch trusts a file that says so: memory that nothing fills, or one number seen as very many
    if sum(stored.values()) > size or any(t.nbytes > size for t in tensors.values()):
        raise UserError(f"{path} is damaged: it claims more numbers than it holds; fetch it again")
    for name, value in _items(read):
        if name not in (wrapper, *BESIDES) and name not in tensors and isinstance(name, str):
            _note(notes, name, value, DEPTH)
    return tensors, notes


def _items(of: dict[Any, Any]) -> list[tuple[Any, Any]]:
    return list(OrderedDict.items(of) if isinstance(of, OrderedDict) else dict.items(of))


def _any_tensor(value: object) -> bool:
    return isinstance(value, dict) and any(isinstance(v, Tensor) for _, v in _items(value))


def _checked_name(path: Path, name: object) -> str:
    if not isinstance(name, str):
        raise UserError(f"{path} names a tensor {str(name)[:40]}, which is no text; is it weights?")
    return name


def _plain(path: Path, name: object, tensor: Tensor) -> Tensor:
    """The tensor without gradient, class or attributes of its own."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise UserError(
            f"{path}: {name} is a {'quantized' if tensor.is_quantized else 'sparse or empty'}"
            " tensor; save the network's weights as plain ones"
        )
    return torch.Tensor.detach(tensor)


def _note(notes: dict[str, str], name: str, value: object, depth: int) -> None:
    """Texts and numbers, in dicts at most `depth` deep, under dotted names."""
    if isinstance(value, Tensor):
        if value.numel() == 1 and value.layout == torch.strided and not value.is_meta:
            notes[name] = str(torch.Tensor.item(value))
    elif isinstance(value, str | int | float):
        notes[name] = str(value)
    elif isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        notes[name] = "\n".join(value)
    elif isinstance(value, dict) and depth:
        for key, inner in _items(value):
            if isinstance(key, str):
                _note(notes, f"{name}.{key}", inner, depth - 1)


def _caffe2(path: Path, file: BinaryIO) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors: dict[str, Tensor] = {}
    notes: dict[str, str] = {}
    try:
        pickled = Pickle(file)
        value = pickled.value()
        if not isinstance(value, dict):
            raise UserError(f"{path} is a pickle of no names and arrays; give a network's weights")
        blobs = value.get("blobs", value)
        if not isinstance(blobs, dict):
            raise UserError(f"{path}: its blobs have no names; give a network's weights")
        for name, array in blobs.items():
            if isinstance(array, Array) and not str(name).endswith("_momentum"):
                tensor = pickled.tensor(array)
                if tensor.dim() == 0 or name in CAFFE2_NUMBERS:
                    _note(notes, as_text(name), tensor, 0)
                else:
                    tensors[as_text(name)] = tensor
        for source in (value, blobs):
            for name, said in source.items():
                told = pickled.text(said) if isinstance(said, Span) else said
                _note(notes, str(name), as_text(told) if isinstance(told, bytes) else told, 0)
    except RefusedError as error:
        raise UserError(f"{path} is not only weights: {error}") from None
    except (ValueError, TypeError, LookupError, EOFError, ArithmeticError, struct.error) as error:
        raise UserError(
            f"{path} looks like a pickle of arrays but is cut off, damaged or none ({error});"
            " fetch it again"
        ) from None
    except MemoryError:
        raise UserError(f"{path}: there is not enough memory to read it") from None
    return tensors, notes

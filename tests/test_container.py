"""Checkpoint files of every kind, sound, wrong, damaged and malicious."""

from __future__ import annotations

import argparse
import collections
import copyreg
import io
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import py2pickle
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as safetensors
from torch import Tensor

from nonlocalnet.errors import UserError
from nonlocalnet.weights import torchfile
from nonlocalnet.weights.container import Container, read

STATE = OrderedDict(
    {
        "module.z.weight": torch.arange(24.0).reshape(2, 3, 4),
        "module.a.half": torch.tensor([0.5, -2.0], dtype=torch.float16),
        "module.a.double": torch.tensor([[1e-300]], dtype=torch.float64),
        "module.bn.num_batches_tracked": torch.tensor(7),
    }
)
BLOBS = {
    "res_w": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "conv1_w": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "b_big": np.arange(-3, 3, dtype=">f4"),
    "long": np.arange(300, dtype=np.float64),
    "half": np.float16([1, 2, 3]),
    "bytes": np.uint8([[0, 255]]),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
}


def torch_bytes(value: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def same(found: dict[str, Tensor], wanted: dict[str, Any]) -> None:
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        if isinstance(tensor, np.ndarray):
            tensor = torch.from_numpy(tensor.astype(tensor.dtype.newbyteorder("=")))
        assert type(found[name]) is Tensor
        assert not found[name].requires_grad
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def put(folder: Path, data: bytes, name: str = "file.any") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# sound files


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapper", ["model_state", "state_dict", "model", None])
def test_torch(tmp_path: Path, legacy: bool, wrapper: str | None) -> None:
    value = STATE if wrapper is None else {"epoch": 5, wrapper: STATE, "optimizer": {"lr": 1.0}}
    found = read(put(tmp_path, torch_bytes(value, legacy)))
    assert found.kind == "torch"
    same(found.tensors, STATE)
    assert found.notes == ({} if wrapper is None else {"epoch": "5"})


@pytest.mark.parametrize("legacy", [False, True])
def test_notes(tmp_path: Path, legacy: bool) -> None:
    value = {
        "epoch": 195,
        "arch": "resnet50",
        "best_prec1": torch.tensor(71.5),
        "cfg": "MODEL:\n  ARCH: i3d\n",
        "meta": {"cfg": "model = dict()", "dataset_meta": {"classes": ("abseiling", "zumba")}},
        "state_dict": STATE,
        "optimizer": {"state": {0: {"momentum": torch.ones(3)}}, "name": "SGD"},
        7: "no name",
    }
    assert read(put(tmp_path, torch_bytes(value, legacy))).notes == {
        "epoch": "195",
        "arch": "resnet50",
        "best_prec1": "71.5",
        "cfg": "MODEL:\n  ARCH: i3d\n",
        "meta.cfg": "model = dict()",
        "meta.dataset_meta.classes": "abseiling\nzumba",
    }


def test_parameters_come_as_plain_tensors(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.detach_note = "kept by torch.save"  # type: ignore[attr-defined]
    found = read(put(tmp_path, torch_bytes({"w": parameter, "b": torch.zeros(1)})))
    same(found.tensors, {"w": torch.ones(2), "b": torch.zeros(1)})
    assert not hasattr(found.tensors["w"], "detach_note")


def test_a_state_dict_with_attributes_in_place_of_methods(tmp_path: Path) -> None:
    class Named:
        def __reduce__(self) -> tuple[Any, ...]:
            attributes = {"items": "no method", "keys": "no method"}
            return OrderedDict, (), attributes, None, iter(STATE.items())

    path = put(tmp_path, torch_bytes({"state_dict": Named()}))
    assert torch.load(path, weights_only=True)["state_dict"].items == "no method"
    same(read(path).tensors, STATE)


@pytest.mark.parametrize("protocol", [0, 1, 2])
@pytest.mark.parametrize("flat", [False, True])
def test_python_2(tmp_path: Path, protocol: int, flat: bool) -> None:
    blobs = {
        **BLOBS,
        "res_w_momentum": np.ones(4, np.float32),
        "lr": np.float32(0.5),
        "model_iter": 400001,
        "scale": np.array(2.0),
    }
    value = blobs if flat else {"blobs": blobs, "cfg": "N: 1\n" * 99}
    found = read(put(tmp_path, py2pickle.dumps(value, protocol)))
    assert found.kind == "caffe2"
    same(found.tensors, BLOBS)
    told = {"lr": "0.5", "model_iter": "400001", "scale": "2.0"}
    assert found.notes == (told if flat else {**told, "cfg": "N: 1\n" * 99})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_python_3_and_todays_numpy(tmp_path: Path, protocol: int) -> None:
    value = {"blobs": OrderedDict(BLOBS), "lr": np.float64(0.25)}
    found = read(put(tmp_path, pickle.dumps(value, protocol)))
    same(found.tensors, BLOBS)
    assert found.notes == {"lr": "0.25"}


def test_the_python_2_writer_writes_pickles() -> None:
    for protocol in range(3):
        back = pickle.loads(py2pickle.dumps({"a": BLOBS}, protocol), encoding="latin1")
        for name, array in BLOBS.items():
            assert back["a"][name].dtype == array.dtype.newbyteorder("=")
            assert back["a"][name].flags.f_contiguous == array.flags.f_contiguous
            assert np.array_equal(back["a"][name], array)


def test_shared_arrays_are_read_once(tmp_path: Path) -> None:
    array = np.ones(1000, np.float32)
    found = read(put(tmp_path, pickle.dumps({"a": array, "b": array}, 2))).tensors
    assert found["a"].data_ptr() == found["b"].data_ptr()


def test_momenta_are_never_read(tmp_path: Path) -> None:
    blobs = {"w": np.ones(1 << 16, np.float32), "w_momentum": np.ones(1 << 21, np.float32)}
    path = put(tmp_path, py2pickle.dumps({"blobs": blobs}))
    tracemalloc.start()
    try:
        same(read(path).tensors, {"w": blobs["w"]})
        assert tracemalloc.get_traced_memory()[1] < 3 * blobs["w"].nbytes
    finally:
        tracemalloc.stop()


def test_safetensors(tmp_path: Path) -> None:
    data = safetensors(dict(STATE), {"card": "{}"})
    found = read(put(tmp_path, data))
    assert found.kind == "safetensors"
    assert found.notes == {"card": "{}"}
    same({name: found.tensors[name] for name in STATE}, STATE)
    assert len(found.tensors) == len(STATE)


SOUND = {
    "zip": torch_bytes({"state_dict": STATE, "epoch": 3}),
    "legacy": torch_bytes({"state_dict": STATE, "epoch": 3}, legacy=True),
    "python2": py2pickle.dumps({"blobs": BLOBS}),
    "python3": pickle.dumps({"blobs": BLOBS}, 4),
    "safetensors": safetensors(dict(STATE), {"a": "b"}),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pkl", ".pth", ".pth.tar", ".tar.gz", ""])
@pytest.mark.parametrize("kind", list(SOUND))
def test_the_name_says_nothing(tmp_path: Path, kind: str, suffix: str) -> None:
    found = read(put(tmp_path, SOUND[kind], f"file{suffix}"))
    expected = {"zip": "torch", "legacy": "torch", "safetensors": "safetensors"}
    assert found.kind == expected.get(kind, "caffe2")
    assert read(str(tmp_path / f"file{suffix}")).tensors.keys() == found.tensors.keys()


def repacked(data: bytes, change: dict[str, bytes] | None = None, deflate: bool = False) -> bytes:
    """The same zip file as another program packs it, with parts replaced by the ends of names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            part = old.read(name)
            for end, replacement in (change or {}).items():
                if name.endswith(end):
                    part = replacement
            new.writestr(name, part, zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED)
    return buffer.getvalue()


def test_a_zip_file_packed_again(tmp_path: Path) -> None:
    """Its tensors lie at odd addresses, where they cannot be used in place."""
    path = put(tmp_path, repacked(SOUND["zip"]))
    found = read(path).tensors
    same(found, STATE)
    assert all(t.data_ptr() % t.element_size() == 0 for t in found.values())


def test_big_endian_torch_file(tmp_path: Path) -> None:
    value = torch.arange(4, dtype=torch.int32)
    data = torch_bytes({"w": value})
    swapped = value.numpy().astype(">i4").tobytes()
    found = read(put(tmp_path, repacked(data, {"byteorder": b"big", "data/0": swapped})))
    same(found.tensors, {"w": value})


def test_a_file_replaced_later_changes_nothing(tmp_path: Path) -> None:
    path = put(tmp_path, SOUND["zip"])
    found = read(path)
    put(tmp_path, b"\0" * len(SOUND["zip"]), "other").replace(path)
    same(found.tensors, STATE)


# training frameworks' own classes, none of which is there when the file is read


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A checkpoint's other contents, whose classes' modules exist only while it is written."""

    def module(name: str, **names: Any) -> None:
        package, dot, _ = name.rpartition(".")
        if dot and package not in sys.modules:
            module(package)
        made = types.ModuleType(name)
        for key, value in names.items():
            value.__module__ = name
            setattr(made, key, value)
        monkeypatch.setitem(sys.modules, name, made)

    class HistoryBuffer:
        def __init__(self) -> None:
            self._log_history = np.array([0.5, 0.25])
            self.methods = {"mean": HistoryBuffer.mean}

        def mean(self) -> float:
            return 0.0

    class ConfigDict(dict[str, Any]):
        pass

    class CfgNode(dict[str, Any]):
        pass

    for made in (HistoryBuffer, ConfigDict, CfgNode):
        made.__qualname__ = made.__name__
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    module("mmengine.logging.history_buffer", HistoryBuffer=HistoryBuffer)
    module("mmengine.config.config", ConfigDict=ConfigDict)
    module("yacs.config", CfgNode=CfgNode)
    HistoryBuffer.mean.__module__ = "mmengine.logging.history_buffer"
    node = CfgNode(MODEL=CfgNode(ARCH="i3d"))
    node.__dict__["__immutable__"] = True
    return {
        "message_hub": {"log_scalars": OrderedDict({"train/loss": HistoryBuffer()})},
        "meta": {"cfg": "model = 1", "seed": 3, "parts": ConfigDict(a="b"), "at": np.float64(1.5)},
        "cfg": node,
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("x")),
        "lists": collections.defaultdict(list, {"a": [1]}),
        "queue": collections.deque([1, 2], 3),
        "kind": HistoryBuffer,
        "scores": np.ones((2, 2), np.float32),
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_classes_of_frameworks(
    tmp_path: Path, framework: dict[str, Any], monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    data = torch_bytes({**framework, "state_dict": STATE}, legacy)
    path = put(tmp_path, data)
    for name in [m for m in sys.modules if m.startswith(("mmengine", "yacs"))]:
        monkeypatch.delitem(sys.modules, name)
    before = set(torch.serialization.get_safe_globals())  # kept without an order
    found = read(path)
    same(found.tensors, STATE)
    notes = {
        "meta.cfg": "model = 1",
        "meta.seed": "3",
        "meta.parts.a": "b",
        "cfg.MODEL.ARCH": "i3d",
    }
    assert found.notes == notes
    assert not any(name.startswith(("mmengine", "yacs")) for name in sys.modules)
    assert set(torch.serialization.get_safe_globals()) == before


def test_frameworks_in_many_threads(tmp_path: Path, framework: dict[str, Any]) -> None:
    path = put(tmp_path, torch_bytes({**framework, "state_dict": STATE}))
    found: list[Container] = []
    threads = [
        threading.Thread(target=lambda: found.extend(read(path) for _ in range(10)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40


def test_stand_ins_do_nothing() -> None:
    asked = b"cmmengine.a\nb\ncyacs.config\nCfgNode\nccollections\ndeque\nc__builtin__\ngetattr\n"
    made = {name: kind for kind, name in torchfile._stand_ins(asked + b"cos\nsystem\n")}
    assert set(made) == {
        "mmengine.a.b",
        "yacs.config.CfgNode",
        "collections.deque",
        "builtins.getattr",
    }
    for name in ("mmengine.a.b", "builtins.getattr"):
        thing = made[name](os, "system")
        assert not callable(thing)
        thing.__setstate__({"a": 1})
        assert not hasattr(thing, "__dict__")
        assert not hasattr(thing, "a")
    assert type(made["yacs.config.CfgNode"](os)) is OrderedDict
    assert made["collections.deque"]([1]) == []


# files that are no checkpoints


def archive_bytes(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("a.pkl"), io.BytesIO())
    return buffer.getvalue()


def zip_bytes(**parts: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


def script_bytes() -> bytes:
    return zip_bytes(
        **{"m__data.pkl": b"\x80\x02}.", "m__constants.pkl": b"\x80\x02).", "m__version": b"3\n"}
    )


def torch_bytes_4() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer, pickle_protocol=4)
    return buffer.getvalue()


OBJECTS = np.array([{"a": 1}, None], dtype=object)
RECORDS = np.zeros(2, [("a", "<f4"), ("b", "<i4")])
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 110000000\n"

WRONG: list[tuple[str, bytes, str]] = [
    ("empty", b"", "is empty"),
    ("html", b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
    ("html without doctype", b"<HTML>login</HTML>", "is a web page"),
    ("xml", b'<?xml version="1.0"?><Error>AccessDenied</Error>', "is a web page"),
    ("git lfs", LFS, "Git LFS pointer.*git lfs pull"),
    ("tar.gz", archive_bytes("w:gz"), r"archive \(gzip\); unpack it"),
    ("tar", archive_bytes("w"), r"archive \(tar\); unpack it"),
    ("bzip2", archive_bytes("w:bz2"), r"archive \(bzip2\); unpack it"),
    ("torchscript", script_bytes(), "TorchScript archive"),
    (
        "other zip",
        zip_bytes(readme=b"a", model__weights=b"b"),
        "not one that torch.save wrote.*unpack",
    ),
    ("npz", zip_bytes(**{"a.npy": b"\x93NUMPY"}), "not one that torch.save wrote"),
    ("packed again", repacked(SOUND["zip"], deflate=True), "with compression"),
    ("text", b"epoch,loss\n1,0.5\n", "no checkpoint that can be read"),
    ("random", bytes(np.random.default_rng(0).bytes(4096)), "no checkpoint that can be read"),
    ("random in pickle's clothes", b"\x80\x02" + np.random.default_rng(1).bytes(999), "damaged"),
    ("a list", py2pickle.dumps([1, 2]), "a pickle of no names and arrays"),
    ("blobs of numbers", py2pickle.dumps({"blobs": 3}), "its blobs have no names"),
    ("no arrays", py2pickle.dumps({"lr": 1.0}), "holds no tensors"),
    ("objects", pickle.dumps({"a": OBJECTS}, 2), "an array of Python objects"),
    ("records", pickle.dumps({"a": RECORDS}, 2), "an array of type 'V8'"),
    ("strings", pickle.dumps({"a": np.array(["x"])}, 2), "an array of type 'U1'"),
    ("names of numbers", py2pickle.dumps({3: np.ones(2)}), "int where a name belongs"),
    ("torch tensor", torch_bytes(torch.ones(3)), "one tensor without a name"),
    ("torch list", torch_bytes([torch.ones(3)]), "holds a list"),
    (
        "torch nothing",
        torch_bytes({"epoch": 3, "net": {"a": 1}}),
        r"no tensors by name \(epoch, net\)",
    ),
    ("torch empty", torch_bytes({}), r"no tensors by name \(nothing\)"),
    ("torch number as name", torch_bytes({"state_dict": {3: torch.ones(2)}}), "names a tensor 3"),
    ("sparse", torch_bytes({"w": torch.eye(3).to_sparse()}), "w is a sparse or empty tensor"),
    ("meta", torch_bytes({"w": torch.ones(3, device="meta")}), "w is a sparse or empty tensor"),
    ("pickle's newer protocol", torch_bytes_4(), "pickle protocol"),
    ("safetensors without tensors", safetensors({}), "holds no tensors"),
    ("safetensors header", struct.pack("<Q", 8) + b'{"a":1}}', "damaged safetensors"),
]


@pytest.mark.parametrize(("data", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_no_checkpoint(tmp_path: Path, data: bytes, message: str) -> None:
    path = put(tmp_path, data)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    said = str(caught.value)
    assert str(path) in said
    assert "\n" not in said


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; give a checkpoint"):
        read(tmp_path / "nothing.pth")
    with pytest.raises(UserError, match="is a folder; give the checkpoint file in it"):
        read(tmp_path)
    with pytest.raises(UserError, match="cannot read .*: File name too long"):
        read(tmp_path / ("a" * 300))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no ordinary file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("kind", list(SOUND))
def test_cut_off(tmp_path: Path, kind: str, part: float) -> None:
    data = SOUND[kind]
    path = put(tmp_path, data[: max(9, int(len(data) * part))])
    with pytest.raises(UserError, match=r"cut off|damaged"):
        read(path)


def test_a_wrong_byte_in_a_zip_file(tmp_path: Path) -> None:
    """The weights-only reader itself does not look at the checksums."""
    data = bytearray(SOUND["zip"])
    at = bytes(data).index(STATE["module.z.weight"].numpy().tobytes())
    data[at + 6] ^= 1
    with pytest.raises(UserError, match="the checksum of .* does not hold; fetch it again"):
        read(put(tmp_path, bytes(data)))


def test_a_small_file_cannot_claim_much_memory(tmp_path: Path) -> None:
    """Fifty arrays share one string of numbers, which a reader would copy fifty times."""
    numbers = np.ones(500)
    string = b"T" + struct.pack("<i", numbers.nbytes) + numbers.tobytes()
    writer = py2pickle._Binary()
    first = writer.array(numbers)
    shared = b"h" + first.partition(string)[2][1:2]
    rest = [writer.array(numbers).replace(string, shared) for _ in range(49)]
    named = [writer.string(b"%d" % i) + array for i, array in enumerate([first, *rest])]
    data = b"\x80\x02}(" + b"".join(named) + b"u."
    assert len(pickle.loads(data, encoding="latin1")) == 50
    with pytest.raises(UserError, match="arrays that overlap"):
        read(put(tmp_path, data))


def test_a_torch_file_cannot_claim_much_memory(tmp_path: Path) -> None:
    wide = torch_bytes({"w": torch.zeros(1).expand(1 << 40)})
    legacy = torch_bytes({"w": torch.zeros(300)}, legacy=True)
    legacy = legacy[: legacy.rindex(b"\x80\x02]q")] + b"\x80\x02]."  # no storage has contents
    unfilled = legacy.replace(b"M\x2c\x01", b"J\x00\x00\x00\x10")
    assert torch.load(io.BytesIO(unfilled), weights_only=True)["w"].nbytes == 1 << 30
    for data in (wide, unfilled):
        with pytest.raises(UserError, match="more numbers than it holds"):
            read(put(tmp_path, data))


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    tied = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    state = {"a": tied, "b": tied, "part": tied[10:20]}
    for legacy in (False, True):
        found = read(put(tmp_path, torch_bytes(state, legacy))).tensors
        same(found, state)
        assert found["a"].data_ptr() == found["b"].data_ptr()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # remembered under a number that a list would reach to
        b"\x80\x04\x8e" + b"\xff" * 8 + b"abc.",  # a string of 2^64 bytes
        b"\x80\x02\x8b\xff\xff\xff\x7f1.",  # a number of 2 GB
        b"\x80\x02T\xff\xff\xff\xffabc.",  # a string of -1 bytes
        b"\x80\x02" + b"(" * 100_000 + b"t" * 100_001 + b".",
        b"\x80\x02)" + b"\x85" * 100_000 + b".",  # tuples in tuples
        b"\x80\x02)" + b"2\x86" * 1000 + b"}2s.",  # as keys, whose hash takes for ever
        b"\x80\x02}" + b"2" * 1000 + b"s" * 400 + b".",
        b"V" + b"\\u12" + b"\n.",
        b"(S'\\N{DIGIT ONE}'\nt.",
        b"(S'\\q'\nt.",
        b"(S'open\nt.",
        b"\x80\x02}K\x01b.",
        b"\x80\x02K\x01)R.",
        b"\x80\x02.",
        b"}}.",
        b"}h\x05.",
        b"}\xff.",
        b"(i",
        b"c\xff\n\xff\n.",
    ],
    ids=range(20),
)
def test_hostile_or_senseless_instructions(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UserError):
        read(put(tmp_path, data))


# files that ask to run something


class Call:
    """A thing whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def command(marker: Path) -> str:
    return f"touch {marker}"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def program(name: str, marker: Path) -> bytes:
    """A pickle that calls a function by its name with a command to leave a mark."""
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n(".encode() + text(command(marker)) + b"tR."


NAMES = [
    "posix.system",
    "os.system",
    "nt.system",
    "__builtin__.eval",
    "builtins.exec",
    "__builtin__.getattr",
    "__builtin__.__import__",
    "subprocess.getoutput",
    "numpy.load",
    "numpy.fromfile",
    "numpy.core.multiarray.evil",
    "numpy.core.multiarray.fromfile",
    "numpy.testing._private.utils.runstring",
    "numpyx.core.multiarray._reconstruct",
    "copy_reg._reconstructor",
    "copyreg.add_extension",
    "copy_reg.__newobj__",
    "collections.namedtuple",
    "functools.partial",
    "torch.load",
    "torch.hub.load",
    "torch.storage._load_from_bytes",
    "mmenginex.run",
    "nonlocalnet.weights.container.read",
]
REAL = {"posix": "os", "nt": "os", "__builtin__": "builtins", "copy_reg": "copyreg"}


def real(name: str) -> str:
    module, _, function = name.rpartition(".")
    return f"{REAL.get(module, module)}.{function}"


@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_that_calls(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    path = put(tmp_path, b"\x80\x02" + program(name, marker))
    with pytest.raises(UserError, match="it asks to run .*nothing was run") as caught:
        read(path)
    assert f"it asks to run {real(name)}," in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "__builtin__.getattr"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_that_calls(tmp_path: Path, name: str, legacy: bool) -> None:
    marker = tmp_path / "marker"
    evil = b"\x80\x02" + program(name, marker)
    start = torchfile.LEGACY + b"\x80\x02M\xe9\x03." + b"\x80\x02}."
    data = start + evil if legacy else repacked(SOUND["zip"], {"data.pkl": evil})
    with pytest.raises(UserError, match="it asks to run .*nothing was run") as caught:
        read(put(tmp_path, data))
    assert f"it asks to run {real(name)}," in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("where", ["zip", "legacy", *range(pickle.HIGHEST_PROTOCOL + 1)])
def test_a_call_among_good_weights(tmp_path: Path, where: str | int) -> None:
    marker = tmp_path / "marker"
    call = Call(os.system, command(marker))
    if isinstance(where, int):
        data = pickle.dumps({"blobs": BLOBS, "more": {"deep": [call]}}, where)
    else:
        value = {"state_dict": STATE, "more": {"deep": [call]}}
        data = torch_bytes(value, where == "legacy")
    path = put(tmp_path, data)
    with pytest.raises(UserError, match=r"it asks to run os\.system"):
        read(path)
    assert not marker.exists()
    if isinstance(where, int):
        pickle.loads(data)
        assert marker.exists()  # as Python's own reader shows


def acting(marker: Path) -> dict[str, bytes]:
    """Other ways to have something called; Python's own reader follows each."""
    touch = command(marker).encode()
    short = b"U" + bytes([len(touch)]) + touch
    return {
        "instance": b"(S'" + touch + b"'\nios\nsystem\n.",
        "object": b"(cos\nsystem\n" + short + b"o.",
        "stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + short + b"\x85R.",
        "extension": b"\x80\x02\x82\xf0" + short + b"\x85R.",
        "in a dict": b"}S'a'\ncposix\nsystem\n(" + short + b"tRs.",
        "after a good array": pickle.dumps(np.ones(2), 2)[:-1]
        + b"0cos\nsystem\n"
        + short
        + b"\x85R.",
    }


@pytest.mark.parametrize("way", list(acting(Path("x"))))
def test_other_ways_to_call(tmp_path: Path, way: str) -> None:
    marker = tmp_path / "marker"
    data = acting(marker)[way]
    copyreg.add_extension("os", "system", 0xF0)
    try:
        with pytest.raises(UserError, match="it asks .*nothing was run"):
            read(put(tmp_path, data))
        assert not marker.exists()
        pickle.loads(data)
        assert marker.exists()
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
        copyreg.clear_extension_cache()  # type: ignore[attr-defined]


def test_an_admitted_getattr_reaches_nothing(tmp_path: Path) -> None:
    """MMEngine's files name getattr; what it returns here cannot be called."""
    marker = tmp_path / "marker"
    got = b"c__builtin__\ngetattr\n(cmmengine.os\nos\n" + text("system") + b"tR"
    evil = b"\x80\x02" + got + b"(" + text(command(marker)) + b"tR."
    made = evil.replace(b"cmmengine.os\nos\n", b"cmmengine.os\nos\n)\x81")
    for pickled in (evil, made):
        with pytest.raises(UserError, match="damaged"):
            read(put(tmp_path, repacked(SOUND["zip"], {"data.pkl": pickled})))
        assert not marker.exists()


def test_a_framework_in_the_way_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    evil = b"\x80\x02}(X\x01\x00\x00\x00acmmcv\nrun\n)Ru."
    with pytest.raises(UserError, match="holds no tensors by name"):
        read(put(tmp_path, repacked(SOUND["zip"], {"data.pkl": evil})))
    assert not marker.exists()
    assert "mmcv" not in sys.modules


def test_reading_imports_no_framework(tmp_path: Path) -> None:
    put(tmp_path, SOUND["zip"], "a")
    put(tmp_path, SOUND["python2"], "b")
    code = (
        "import sys\nfrom nonlocalnet.weights.container import read\nbefore = set(sys.modules)\n"
        f"for name in 'ab': read({str(tmp_path)!r} + '/' + name)\n"
        "print([m for m in set(sys.modules) - before if m.split('.')[0] not in ('torch', 'numpy')"
        " and m.split('.')[0] not in sys.stdlib_module_names])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# any damage at all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


FUZZ = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def survives(folder: Path, data: bytes) -> Container | None:
    path = put(folder, data)
    try:
        found = read(path)
    except UserError:
        return None
    finally:
        path.unlink()
    assert found.tensors
    return found


@pytest.mark.parametrize("kind", list(SOUND))
@FUZZ
@given(data=st.data())
def test_any_cut(folder: Path, kind: str, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, len(SOUND[kind]) - 1))
    found = survives(folder, SOUND[kind][:size])
    # a zip file's directory lies at its end, a legacy file's and a pickle's last bytes count
    assert found is None


@pytest.mark.parametrize("kind", list(SOUND))
@FUZZ
@given(data=st.data())
def test_any_wrong_bytes(folder: Path, kind: str, data: st.DataObject) -> None:
    changed = bytearray(SOUND[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    found = survives(folder, bytes(changed))
    if found is not None and kind == "zip":  # only zip files carry checksums
        same(found.tensors, STATE)


@FUZZ
@given(
    st.binary(max_size=600),
    st.sampled_from([b"", b"PK\x03\x04", torchfile.LEGACY, b"\x80\x02", b"("]),
)
def test_any_bytes(folder: Path, data: bytes, start: bytes) -> None:
    assert survives(folder, start + data) is None


OPCODES = b"()]}.abcdeghijlopqrstu012NIJKLMRSTUVXFGBCPQ\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8c" + (
    b"\x93\x94\x95"
)


@FUZZ
@given(st.lists(st.sampled_from([bytes([c]) for c in OPCODES] + [b"\x01", b"a\n", b"1\n"])))
def test_any_instructions(folder: Path, codes: list[bytes]) -> None:
    assert survives(folder, b"\x80\x02" + b"".join(codes) + b".") is None

"""What torch.save wrote, through torch's weights-only reader.

That reader builds tensors and containers and refuses every other name. Checkpoints of training
frameworks name more, such as the log buffers of MMEngine; names of a closed list are met by empty
stand-ins, made here, which take what they are given and do nothing. No such package is imported.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import UserError
from .arrays import asks_to_run

# the start of a file by torch.save before 1.6 (or told to write as it did)
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
LEGACY_PICKLES = 1 << 24  # bytes; the names a legacy file asks for are looked for in so many

# what may be met by a stand-in: whole packages, and single names
PACKAGES = ("mmengine", "mmcv", "mmaction", "yacs", "fvcore", "iopath", "addict")
NAMES = {
    *(f"numpy.{c}.multiarray.{n}" for c in ("core", "_core") for n in ("_reconstruct", "scalar")),
    *(f"numpy.{n}" for n in ("ndarray", "dtype", "float64", "float32", "int64", "int32", "bool_")),
    *(f"builtins.{n}" for n in ("getattr", "dict", "list", "tuple", "int", "float", "str", "bool")),
    *(f"pathlib.{n}" for n in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
    *(f"pathlib._local.{n}" for n in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
    *(f"datetime.{n}" for n in ("datetime", "date", "timedelta", "timezone")),
    "argparse.Namespace",
    "collections.defaultdict",
    "collections.deque",
}
DICTS = ("CfgNode", "ConfigDict", "Dict", "defaultdict", "dict")  # filled by instructions
LISTS = ("deque",)
ASKED = re.compile(rb"c([A-Za-z_][\w.]*)\n([A-Za-z_][\w.]*)\n")

_LOCK = Lock()  # torch keeps the names it admits in one place for the whole process


class _Nothing:
    """Takes any arguments and any state, and keeps neither."""

    __slots__ = ()

    def __new__(cls, *_: object) -> Any:
        return object.__new__(cls)

    def __setstate__(self, _: object) -> None:
        pass


class _Dict:
    """An empty dict, since the weights-only reader fills nothing that is only like one."""

    def __new__(cls, *_: object) -> Any:
        return OrderedDict()


class _List:
    """An empty list."""

    def __new__(cls, *_: object) -> Any:
        return []


def read_torch(path: Path, file: BinaryIO) -> Any:
    """The object in a file of torch.save; `file` is `path`, opened.

    The tensors of a zip file stay in the file, mapped into memory, until they are used. Replacing
    it by another file is harmless; writing into it would change them.

    Raises:
        UserError: damaged, a TorchScript archive, another zip file, or a file that asks for
            something other than tensors and containers.
    """
    file.seek(0)
    zipped = file.read(4) == b"PK\x03\x04"
    stand_ins = _stand_ins(_check_zip(path, file) if zipped else _start(file))
    source: Any = path
    # by its suffix torch takes a path for a safetensors file
    if not zipped or path.suffix == ".safetensors":
        source = file
    try:
        read = _load(source, source is path, file, stand_ins)
        if source is path and not _aligned(read):  # a zip file packed by another program
            read = _load(file, False, file, stand_ins)
    except MemoryError:
        raise UserError(f"{path}: there is not enough memory to read it") from None
    except Exception as error:  # the reader raises whatever the bytes lead it to
        raise _explained(path, error, None if zipped else _start(file)) from None
    return read


def _load(source: Any, mapped: bool, file: BinaryIO, stand_ins: list[Any]) -> Any:
    file.seek(0)
    with warnings.catch_warnings(), _LOCK, torch.serialization.safe_globals(stand_ins):
        warnings.simplefilter("ignore")  # what matters comes as an error as well
        return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)


def _aligned(value: Any, depth: int = 3) -> bool:
    if isinstance(value, Tensor):
        return value.layout != torch.strided or value.data_ptr() % value.element_size() == 0
    if isinstance(value, dict) and depth:
        return all(_aligned(v, depth - 1) for v in dict.values(value))
    return True


def _start(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(LEGACY_PICKLES)


def _check_zip(path: Path, file: BinaryIO) -> bytes:
    """The pickle of a zip file whose checksums hold; the weights-only reader ignores them."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            folders = {e.filename.partition("/")[0] for e in entries}
            names = {e.filename for e in entries}
            if any(f"{folder}/constants.pkl" in names for folder in folders):
                raise UserError(
                    f"{path} is a TorchScript archive, that is a program; weights are read from a"
                    " state dict: save torch.jit.load(file).state_dict() with torch.save"
                )
            inside = [f"{f}/data.pkl" for f in folders if f"{f}/data.pkl" in names]
            if len(inside) != 1:
                raise UserError(
                    f"{path} is a zip file but not one that torch.save wrote (it holds"
                    f" {', '.join(sorted(names)[:3]) or 'nothing'}); if the checkpoint lies in it,"
                    " unpack it first"
                )
            if any(e.compress_type for e in entries):
                raise UserError(
                    f"{path} was packed again with compression, which torch.save does not use;"
                    " fetch the original file"
                )
            if sum(e.file_size for e in entries) > file.seek(0, io.SEEK_END):
                raise UserError(f"{path} is damaged: its parts overlap; fetch it again")
            wrong = _damaged(file, entries)
            if wrong is not None:
                raise UserError(
                    f"{path} is damaged: the checksum of {wrong} does not hold; fetch it again"
                )
            return archive.read(inside[0])
    except (zipfile.BadZipFile, EOFError, struct.error) as error:
        raise UserError(
            f"{path} starts as a file of torch.save but is cut off or damaged"
            f" ({error}); fetch it again"
        ) from None
    except (RuntimeError, NotImplementedError, ValueError, LookupError, OSError) as error:
        raise UserError(f"{path} is a zip file that cannot be read: {error}") from None


def _damaged(file: BinaryIO, entries: list[zipfile.ZipInfo]) -> str | None:
    """The first stored entry whose checksum does not hold: `testzip` in larger pieces."""
    buffer = memoryview(bytearray(1 << 20))
    for entry in entries:
        # a local header: 26 bytes, the lengths of name and extra field, then these
        file.seek(entry.header_offset)
        header = file.read(30)
        name, extra = struct.unpack("<HH", header[26:])
        file.seek(name + extra, io.SEEK_CUR)
        left, found = entry.file_size, 0
        while left and (read := file.readinto(buffer[: min(left, len(buffer))])):  # type: ignore[attr-defined]
            found = zlib.crc32(buffer[:read], found)
            left -= read
        if left or header[:4] != b"PK\x03\x04" or found != entry.CRC:
            return entry.filename
    return None


def _stand_ins(pickled: bytes) -> list[tuple[Any, str]]:
    """For each admitted name that the bytes may ask for: (stand-in, name)."""
    found = {}
    for module, name in ASKED.findall(pickled):
        full = f"{module.decode()}.{name.decode()}"
        if full.startswith("__builtin__."):  # Python 2's name, and protocol 2's
            full = full.replace("__builtin__", "builtins", 1)
        if full in NAMES or full.startswith(tuple(f"{p}." for p in PACKAGES)):
            last = full.rpartition(".")[2]
            base = _Dict if last in DICTS else _List if last in LISTS else _Nothing
            # a class of its own for each reading, so that no other reading can take it away
            found[full] = type(base.__name__, (base,), {"__slots__": ()})
    return [(made, name) for name, made in found.items()]


def _explained(path: Path, error: Exception, pickled: bytes | None) -> UserError:
    said = str(error)
    asked = re.search(r"GLOBAL ([\w.<>]+)", said)
    # where a file is cut off in the middle of a name, no such name was asked for
    whole = asked and (pickled is None or f"{asked[1].rpartition('.')[2]}\n".encode() in pickled)
    if isinstance(error, pickle.UnpicklingError) and asked and whole:
        return UserError(f"{path} is not only weights: {asks_to_run(asked[1])}")
    if "protocol" in said or "Unsupported operand" in said:
        return UserError(
            f"{path} is damaged, or was written with a pickle protocol that torch's safe reader"
            " does not know; fetch it again or have it saved with torch.save's own protocol"
        )
    line = said.strip().splitlines()[-1] if said.strip() else type(error).__name__
    return UserError(
        f"{path} is cut off or damaged, or holds more than tensors, numbers and text"
        f" ({type(error).__name__}: {line[:200]}); fetch it again"
    )

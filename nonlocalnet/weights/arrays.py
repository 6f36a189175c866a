"""What a pickle of arrays may hold, and what becomes of the few calls that are allowed in it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError

DIMENSIONS = 16  # of an array, at most

# what a file may name -> what is made of it here
NAMES = {
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "collections.OrderedDict": "OrderedDict",
    "_codecs.encode": "encode",
    "__builtin__.bytes": "nothing",  # what Python 3 calls an empty string in protocols 0 to 2
    **{f"numpy.{core}.multiarray._reconstruct": "array" for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": "scalar" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": "buffer" for core in ("core", "_core")},
}


class RefusedError(UserError):
    """The file asks for something that weights do not need."""


@dataclass(frozen=True)
class Span:
    """A long string, still in the file."""

    start: int
    size: int


@dataclass
class DType:
    """Kind and size as in "f4", and the byte order."""

    code: str
    order: str = "<"


@dataclass(eq=False)
class Array:
    """An array whose numbers are still in the file, or a few in `data`."""

    shape: tuple[int, ...] = ()
    dtype: DType | None = None
    fortran: bool = False
    data: Span | bytes = b""


@dataclass(frozen=True)
class Name:
    """A name that the file may use, as what it means here."""

    means: str


def as_text(value: object) -> str:
    """A short string, which Python 2 left without an encoding."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a name belongs")
    return value


def named(module: object, name: object) -> Name:
    """What a name means; raises `RefusedError` for all but a few."""
    full = f"{as_text(module)}.{as_text(name)}"
    if full not in NAMES:
        raise _refusal(full)
    return Name(NAMES[full])


def asks_to_run(name: str) -> str:
    """Why a file is refused that names a function or class, for the end of a sentence."""
    module, dot, rest = name.partition(".")
    if not dot:
        module, dot, rest = "builtins", ".", name
    known = {"posix": "os", "nt": "os", "__builtin__": "builtins", "copy_reg": "copyreg"}
    return (
        f"it asks to run {known.get(module, module)}.{rest}, which weights never need; nothing was"
        " run. Take it from a source you trust, or have its author save the tensors alone with"
        " torch.save"
    )


def _refusal(name: str) -> RefusedError:
    return RefusedError(asks_to_run(name))


def set_items(into: object, items: list[Any]) -> None:
    """Fill a dict with keys and values in turn."""
    if type(into) is not dict or len(items) % 2:
        raise TypeError("it names items of what is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        into[key if isinstance(key, int) else as_text(key)] = value


def call(name: object, arguments: object) -> Any:
    """What an allowed name makes of its arguments."""
    if not isinstance(name, Name) or not isinstance(arguments, tuple):
        raise TypeError("it calls what is no function")
    if name.means not in _MAKES:
        raise TypeError(f"it calls {name.means}")
    return _MAKES[name.means](*arguments)


def build(target: object, state: Any) -> None:
    """Give an array or a type made before what it lacks."""
    if isinstance(target, Array):
        shape, dtype, fortran, data = state[-4:]  # a version comes first, in all but the oldest
        _fill(target, shape, dtype, bool(fortran), data)
    elif isinstance(target, DType):
        order, base, names = as_text(state[1]), state[2], state[3]
        if order not in ("<", ">", "|", "=") or base is not None or names is not None:
            raise TypeError("an array of records")
        target.order = order
    else:
        raise TypeError(f"it gives a state to {type(target).__name__}")


def _fill(array: Array, shape: Any, dtype: Any, fortran: bool, data: Any) -> None:
    if not isinstance(shape, tuple) or len(shape) > DIMENSIONS:
        raise TypeError("a shape that is none")
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in shape):
        raise TypeError("a shape that is none")
    if not isinstance(dtype, DType):
        raise TypeError("an array without a type")
    if isinstance(data, str):
        data = data.encode("latin1")
    size = data.size if isinstance(data, Span) else len(data)
    if not isinstance(data, bytes | Span) or size != math.prod(shape) * int(dtype.code[1:]):
        raise TypeError(f"{size} bytes for an array {shape}")
    array.shape, array.dtype, array.fortran, array.data = shape, dtype, fortran, data


# what becomes of a call, by the meaning of its name


def _array(kind: Any, shape: Any, code: Any) -> Array:
    if kind != Name("ndarray"):
        raise TypeError("an array of a kind of its own")
    return Array()


def _dtype(code: Any, *rest: Any) -> DType:
    text = as_text(code)
    found = re.fullmatch(r"([<>|=]?)(f[248]|[iu][1248]|b1)", text)
    if found is None:
        what = "Python objects" if "O" in text else f"type {text!r}"
        raise RefusedError(f"it holds an array of {what}, where weights are plain numbers")
    return DType(found[2], found[1] or "<")


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, DType):
        raise TypeError("a number without a type")
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    form = np.dtype(dtype.code).newbyteorder(">" if dtype.order == ">" else "<")
    return np.frombuffer(raw, form, 1)[0].item()


def _buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    array = Array()
    _fill(array, shape, dtype, order == "F", data)
    return array


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    set_items(made, [item for key, value in pairs for item in (key, value)])
    return made


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("text in an unknown encoding")
    return text.encode("latin1")


_MAKES: dict[str, Callable[..., Any]] = {
    "nothing": lambda: b"",
    "array": _array,
    "dtype": _dtype,
    "scalar": _scalar,
    "buffer": _buffer,
    "OrderedDict": _ordered,
    "encode": _encode,
}

"""Pickles as Python 2 and the NumPy of its time wrote them, byte for byte in their manner."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np


def dumps(value: Any, protocol: int = 2) -> bytes:
    """The pickle of dicts, lists, numbers, strings and arrays."""
    writer = _Text() if protocol == 0 else _Binary()
    start = b"\x80\x02" if protocol == 2 else b""
    return start + writer.value(value) + b"."


class _Binary:
    """Protocols 1 and 2: every string and container is remembered, as the old pickler did."""

    def __init__(self) -> None:
        self.count = 0

    def remember(self) -> bytes:
        self.count += 1
        at = self.count - 1
        return b"q" + bytes([at]) if at < 256 else b"r" + struct.pack("<i", at)

    def name(self, module: str, name: str) -> bytes:
        return f"c{module}\n{name}\n".encode() + self.remember()

    def number(self, value: int) -> bytes:
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)

    def real(self, value: float) -> bytes:
        return b"G" + struct.pack(">d", value)

    def string(self, value: bytes) -> bytes:
        short = len(value) < 256
        size = b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))
        return size + value + self.remember()

    def false(self) -> bytes:
        return b"I00\n"

    def tuple(self, items: list[bytes]) -> bytes:
        return b"(" + b"".join(items) + b"t" + self.remember()

    def dict(self, items: dict[Any, Any]) -> bytes:
        start = b"}" + self.remember() + b"("
        return start + b"".join(self.value(x) for pair in items.items() for x in pair) + b"u"

    def list(self, items: list[Any]) -> bytes:
        return b"]" + self.remember() + b"(" + b"".join(self.value(x) for x in items) + b"e"

    def value(self, value: Any) -> bytes:
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, np.generic):
            return self.scalar(value)
        if isinstance(value, dict):
            return self.dict(value)
        if isinstance(value, list):
            return self.list(value)
        if isinstance(value, float):
            return self.real(value)
        if isinstance(value, int):
            return self.number(value)
        return self.string(value.encode("latin1") if isinstance(value, str) else value)

    def dtype(self, dtype: np.dtype[Any]) -> bytes:
        order = ">" if dtype.str[0] == ">" else "<" if dtype.itemsize > 1 else "|"
        made = [self.string(dtype.str[1:].encode()), self.number(0), self.number(1)]
        state = [self.number(3), self.string(order.encode()), b"N", b"N", b"N"]
        state += [self.number(-1), self.number(-1), self.number(0)]
        return self.name("numpy", "dtype") + self.tuple(made) + b"R" + self.tuple(state) + b"b"

    def array(self, array: np.ndarray[Any, Any]) -> bytes:
        fortran = array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous
        made = [self.name("numpy", "ndarray"), self.tuple([self.number(0)]), self.string(b"b")]
        start = self.name("numpy.core.multiarray", "_reconstruct") + self.tuple(made) + b"R"
        data = array.tobytes(order="F" if fortran else "C")
        state = [
            self.number(1),
            self.tuple([self.number(n) for n in array.shape]),
            self.dtype(array.dtype),
            b"I01\n" if fortran else self.false(),
            self.string(data),
        ]
        return start + self.tuple(state) + b"b"

    def scalar(self, value: np.generic) -> bytes:
        made = [self.dtype(value.dtype), self.string(value.tobytes())]
        return self.name("numpy.core.multiarray", "scalar") + self.tuple(made) + b"R"


class _Text(_Binary):
    """Protocol 0, which is all lines of text."""

    def remember(self) -> bytes:
        self.count += 1
        return b"p%d\n" % (self.count - 1)

    def number(self, value: int) -> bytes:
        return b"I%d\n" % value

    def real(self, value: float) -> bytes:
        return b"F%r\n" % value

    def string(self, value: bytes) -> bytes:
        return b"S" + repr(value)[1:].encode() + b"\n" + self.remember()

    def dict(self, items: dict[Any, Any]) -> bytes:
        pairs = b"".join(self.value(k) + self.value(v) + b"s" for k, v in items.items())
        return b"(d" + self.remember() + pairs

    def list(self, items: list[Any]) -> bytes:
        return b"(l" + self.remember() + b"".join(self.value(x) + b"a" for x in items)

"""Pickles of arrays, as Caffe2's checkpoints are, read without Python's unpickler.

A pickle is a program: it can name any function and have it called. Here its instructions are only
taken down: a name that is not one of NumPy's few ways to write an array ends the reading, and
nothing that the file names is ever imported or called. Numbers stay in the file until wanted.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from .arrays import Array, RefusedError, Span, build, call, named, set_items

LONG = 255  # bytes; longer strings are left in the file until asked for
TEXT = 1 << 20  # bytes; no note is longer
DIGITS = 32  # bytes; no number is longer
STRANGE = re.compile(rb"(?<!\\)(?:\\\\)*\\(?![\\'\"nrtx])")  # an escape that repr() never writes

FIXED = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}
COUNTED = {  # strings: the form of their length, and whether they are text in UTF-8
    b"U": ("<B", False),
    b"T": ("<i", False),
    b"C": ("<B", False),
    b"B": ("<I", False),
    b"\x8e": ("<Q", False),
    b"\x96": ("<Q", False),
    b"X": ("<I", True),
    b"\x8c": ("<B", True),
    b"\x8d": ("<Q", True),
}
CONSTANTS: dict[bytes, Callable[[], Any]] = {
    b"N": lambda: None,
    b"\x88": lambda: True,
    b"\x89": lambda: False,
    b")": lambda: (),
    b"]": lambda: [],
    b"}": lambda: {},
}
TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
GETS = {b"h": "<B", b"j": "<I"}
PUTS = {b"q": "<B", b"r": "<I"}
LONGS = {b"\x8a": "<B", b"\x8b": "<i"}
UNUSED = {b"\x80": 1, b"\x95": 8}  # protocol and frame; their sizes in bytes

_MARK = object()


class Pickle:
    """One pickle in a file that stays open: `value()`, and the numbers of its arrays."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        self._loaded: dict[Array, Tensor] = {}
        self._bytes = 0
        file.seek(0)

    def value(self) -> Any:
        """What the pickle holds: containers, numbers, text, `Array` and `Span`.

        Raises:
            RefusedError: it asks for something other than arrays, scalars and containers.
            ValueError, TypeError, LookupError, EOFError, ArithmeticError, struct.error: no pickle,
                or a damaged one.
        """
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        while (code := self._take(1)) != b".":
            if code in ACTS:
                ACTS[code](stack)
            elif code in TUPLES:
                count = TUPLES[code]
                stack[-count:] = [tuple(_top(stack, count))]
            elif code in GETS:
                stack.append(memo[self._number(GETS[code])])
            elif code in PUTS:
                memo[self._number(PUTS[code])] = stack[-1]
            elif code in b"gp":
                at = int(self._line())
                stack.append(memo[at]) if code == b"g" else memo.update({at: stack[-1]})
            elif code == b"\x94":
                memo[len(memo)] = stack[-1]
            elif code in UNUSED:
                self._take(UNUSED[code])
            else:
                stack.append(self._literal(code))
        if len(stack) != 1:
            raise ValueError("it ends too early or too late")
        return stack[0]

    def tensor(self, array: Array) -> Tensor:
        """The numbers of an array; the same tensor if asked again."""
        if array not in self._loaded:
            self._loaded[array] = self._load(array)
        return self._loaded[array]

    def text(self, span: Span) -> str:
        """A string of at most 1 MB that was left in the file; empty if it is longer."""
        if span.size > TEXT:
            return ""
        self._file.seek(span.start)
        return self._take(span.size).decode("latin1")

    def _literal(self, code: bytes) -> Any:
        if code in FIXED:
            return self._number(FIXED[code])
        if code in COUNTED:
            return self._string(*COUNTED[code])
        if code in CONSTANTS:
            return CONSTANTS[code]()
        if code in LINES:
            return LINES[code](self._line())
        if code in LONGS:
            size = self._number(LONGS[code])
            if size > DIGITS:
                raise ValueError(f"a number of {size} bytes")
            return int.from_bytes(self._take(size), "little", signed=True)
        if code in b"ci":
            return named(self._line().decode(), self._line().decode())
        if code in REFUSED:
            raise RefusedError(
                f"it asks for {REFUSED[code]}, which weights never need; nothing was run"
            )
        raise ValueError(f"{code!r} is no instruction")

    def _load(self, array: Array) -> Tensor:
        if array.dtype is None:
            raise ValueError("an array without numbers")
        code = array.dtype.code
        shape = array.shape[::-1] if array.fortran else array.shape
        # each byte of the file serves once: a few of them could else claim any memory
        self._bytes += math.prod(shape) * int(code[1:])
        if self._bytes > self._size:
            raise ValueError("arrays that overlap")
        numbers = np.empty(shape, "u1" if code == "b1" else code)
        flat = memoryview(numbers.reshape(-1).view("u1").data)
        if isinstance(array.data, Span):
            self._file.seek(array.data.start)
            if self._file.readinto(flat) != len(flat):  # type: ignore[attr-defined]
                raise EOFError("the file became shorter while it was read")
        else:
            flat[:] = array.data
        if array.dtype.order == ">":
            numbers.byteswap(inplace=True)
        if code == "b1":
            numbers = numbers != 0
        tensor = torch.from_numpy(numbers)
        return tensor.permute(*range(tensor.dim())[::-1]) if array.fortran else tensor

    def _take(self, size: int) -> bytes:
        if size < 0 or size > self._size:  # read() would ask for that much memory first
            raise ValueError(f"a piece of {size} bytes")
        data = self._file.read(size)
        if len(data) != size:
            raise EOFError("it is cut off")
        return data

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError("it is cut off")
        return line[:-1]

    def _string(self, form: str, text: bool) -> str | bytes | Span:
        size = self._number(form)
        if text:
            return self._take(size).decode("utf-8", "surrogatepass")
        if 0 <= size <= LONG:
            return self._take(size)
        start = self._file.tell()
        if size < 0 or start + size > self._size:
            raise EOFError("it is cut off")
        self._file.seek(size, 1)
        return Span(start, size)


def _top(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise IndexError("it takes what it never gave")
    return stack[-count:]


def _since_mark(stack: list[Any]) -> list[Any]:
    at = len(stack)  # from the top down: only what is taken off costs anything
    while at and stack[at - 1] is not _MARK:
        at -= 1
    if not at:
        raise IndexError("it takes what it never gave")
    items = stack[at:]
    del stack[at - 1 :]
    return items


# what an instruction does to the stack


def _append(stack: list[Any]) -> None:
    item = stack.pop()
    _extend(stack[-1], [item])


def _appends(stack: list[Any]) -> None:
    items = _since_mark(stack)
    _extend(stack[-1], items)


def _extend(into: object, items: list[Any]) -> None:
    if type(into) is not list:
        raise TypeError("it appends to what is no list")
    into.extend(items)


def _set_item(stack: list[Any]) -> None:
    items = stack[-2:]
    del stack[-2:]
    set_items(stack[-1], items)


def _set_items(stack: list[Any]) -> None:
    items = _since_mark(stack)
    set_items(stack[-1], items)


def _dict(stack: list[Any]) -> None:
    items = _since_mark(stack)
    stack.append({})
    set_items(stack[-1], items)


def _call(stack: list[Any]) -> None:
    arguments = stack.pop()
    stack.append(call(stack.pop(), arguments))


def _build(stack: list[Any]) -> None:
    state = stack.pop()
    build(stack[-1], state)


def _long(line: bytes) -> int | bool:
    if line in (b"00", b"01"):
        return line == b"01"
    return int(line.removesuffix(b"L"))


def _quoted(line: bytes) -> bytes:
    if len(line) < 2 or line[:1] not in b"\"'" or line[-1:] != line[:1]:
        raise ValueError("a string without its quotes")
    if STRANGE.search(line[1:-1]):
        raise ValueError("a string with an unknown escape")
    return line[1:-1].decode("unicode_escape").encode("latin1")


LINES: dict[bytes, Callable[[bytes], Any]] = {
    b"I": _long,
    b"L": _long,
    b"F": float,
    b"S": _quoted,
    b"V": lambda line: line.decode("raw_unicode_escape"),
}
ACTS: dict[bytes, Callable[[list[Any]], None]] = {
    b"(": lambda stack: stack.append(_MARK),
    b"t": lambda stack: stack.append(tuple(_since_mark(stack))),
    b"l": lambda stack: stack.append(_since_mark(stack)),
    b"d": _dict,
    b"a": _append,
    b"e": _appends,
    b"s": _set_item,
    b"u": _set_items,
    b"0": lambda stack: stack.pop(),
    b"1": lambda stack: _since_mark(stack).clear(),
    b"2": lambda stack: stack.append(stack[-1]),
    b"R": _call,
    b"b": _build,
    b"\x93": lambda stack: stack.append(named(stack.pop(-2), stack.pop())),
}
REFUSED = {
    b"o": "a class of its own",
    b"\x81": "a class of its own",
    b"\x92": "a class of its own",
    b"P": "a lookup outside the file",
    b"Q": "a lookup outside the file",
    b"\x82": "an extension",
    b"\x83": "an extension",
    b"\x84": "an extension",
}

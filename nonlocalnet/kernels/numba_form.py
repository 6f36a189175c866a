"""What the kernels compiled by Numba share: its compiler as it is used here, and their threads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba


def compiled(*allowed: str) -> Callable[[Any], Any]:
    """Numba's compiler; nothing but what is named may change the order of operations."""
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", *allowed}}

    def compile_later(function: Any) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # there is no place to keep what was compiled
            return numba.njit(**options)(function)

    return compile_later


@functools.lru_cache(maxsize=1)
def pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of our own: two callers at a time end a program that uses Numba's.

    process: the caller's, since the threads of a pool stay behind at a fork.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix="nonlocalnet")

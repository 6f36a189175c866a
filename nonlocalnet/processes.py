"""Several processes of one command, as torchrun starts them: who this one is, and what all have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar, cast

import torch.distributed as dist

from .errors import UserError

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # a process may have slower videos than another


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """How many there are, over all machines."""
    return max(1, int(os.environ.get("WORLD_SIZE", "1")))


@cache
def _group() -> dist.ProcessGroup | None:
    """A group that talks over the CPU, beside what training may have made."""
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=PATIENCE)
        return dist.group.WORLD
    return cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=PATIENCE))


def gathered(mine: T) -> list[T]:
    """What each process has, by rank. Every process calls it."""
    if processes() == 1:
        return [mine]
    group, found = _group(), list[Any]([None] * processes())
    dist.all_gather_object(found, mine, group)
    return found


@contextmanager
def sharing_errors() -> Iterator[None]:
    """A `UserError` of any process ends this context in all of them, so that none waits."""
    error: UserError | None = None
    try:
        yield
    except UserError as mine:
        error = mine
    for number, theirs in enumerate(gathered(error)):
        if theirs is not None:
            raise theirs if number == rank() else UserError(f"process {number}: {theirs}")

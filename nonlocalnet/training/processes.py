"""What the processes of a run tell each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning.fabric import Fabric

T = TypeVar("T")


def total(fabric: Fabric, sums: Tensor) -> Tensor:
    """The sum of a tensor over the processes of a run, on the CPU. Every process calls it."""
    if fabric.world_size == 1:
        return sums
    return cast(Tensor, fabric.all_reduce(sums.to(fabric.device), reduce_op="sum")).cpu()


def everyones(fabric: Fabric, value: T) -> list[T]:
    """The value of each process, in order, in every process. Every process calls it."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values

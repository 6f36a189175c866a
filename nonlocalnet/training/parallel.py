"""A run in several processes: how they begin, and how they share weights and sums."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import UserError
from ..machine import this_machine
from ..recipes import Recipe
from .plan import precision_of

try:
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning.fabric.strategies.ddp import DDPStrategy
    from lightning.fabric.strategies.model_parallel import ModelParallelStrategy
    from lightning.fabric.strategies.strategy import Strategy
except ImportError as error:
    raise ImportError(
        'training needs Lightning Fabric, an extra: pip install "nonlocalnet[train]"'
    ) from error

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

LONGEST_WAIT = 1800.0  # seconds for one exchange, where nobody watches


def launch(recipe: Recipe) -> Fabric:
    """Join the other processes that torchrun started, if there are any.

    Raises `UserError` for a device that is not there, and for machines with unequal numbers of
    processes.
    """
    machine = this_machine(recipe.device)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if machine.processes % local:
        raise UserError(
            f"{machine.processes} processes, {local} of them on this machine: give every machine"
            " the same --nproc-per-node"
        )
    several = machine.processes > 1
    precision = precision_of(recipe, machine, [])
    fabric = Fabric(
        accelerator=machine.device,
        devices=local,
        num_nodes=machine.processes // local,
        strategy=_strategy(recipe, machine.processes) if several else "auto",
        precision="bf16-mixed" if precision == "bf16-mixed" else "32-true",
        # else Fabric would take a process that Slurm started for one of many
        plugins=[TorchElasticEnvironment() if several else LightningEnvironment()],
    )
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # it greets from every process
    try:
        fabric.launch()
    finally:
        logging.disable(before)
    return fabric


def _strategy(recipe: Recipe, processes: int) -> Strategy:
    timeout = timedelta(seconds=max(LONGEST_WAIT, 2 * recipe.hang_seconds))
    if recipe.strategy == "ddp":
        return DDPStrategy(timeout=timeout)
    return ModelParallelStrategy(
        _shard, data_parallel_size=processes, tensor_parallel_size=1, timeout=timeout
    )


def _shard(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Each process keeps a part of every weight, its gradient and its momentum (FSDP).

    For a step all weights are put together: those of these networks are small beside the features
    of a clip, and cutting them by stages would gain little.
    """
    for p in network.parameters():
        p.data = p.data.contiguous()  # not channels-last, which FSDP cannot cut
    fully_shard(network, mesh=mesh["data_parallel"])
    return network


def full(value: Any) -> Any:
    """A nest of dictionaries and lists whose sharded tensors are whole. Every process calls it."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: full(each) for key, each in value.items()}
    return [full(each) for each in value] if isinstance(value, list) else value


def like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, sharded as another of its size is. Every process calls it."""
    if not isinstance(other, DTensor) or value.shape != other.shape:
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)


def total(fabric: Fabric, sums: Tensor) -> Tensor:
    """The sum of a tensor over the processes of a run, on the CPU. Every process calls it."""
    if fabric.world_size == 1:
        return sums
    return cast(Tensor, fabric.all_reduce(sums.to(fabric.device), reduce_op="sum")).cpu()

"""What this machine can carry: its device, its memory, and how many clips fit into one pass."""

from __future__ import annotations

import copy
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from .errors import UserError
from .processes import processes

Device = Literal["cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Machine:
    """The part of a machine that training depends on.

    `memory` is what is free now, in bytes: the GPU's, or the main memory. `cores` and `memory` are
    this process's share. `processes` counts all processes of the run, over all machines. `fits` is
    the number of clips that one forward and backward pass can hold; None if nobody has looked.
    """

    device: Device = "cpu"
    memory: int = 8 << 30
    cores: int = 1
    processes: int = 1
    bf16: bool = False
    fits: int | None = None


def this_machine(device: Device | None = None) -> Machine:
    """What this process has, as one of several where torchrun started it.

    `device` None takes the best there is. Raises `UserError` for a device that is not there, and
    where Slurm started several processes that know nothing of each other.
    """
    there: list[Device] = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    device = device or there[0]
    if device not in there:
        raise UserError(
            f"device {device!r} was asked for, but torch {torch.__version__} finds only"
            f" {', '.join(there)} here; leave the device out, or install a torch that supports it"
        )
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "WORLD_SIZE" not in os.environ:
        raise UserError(
            "srun started several of these, and each would work by itself: let it start one"
            " torchrun per machine, which starts the processes there (docs/scale.md)"
        )
    local = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        memory = torch.cuda.mem_get_info()[0]
    else:
        memory = _main_memory() // local
    return Machine(
        device=device,
        memory=memory,
        cores=max(1, _cores() // local),
        processes=processes(),
        bf16=device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False),
    )


def _cores() -> int:
    # a container or a batch system may grant fewer cores than the machine has
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _main_memory() -> int:
    """Free main memory in bytes; inside a container, what its limit leaves."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    else:
        free = 4 << 30
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no control group, or "max": no limit
        pass
    return max(free, 0)


def clip_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes that training keeps for the backward pass of one clip of this shape (3, T, H, W).

    Counted from the tensors that autograd saves in a forward pass of one clip on the CPU. Weights
    are not counted: they are there once. Neither the network nor the random state is touched.
    """
    trial = copy.deepcopy(network).cpu().train()
    saved: dict[int, torch.UntypedStorage] = {}  # held, so that an address stays one storage's

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage
        return tensor

    with (
        torch.random.fork_rng([]),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        trial(torch.zeros(1, *shape))
    weights = {p.untyped_storage().data_ptr() for p in trial.parameters()}
    return sum(s.nbytes() for address, s in saved.items() if address not in weights)


def clips_that_fit(
    network: nn.Module,
    machine: Machine,
    shape: tuple[int, ...],
    most: int,
    precision: Literal["fp32", "bf16-mixed"] = "fp32",
) -> int:
    """How many clips of shape (3, T, H, W) one training pass can hold, at most `most`.

    On CUDA it is tried, halving at each out-of-memory; elsewhere it is estimated, to fill at most
    half of the free memory. `network` itself is not touched. Raises `UserError` if not even one
    clip fits.
    """
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    if machine.device == "cuda":
        fits = most
        while fits > 0 and not _survives(network, (fits, *shape), precision):
            fits //= 2
    else:
        # gradients and momentum take the weights' size each; a backward pass works beside what
        # was saved, hence 1.5
        free = machine.memory // 2 - 3 * weights
        fits = min(most, int(free / (1.5 * max(1, clip_bytes(network, shape)))))
    if fits < 1:
        raise UserError(
            f"not even one clip of {shape[1]} frames at {shape[2]}x{shape[3]} fits into the"
            f" {machine.memory / 2**30:.1f} GB that {machine.device} has free: take fewer frames, a"
            " smaller crop or a smaller model"
        )
    return fits


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """The context in which a forward pass has this precision."""
    return torch.autocast(device, torch.bfloat16) if precision == "bf16-mixed" else nullcontext()


def _survives(network: nn.Module, shape: tuple[int, ...], precision: str) -> bool:
    try:
        _one_step(network, shape, precision)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def _one_step(network: nn.Module, shape: tuple[int, ...], precision: str) -> None:
    trial = copy.deepcopy(network).cuda().train()
    # momentum and its update
    state = [torch.empty_like(p) for p in trial.parameters() for _ in range(2)]
    with autocast("cuda", precision):
        loss = trial(torch.zeros(shape, device="cuda")).float().sum()
    loss.backward()
    torch.cuda.synchronize()
    del state

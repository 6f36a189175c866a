"""The depths of the networks, and where non-local blocks go in each (paper, sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .resnet import BasicBlock, Bottleneck

NonLocal = int | str | Iterable[str]


@dataclass(frozen=True)
class Size:
    """One depth of the family: its stages, and where edits go when only their number is given.

    `positions` maps a number of non-local blocks, or a codebase's own layout of five, to the
    residual blocks they follow.
    """

    block: type[BasicBlock | Bottleneck]
    layers: tuple[int, ...]
    positions: Mapping[int | str, tuple[str, ...]]
    width: int = 64


def _at(**stages: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{stage}.{i}" for stage, indices in stages.items() for i in indices)


_ALTERNATE = _at(layer2=(1, 3), layer3=(1, 3, 5))  # every other block of res3 and res4
_EARLY = _at(layer2=(0, 2), layer3=(0, 2, 4))  # TSM; MMAction2's TSM and SlowOnly

SIZES: dict[str, Size] = {
    "tiny": Size(BasicBlock, (1, 1, 1), {1: _at(layer2=(0,))}, width=16),
    "resnet18": Size(  # the paper has no such net; 5 blocks end at res2, res3 and res4
        BasicBlock,
        (2, 2, 2, 2),
        {1: _at(layer3=(0,)), 5: _at(layer1=(1,), layer2=(0, 1), layer3=(0, 1))},
    ),
    "resnet50": Size(
        Bottleneck,
        (3, 4, 6, 3),
        {
            1: _at(layer3=(4,)),  # right before the last block of res4
            5: _ALTERNATE,
            10: _at(layer2=(0, 1, 2, 3), layer3=(0, 1, 2, 3, 4, 5)),  # every one
            "slowfast": _ALTERNATE,
            "tsm": _EARLY,
        },
    ),
    "resnet101": Size(
        Bottleneck,
        (3, 4, 23, 3),
        {
            1: _at(layer3=(21,)),
            5: _at(layer2=(1, 3), layer3=(6, 13, 20)),  # as video-nonlocal-net spreads them
            # the paper's "corresponding" blocks, without code: six spread over the 23
            10: _at(layer2=(0, 1, 2, 3), layer3=(3, 7, 11, 15, 19, 22)),
            "slowfast": _ALTERNATE,  # those of depth 50, in the first blocks of 23
            "tsm": _EARLY,
        },
    ),
    "mobilenetv2": Size(BasicBlock, (), {}),
    "digits": Size(BasicBlock, (), {2: ("conv_1", "conv_2")}),
}


def block_positions(size: str, non_local: NonLocal) -> tuple[str, ...]:
    """The residual blocks that non-local blocks follow: see `models.create_model`.

    Raises:
        ValueError: a number or stage this size does not have.
    """
    if not isinstance(non_local, int | str):
        return tuple(non_local)
    if non_local == 0:
        return ()
    s = SIZES[size]
    if isinstance(non_local, int):
        if non_local not in s.positions:
            has = ", ".join(str(count) for count in (0, *s.positions) if isinstance(count, int))
            raise ValueError(
                f"{size} has documented positions for {has} non-local blocks, not {non_local};"
                " name the residual blocks instead, such as ('layer2.0',)"
            )
        return s.positions[non_local]
    if non_local in s.positions:
        return s.positions[non_local]
    stages = {f"res{i + 2}": (f"layer{i + 1}", depth) for i, depth in enumerate(s.layers)}
    if non_local in stages:
        layer, depth = stages[non_local]
        return (f"{layer}.{max(0, depth - 2)}",)
    if non_local.startswith("res"):
        raise ValueError(f"{size} has the stages {', '.join(stages)}, not {non_local!r}")
    return (non_local,)

"""Non-local blocks of other codebases by themselves, as our block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Unpack

from torch import Tensor

from ..block import NonLocalBlock
from ..block_options import BlockOptions
from ..errors import UserError
from . import alexhex7, mmaction2, pyslowfast
from .assemble import fitted
from .differ import compare
from .names import Names


@dataclass(frozen=True)
class BlockFamily:
    """Names of a codebase's block, and what its tensors leave open.

    pooled: the name of g where a pooling follows. scale: of its embedded Gaussian.
    """

    title: str
    names: Names
    pooled: str = ""
    scale: Literal["1/sqrt(d)"] | None = None
    open: tuple[str, ...] = ()


BLOCKS = (
    BlockFamily("AlexHex7, mit-han-lab's TSM", Names(alexhex7.BLOCK), pooled="g.0.weight"),
    BlockFamily("mmcv", Names(mmaction2.BLOCK), pooled="g.0.conv.weight", open=("scale",)),
    BlockFamily(
        "PySlowFast, PyTorchVideo",
        Names([*pyslowfast.BLOCK, ("norm.{p}", "norm.{p}")]),
        scale="1/sqrt(d)",
        open=("subsample",),
    ),
)


def load_block(
    tensors: Mapping[str, Tensor], prefix: str = "", **options: Unpack[BlockOptions]
) -> NonLocalBlock:
    """A non-local block from a state dict of AlexHex7, mit-han-lab, mmcv, PySlowFast, PyTorchVideo.

    Args:
        tensors: the state dict; `torch.load(path, weights_only=True)` reads one.
        prefix: of the block's names in it, such as "layer2.1.non_local_block.".
        options: those of `NonLocalBlock` that tensors do not tell: `pairwise` where there are
            theta and phi ("embedded_gaussian" and "dot_product" have them alike), `scale` of an
            mmcv block, `subsample` (and `cells`) of a PySlowFast or PyTorchVideo block.

    Raises:
        UserError: names of no such block, an option that has to be said, or tensors that differ.
    """
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    family = max(BLOCKS, key=lambda f: sum(f.names.ours(name) is not None for name in own))
    found = {family.names.ours(name) or name: tensor for name, tensor in own.items()}
    if "g.weight" not in found or "out.weight" not in found:
        titles = "; ".join(family.title for family in BLOCKS)
        raise UserError(
            f"there is no non-local block under {prefix!r} ({titles}); names there are"
            f" {', '.join(list(own or tensors)[:3]) or 'none'}"
        )
    told = _told(found, family, bool(family.pooled) and family.pooled in own)
    embedded = "pairwise" not in told
    ask = ["pairwise"] if embedded else []
    ask += [name for name in family.open if name != "scale" or embedded]
    if options.get("pairwise") == "dot_product" and "scale" in ask:
        ask.remove("scale")  # it has none
    if missing := [name for name in ask if name not in options]:
        raise UserError(
            f"a block of {family.title} does not tell its {' and '.join(missing)}: give"
            f" {', '.join(f'{name}=...' for name in missing)}"
        )
    if options.get("pairwise") == "embedded_gaussian":
        told["scale"] = family.scale
    channels = found["g.weight"].shape[1]
    block = NonLocalBlock(channels, **(told | options))
    wanted = block.state_dict()
    state = {n: fitted(t, wanted[n]) if n in wanted else t for n, t in found.items()}
    if rows := compare(wanted, state, family.names.theirs):
        raise UserError(f"the tensors do not fit a block of {family.title}:\n{rows}")
    block.load_state_dict(state)
    return block.eval()


def _told(found: Mapping[str, Tensor], family: BlockFamily, pooled: bool) -> BlockOptions:
    """The options that the tensors tell."""
    told: BlockOptions = {
        "inner": found["g.weight"].shape[0],
        "out_bias": "out.bias" in found,
        "norm": "batch" if "norm.running_mean" in found else "none",
    }
    if family.pooled:
        told["subsample"] = "after" if pooled else "none"
    if "w_f" in found:
        told["pairwise"] = "concatenation"
    elif "theta.weight" not in found:
        told["pairwise"] = "gaussian"
    return told

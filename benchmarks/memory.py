"""Peak memory of the operation at N and 2 N positions (P8), forward, and forward and backward.

    python benchmarks/memory.py [--check]

Growth of the resident memory of a fresh process around one step that makes its own inputs (Linux):
embeddings of 32 channels; g as wide, or wider for "gaussian", which then takes some rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from goals import BOTH
from measure import command_line, peak, report, spread

from nonlocalnet import NonLocalBlock, non_local
from nonlocalnet.block_options import Subsample

# function: N and the width of g
SIZES = {
    "gaussian": (10_000, 64),
    "embedded_gaussian": (10_000, 32),
    "dot_product": (40_000, 32),
    "concatenation": (40_000, 32),
}
REPEATS = 2


def operation(pairwise: str, n: int, width: int, backward: bool) -> Callable[[], None]:
    """One step for `measure.peak`, inputs included."""

    def step() -> None:
        # as a convolution leaves them: (N, C, P) in memory
        theta, phi, g = (
            torch.randn(1, w, n).requires_grad_().transpose(1, 2) for w in (32, 32, width)
        )
        weight = torch.randn(64, requires_grad=True) if pairwise == "concatenation" else None
        with torch.inference_mode(not backward):
            y = non_local(theta, phi, g, pairwise, weight=weight)
            if backward:
                y.square().mean().backward()

    return step


def block(pairwise: str, subsample: Subsample, places: int) -> Callable[[], None]:
    """A training step of a block on 7 x 40 x `places` positions of 256 channels, without them.

    Its result is gone when the gradient starts, as it is where the next layer has no use for it.
    """
    layer = NonLocalBlock(256, pairwise=pairwise, subsample=subsample, zero_init="none")
    x = torch.randn(1, 256, 7, 40, places).contiguous(memory_format=torch.channels_last_3d)
    x.requires_grad_()
    return lambda: layer(x).sum().backward()


def growth(check: bool, seconds: float = 0.0) -> dict[str, Any]:
    """P8."""
    rows = {}
    for backward in (False, True):
        for pairwise, (n, width) in SIZES.items():
            given = {"pairwise": pairwise, "width": width, "backward": backward}
            pairs = [
                [peak("memory:operation", {"n": 64}, check, n=size, **given) for size in (n, 2 * n)]
                for _ in range(1 if check else REPEATS)
            ]
            rows[f"{pairwise}, {BOTH if backward else 'forward'}"] = {
                "measured": spread([large / small for small, large in pairs]),
                "MB at N": spread([small / 1e6 for small, _ in pairs])["median"],
                "MB at 2 N": spread([large / 1e6 for _, large in pairs])["median"],
                "N": n,
                "rounds": len(pairs),
            }
    return {"rows": rows}


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = command_line("Peak memory of the operation.", {"P8": growth})
    report("P8", growth(options.check), options.check)

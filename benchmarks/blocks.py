"""The whole block on the CPU beside the blocks of others, in time and in peak memory: P2, P4 to P7.

    python benchmarks/blocks.py [P2] [P4] [P5] [P6] [P7] [--seconds S] [--check]

Both sides have the same weights and take the same random features in torch's default layout.
Forward is inference in eval mode; forward + backward is training, with the gradients of the input
and of every weight. What is compared with float64 is what the block adds to its input, or to the
gradient of it, since the identity beside it has no error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from goals import BOTH
from measure import Row, Timer, command_line, cpu_seconds, paired, peak, relative, report, spread
from peers import FORMS, POOLS, exact_block
from torch import Tensor, nn

from nonlocalnet import NonLocalBlock

REPEATS = 2


@dataclass(frozen=True)
class Case:
    """A block, the form it is measured against, and its features (batch, channels, *grid)."""

    peer: str
    pairwise: str
    channels: int
    grid: tuple[int, ...]
    pooled: bool = False
    batch: int = 1

    def words(self) -> str:
        size = f"{self.channels} x {'x'.join(map(str, self.grid))}"
        batch = f"{self.batch} x " if self.batch > 1 else ""
        return f"{batch}{size}, keys {'pooled' if self.pooled else 'not pooled'}"

    def tiny(self, channels: int) -> Case:
        return replace(self, channels=channels, grid=tuple(min(4, size) for size in self.grid))


RES3, RES4 = (4, 28, 28), (4, 14, 14)
DOT = Case("PySlowFast", "dot_product", 512, RES3)
SOFTMAX = Case("PySlowFast", "embedded_gaussian", 512, RES3)
GAUSSIAN = Case("mmcv", "gaussian", 512, RES3)
LONG = Case("PySlowFast", "dot_product", 256, (1, 100, 168))  # a detector's 800 x 1344, stride 8
# P2: the forms against which the block for concatenation is measured
PAIRS = {
    "mmcv": Case("mmcv", "concatenation", 1024, RES4),
    "AlexHex7": Case("AlexHex7", "concatenation", 1024, RES4),
    "AlexHex7 with its default, pooled keys": Case(
        "AlexHex7", "concatenation", 1024, RES4, pooled=True
    ),
}
# channels, grid, pooled, batch: res2 to res5, images and sequences, and small ones
SWEEP: tuple[tuple[int, tuple[int, ...], bool, int], ...] = (
    (256, (2, 56, 56), True, 1),
    (512, (4, 28, 28), True, 1),
    (512, (4, 28, 28), False, 1),
    (1024, (4, 14, 14), True, 1),
    (1024, (4, 14, 14), False, 1),
    (2048, (4, 7, 7), True, 1),
    (2048, (4, 7, 7), False, 1),
    (64, (4, 8, 8), False, 8),
    (16, (2, 4, 4), False, 1),
    (256, (56, 56), True, 1),
    (512, (28, 28), False, 1),
    (1024, (14, 14), False, 1),
    (64, (8, 8), False, 4),
    (512, (1000,), False, 1),
    (256, (100,), True, 4),
    (32, (16,), False, 1),
)


def build(case: Case, device: str = "cpu") -> tuple[NonLocalBlock, nn.Module, Tensor]:
    """Ours, theirs with the same weights, and features; the norm knows their statistics."""
    torch.manual_seed(0)
    slowfast = case.peer == "PySlowFast"
    block = NonLocalBlock(
        case.channels,
        pairwise=case.pairwise,
        subsample=POOLS[case.peer] if case.pooled else "none",
        scale="1/sqrt(d)" if slowfast and case.pairwise == "embedded_gaussian" else None,
        zero_init="none",
        init="msra",
        out_bias=case.peer != "mmcv",
    )
    x = torch.randn(case.batch, case.channels, *case.grid)
    if case.pairwise == "gaussian":
        x *= (8 / case.channels) ** 0.5  # else each position would see itself and nothing else
    block, x = block.to(device), x.to(device)
    assert isinstance(block.norm, nn.BatchNorm1d)
    block.norm.momentum = 1.0
    with torch.no_grad():
        block.train()(x)
    block.norm.momentum = 0.1
    theirs = FORMS[case.peer](block, x.dim() - 2).to(device)
    return block.eval(), theirs.eval(), x


def mixed(x: Tensor) -> torch.autocast:
    """Features in half precision come from a network under autocast."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=x.dtype == torch.bfloat16)


def inference(module: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode(), mixed(x):
        return module(x)


def training(module: nn.Module, x: Tensor, dz: Tensor) -> tuple[Tensor, ...]:
    """The gradients of x and of every weight."""
    with mixed(x):
        z = module(x)
    return torch.autograd.grad(z, [x, *module.parameters()], dz.to(z.dtype))


def one_step(case: dict[str, Any], ours: bool, backward: bool) -> Callable[[], object]:
    """One step for `measure.peak`, weights and features not included."""
    mine, theirs, x = build(Case(**{**case, "grid": tuple(case["grid"])}))
    module = mine if ours else theirs
    if not backward:
        return partial(inference, module, x)
    return partial(training, module.train(), x.requires_grad_(), torch.randn_like(x))


def time_row(
    case: Case,
    backward: bool,
    seconds: float,
    least: int = 5,
    timer: Timer = cpu_seconds,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Row:
    ours, theirs, x = build(case, device)
    x = x.to(dtype)
    exact_x = x.double()
    if not backward:
        runs = [partial(inference, module, x) for module in (ours, theirs)]
        result = paired(runs[0], runs[1], seconds, timer, least)
        with torch.no_grad():
            want = exact_block(ours, exact_x)
        found = [run().double() - exact_x for run in runs]
    else:
        dz = torch.randn_like(x)
        x.requires_grad_()
        exact_x.requires_grad_()
        steps = [partial(training, module.train(), x, dz) for module in (ours, theirs)]
        result = paired(steps[0], steps[1], seconds, timer, least)
        (want,) = torch.autograd.grad(exact_block(ours, exact_x), exact_x, dz.double())
        found = [step()[0].double() - dz.double() for step in steps]
    errors = [relative(y, want) for y in found]
    return {**result, "error_ours": errors[0], "error_theirs": errors[1], "case": case.words()}


def memory_row(case: Case, backward: bool, check: bool) -> Row:
    """Peak bytes of theirs over those of ours, each in processes of its own."""
    tiny = {"case": asdict(case.tiny(case.channels))}
    given = {"case": asdict(case), "backward": backward}
    pairs = [
        [peak("blocks:one_step", tiny, check, ours=ours, **given) for ours in (True, False)]
        for _ in range(1 if check else REPEATS)
    ]
    return {
        "measured": spread([theirs / ours for ours, theirs in pairs]),
        "ours_mb": spread([ours / 1e6 for ours, _ in pairs])["median"],
        "theirs_mb": spread([theirs / 1e6 for _, theirs in pairs])["median"],
        "rounds": len(pairs),
        "case": case.words(),
    }


@dataclass(frozen=True)
class Measure:
    """How long and how often to measure, and whether with tiny features only."""

    seconds: float
    check: bool

    def time(self, case: Case, backward: bool, share: float = 1.0) -> Row:
        case, least = (case.tiny(8), 1) if self.check else (case, 5)
        return time_row(case, backward, share * self.seconds, least)

    def memory(self, case: Case, backward: bool) -> Row:
        return memory_row(case.tiny(8) if self.check else case, backward, self.check)

    def sweep(self, peer: str, pairwise: str, label: str) -> tuple[dict[str, Row], list[Row]]:
        """Every shape, and of each step the row whose median is the least."""
        shapes = [Case(peer, pairwise, *shape) for shape in SWEEP]
        rows, all_of_them = {}, []
        for backward in (False, True):
            step = BOTH if backward else "forward"
            found = [
                {"step": step, **self.time(case, backward, 0.5)}
                for case in (shapes[::4] if self.check else shapes)
            ]
            medians = [row["measured"]["median"] for row in found]
            least = found[medians.index(min(medians))]
            worst = max(found, key=lambda row: row["error_ours"])
            rows[f"{label}{step}, least of the sweep"] = {
                "measured": {"median": min(medians), "min": min(medians), "max": max(medians)},
                "case": least["case"],
                "error_ours": worst["error_ours"],
                "error_theirs": worst["error_theirs"],
            }
            all_of_them += found
        return rows, all_of_them


def concatenation(measure: Measure) -> dict[str, Any]:
    """P2."""
    rows = {f"time, {name}": measure.time(case, False) for name, case in PAIRS.items()}
    for name, case in PAIRS.items():
        rows[f"peak memory, {name}"] = measure.memory(case, False)
    return {"rows": rows}


def dot_product(measure: Measure) -> dict[str, Any]:
    """P4."""
    rows = {}
    for backward in (False, True):
        step = BOTH if backward else "forward"
        rows[f"{step}, keys not pooled"] = measure.time(DOT, backward)
        rows[f"{step}, keys pooled"] = measure.time(replace(DOT, pooled=True), backward)
    least, sweep = measure.sweep(DOT.peer, DOT.pairwise, "")
    return {"rows": {**rows, **least}, "sweep": sweep}


def long_dot_product(measure: Measure) -> dict[str, Any]:
    """P5."""
    return {"rows": {"forward": measure.time(LONG, False), BOTH: measure.time(LONG, True)}}


def embedded_gaussian(measure: Measure) -> dict[str, Any]:
    """P6."""
    rows = {}
    for backward in (False, True):
        where = f"{BOTH if backward else 'forward'}, keys not pooled"
        rows[f"time, {where}"] = measure.time(SOFTMAX, backward)
        rows[f"peak memory, {where}"] = measure.memory(SOFTMAX, backward)
    least, sweep = measure.sweep(SOFTMAX.peer, SOFTMAX.pairwise, "time, ")
    return {"rows": {**rows, **least}, "sweep": sweep}


def gaussian(measure: Measure) -> dict[str, Any]:
    """P7."""
    rows = {}
    for backward in (False, True):
        step = BOTH if backward else "forward"
        rows[f"time, {step}"] = measure.time(GAUSSIAN, backward)
        rows[f"peak memory, {step}"] = measure.memory(GAUSSIAN, backward)
    return {"rows": rows}


MEASURES: dict[str, Callable[[Measure], dict[str, Any]]] = {
    "P2": concatenation,
    "P4": dot_product,
    "P5": long_dot_product,
    "P6": embedded_gaussian,
    "P7": gaussian,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    options = command_line("The whole block on the CPU.", MEASURES)
    for goal in options.goals:
        found = MEASURES[goal](Measure(options.seconds, options.check))
        report(goal, found, options.check)

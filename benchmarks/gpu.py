"""CUDA in bf16: P12, P13 and P14, and which form of the softmax serves which width.

    python benchmarks/gpu.py [P12] [P13] [P14] [attention] [--seconds S] [--check]

Needs a CUDA device; --check runs all of it on the CPU at tiny sizes and keeps nothing. Times are
those of the device's events. The features of a block are bf16 and its weights float32 under
autocast, as in a network; the operation alone is given bf16 tensors. "attention" compares the
operation with the matrix form and with each of torch's fused kernels, for the rule that chooses.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from blocks import Case, time_row
from goals import BOTH
from measure import Row, Run, Timer, command_line, cpu_seconds, keep, paired, relative, report
from operation import Form, draw, errors, inference, training
from peers import matrix_form
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from whole_network import networks

from nonlocalnet import non_local

HALF = torch.bfloat16
CLIPS = 8
STAGES = {
    "res3 (N = 3136, C = 512)": (512, (4, 28, 28)),
    "res4 (N = 784, C = 1024)": (1024, (4, 14, 14)),
}
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def cuda_seconds(run: Run, repeats: int = 1) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


@dataclass(frozen=True)
class Measure:
    """On which device and for how long, and whether with tiny inputs only."""

    device: str
    seconds: float
    check: bool

    def pair(self, ours: Run, theirs: Run, share: float = 1.0) -> Row:
        return paired(ours, theirs, share * self.seconds, self.timer, self.least)

    @property
    def timer(self) -> Timer:
        return cuda_seconds if self.device == "cuda" else cpu_seconds

    @property
    def least(self) -> int:
        return 1 if self.check else 5


def block(measure: Measure) -> dict[str, Any]:
    """P12: batch 8, features in torch's default layout."""
    how = (measure.seconds, measure.least, measure.timer, measure.device, HALF)
    rows = {}
    for pooled in (False, True):
        for stage, (channels, grid) in STAGES.items():
            case = Case("PySlowFast", "embedded_gaussian", channels, grid, pooled, CLIPS)
            if measure.check:
                case = replace(case, channels=16, grid=(2, 4, 4), batch=2)
            for backward in (False, True):
                keys = "keys pooled" if pooled else "keys not pooled"
                step = BOTH if backward else "forward"
                rows[f"{stage}, {keys}, {step}"] = time_row(case, backward, *how)
    return {"rows": rows}


def operation(measure: Measure) -> dict[str, Any]:
    """P13. The errors are those of the first of the batch."""
    n, width = (40, 16) if measure.check else (12544, 256)
    rows = {}
    for pairwise in ("concatenation", "dot_product"):
        drawn, dy = draw(pairwise, n, width, batch=CLIPS)
        inputs = [t.to(measure.device, HALF) for t in drawn]
        dy = dy.to(measure.device, HALF)
        first = [t[:1].clone() for t in inputs]
        runs = [partial(inference, form, inputs, pairwise) for form in (non_local, matrix_form)]
        rows[f"{pairwise}, forward"] = {
            **measure.pair(runs[0], runs[1]),
            **errors(inference, first, pairwise),
        }
        for t in (*inputs, *first):
            t.requires_grad_()
        steps = [partial(training, f, inputs, pairwise, dy) for f in (non_local, matrix_form)]
        rows[f"{pairwise}, {BOTH}"] = {
            **measure.pair(steps[0], steps[1]),
            **errors(training, first, pairwise, dy[:1]),
        }
    return {"rows": rows}


def network(measure: Measure) -> dict[str, Any]:
    """P14: forward, backward and a step of SGD, weights float32 under autocast; 8 clips."""
    clips, size = (1, (4, 32, 32)) if measure.check else (CLIPS, (32, 224, 224))
    ours, plain = (model.to(measure.device) for model in networks())
    x = torch.randn(clips, 3, *size, device=measure.device)
    labels = torch.randint(400, (clips,), device=measure.device)
    with torch.inference_mode():
        want = copy.deepcopy(plain).double()(x[:1].double())
        with torch.autocast(measure.device, HALF):
            found = [model(x[:1]) for model in (ours, plain)]
    row = measure.pair(train_step(ours, x, labels), train_step(plain, x, labels))
    error_ours, error_theirs = (relative(y, want) for y in found)
    row |= {"error_ours": error_ours, "error_theirs": error_theirs}
    row |= {f"{side}_clips_per_s": clips / row[f"{side}_s"] for side in ("ours", "theirs")}
    return {"rows": {"clips per second": row}}


def train_step(model: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.train().parameters(), 1e-4, momentum=0.9)

    def step() -> None:
        with torch.autocast(x.device.type, HALF):
            loss = F.cross_entropy(model(x).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def fused(
    backend: SDPBackend, theta: Tensor, phi: Tensor, g: Tensor, pairwise: str, weight: None = None
) -> Tensor:
    """One of torch's attention kernels as a form of the operation; RuntimeError if it cannot."""
    q, k, v = (t.unsqueeze(1) for t in (theta, phi, g))
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)


def attention(measure: Measure) -> dict[str, Any]:
    """Milliseconds of ours, of the matrix form and of each fused kernel, by function and width."""
    widths = (16,) if measure.check else (64, 128, 256, 512, 1024)
    rows = []
    for pairwise, n, width in product(("embedded_gaussian", "gaussian"), (784, 3136), widths):
        drawn, dy = draw(pairwise, 24 if measure.check else n, width, batch=CLIPS)
        inputs = [t.to(measure.device, HALF) for t in drawn]
        for backward in (False, True):
            arguments: list[Any] = [inputs, pairwise]
            if backward:
                arguments = [
                    [t.requires_grad_() for t in inputs], pairwise, dy.to(measure.device, HALF)
                ]  # fmt: skip
            ms = milliseconds(measure, training if backward else inference, arguments)
            best = min((v, name) for name, v in ms.items() if v is not None)[1]
            step = BOTH if backward else "forward"
            row = {"pairwise": pairwise, "n": n, "width": width, "step": step, "ms": ms}
            rows.append({**row, "best": best})
            times = "".join(f" {k} {'-' if v is None else f'{v:.3f}'}" for k, v in ms.items())
            print(f"{pairwise:18} N {n} width {width} {step}:{times}; best {best}", flush=True)
    return {"widths": rows}


def milliseconds(
    measure: Measure, step: Callable[..., Any], arguments: list[Any]
) -> dict[str, float | None]:
    """Of each form, in turns with ours; None for a kernel that does not take the shape."""
    forms: dict[str, Form] = {"matrix": matrix_form}
    forms |= {name: partial(fused, backend) for name, backend in BACKENDS.items()}
    ms: dict[str, float | None] = {"ours": None}
    times = []
    for name, form in forms.items():
        ms[name] = None
        with contextlib.suppress(RuntimeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch tells why a kernel does not take a shape
            row = measure.pair(
                partial(step, non_local, *arguments), partial(step, form, *arguments), 1 / 8
            )
            ms[name] = row["theirs_s"] * 1e3
            times.append(row["ours_s"] * 1e3)
    return {**ms, "ours": statistics.median(times)}


MEASURES: dict[str, Callable[[Measure], dict[str, Any]]] = {
    "P12": block,
    "P13": operation,
    "P14": network,
    "attention": attention,
}

if __name__ == "__main__":
    options = command_line("The operation, the block and a network on CUDA.", MEASURES)
    if not options.check and not torch.cuda.is_available():
        sys.exit(
            f"these goals are measured on a CUDA device, and torch {torch.__version__} finds none"
            " here; --check tries the whole script on the CPU at tiny sizes"
        )
    torch.set_num_threads(1)
    device = "cpu" if options.check else "cuda"
    for goal in options.goals:
        found = MEASURES[goal](Measure(device, options.seconds, options.check))
        if goal != "attention":
            report(goal, found, options.check, device)
        elif not options.check:
            keep(goal, found, device)

"""The operation alone on the CPU: P1, the speed of concatenation, and P3, every function's error.

    python benchmarks/operation.py [P1] [P3] [--seconds S] [--check]

Concatenation is given embeddings of one channel, which are a and b themselves, so that only what
sorting replaces is measured; g is 256 or 512 wide. The other form is ReLU(a + b) @ g with its
N x N matrix, the quickest one that does not sort.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from goals import BOTH
from measure import command_line, paired, relative, report, spread
from peers import exact_operation, matrix_form
from torch import Tensor

from nonlocalnet import non_local

Form = Callable[..., Tensor]
DRAWS = 5
# name in goals.py: the function, and where a and -b lie
ACCURACY = {
    "gaussian": ("gaussian", 0.0),
    "embedded_gaussian": ("embedded_gaussian", 0.0),
    "dot_product": ("dot_product", 0.0),
    "concatenation": ("concatenation", 0.0),
    "concatenation with a near 10, b near -10": ("concatenation", 10.0),
}


def inference(form: Form, inputs: list[Tensor], pairwise: str) -> Tensor:
    with torch.inference_mode():
        return run(form, inputs, pairwise)


def training(form: Form, inputs: list[Tensor], pairwise: str, dy: Tensor) -> tuple[Tensor, ...]:
    """The gradients of theta, phi and g, which want them."""
    y = run(form, inputs, pairwise)
    return torch.autograd.grad(y, inputs, dy.to(y.dtype))


def run(form: Form, inputs: list[Tensor], pairwise: str) -> Tensor:
    theta = inputs[0]
    weight = theta.new_ones(2 * theta.shape[-1]) if pairwise == "concatenation" else None
    return form(*inputs, pairwise, weight=weight)


def draw(
    pairwise: str, n: int, width: int, offset: float = 0.0, seed: int = 0, batch: int = 1
) -> tuple[list[Tensor], Tensor]:
    """theta, phi and g, with scores of about one, and the gradient of the result.

    The Gaussian's theta and phi are both x, twice as wide as g, with |x|^2 = 8: larger and each
    position would see itself and nothing else. An offset moves a up and b down: a + b becomes the
    small difference of large numbers, where textbook prefix sums cancel.
    """
    generator = torch.Generator().manual_seed(seed)
    one = pairwise == "concatenation"
    theta, phi = (torch.randn(batch, n, 1 if one else width, generator=generator) for _ in range(2))
    g, dy = (
        torch.randn(batch, n, width // 2 if pairwise == "gaussian" else width, generator=generator)
        for _ in range(2)
    )
    if one:
        return [theta + offset, phi - offset, g], dy
    if pairwise == "gaussian":
        x = theta * (8 / width) ** 0.5
        return [x, x.clone(), g], dy
    return [theta * width**-0.25, phi * width**-0.25, g], dy


def errors(
    step: Callable[..., Tensor | tuple[Tensor, ...]], inputs: list[Tensor], *arguments: Any
) -> dict[str, float]:
    """Of ours and of the N x M form against float64; of several results, the largest."""
    exact = [t.detach().double().requires_grad_(t.requires_grad) for t in inputs]
    found = []
    for form, given in ((non_local, inputs), (matrix_form, inputs), (exact_operation, exact)):
        result = step(form, given, *arguments)
        found.append(result if isinstance(result, tuple) else (result,))
    ours, theirs, want = found
    return {
        "error_ours": max(map(relative, ours, want)),
        "error_theirs": max(map(relative, theirs, want)),
    }


def speed(check: bool, seconds: float) -> dict[str, Any]:
    """P1."""
    rows = {}
    name = "concatenation"
    for n in (784, 3136):
        for width in (256, 512):
            inputs, dy = draw(name, 40 if check else n, width)
            runs = [partial(inference, f, inputs, name) for f in (non_local, matrix_form)]
            rows[f"forward, N = {n}, {width} wide"] = {
                **paired(runs[0], runs[1], seconds, least=1 if check else 5),
                **errors(inference, inputs, name),
            }
            for t in inputs:
                t.requires_grad_()
            steps = [partial(training, f, inputs, name, dy) for f in (non_local, matrix_form)]
            rows[f"{BOTH}, N = {n}, {width} wide"] = {
                **paired(steps[0], steps[1], seconds, least=1 if check else 5),
                **errors(training, inputs, name, dy),
            }
    return {"rows": rows}


def accuracy(check: bool, seconds: float = 0.0) -> dict[str, Any]:
    """P3: medians over some draws."""
    rows = {}
    n, width = (30, 16) if check else (1568, 256)
    for name, (pairwise, offset) in ACCURACY.items():
        found: dict[str, list[dict[str, float]]] = {"result": [], "worst gradient": []}
        for seed in range(DRAWS):
            inputs, dy = draw(pairwise, n, width, offset, seed)
            found["result"].append(errors(inference, inputs, pairwise))
            for t in inputs:
                t.requires_grad_()
            found["worst gradient"].append(errors(training, inputs, pairwise, dy))
        for what, draws in found.items():
            measured = spread([one["error_ours"] for one in draws])
            theirs = spread([one["error_theirs"] for one in draws])
            rows[f"{name}, {what}"] = {
                "measured": measured,
                "error_ours": measured["median"],
                "error_theirs": theirs["median"],
                "rounds": DRAWS,
            }
    return {"rows": rows}


if __name__ == "__main__":
    torch.set_num_threads(1)
    measures = {"P1": speed, "P3": accuracy}
    options = command_line("The operation on the CPU.", measures)
    for goal in options.goals:
        report(goal, measures[goal](options.check, options.seconds), options.check)

"""The Triton kernel of `patch_sum`: on a GPU where there is one, else under Triton's interpreter.

`test_under_the_interpreter` runs this file again in a process of its own, as that of `relu_sum`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
case = pytest.mark.skipif(
    find_spec("triton") is None or not (INTERPRETED or torch.cuda.is_available()),
    reason="no GPU here: these run under Triton's interpreter, in test_under_the_interpreter",
)


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the run under the interpreter")
def test_under_the_interpreter() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
    assert "no GPU here" not in run.stdout


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from nonlocalnet.kernels.patch_sum_triton import _sum_pixels as kernel

for values in ("fp32", "fp64"):
    constants = dict(CHANNELS=3, DEPTH=3, SIDE=7, TILE=4, BLOCK=64, LARGEST=values == "fp64")
    signature = {
        k: "constexpr" if k in constants else "*" + values if k.endswith("_ptr") else "i32"
        for k in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constants)
    options = {"num_warps": 4, "enable_fp_fusion": True}
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert built.asm["cubin"]
print("built")
"""


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled under the interpreter")
def test_compiles_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    """What the interpreter lets pass and the compiler would not."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.stdout == "built\n", run.stderr


@case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_are_those_of_plain_torch(dtype: torch.dtype) -> None:
    """In float64 they agree to its last digits, in float32 to some roundings."""
    from nonlocalnet.kernels import patch_sum_torch, patch_sum_triton

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 5, 6, 7, generator=generator, dtype=torch.float64)
    arguments = (1, 1, (0.25, 0.5, 0.25), (0.2, 0.6, 0.2), 9.0, 0.3, 1, 2, True)
    found = patch_sum_triton.sums(x.to(DEVICE, dtype), *arguments)
    want = patch_sum_torch.sums(x, *arguments)
    close = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    for ours, theirs in zip(found, want, strict=True):
        assert ours is not None
        torch.testing.assert_close(ours.double().cpu(), theirs, rtol=close, atol=close)


@case
def test_a_window_larger_than_the_picture() -> None:
    from nonlocalnet.kernels import patch_sum_torch, patch_sum_triton

    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 1, 1, 3, 4, generator=generator, dtype=torch.float64)
    arguments = (0, 4, (1.0,), (1.0,), 9.0, 0.0, 0, 1, False)
    found = patch_sum_triton.sums(x.to(DEVICE), *arguments)
    want = patch_sum_torch.sums(x, *arguments)
    torch.testing.assert_close(found[0].cpu(), want[0])
    torch.testing.assert_close(found[1].cpu(), want[1])

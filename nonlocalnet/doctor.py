"""What works on this machine, what does not, and why: found by trying it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from .errors import UserError
from .kernels.relu_sum import relu_sum_form
from .machine import this_machine
from .ops import PAIRWISE, non_local, softmax_form

State = Literal["ok", "missing", "warning"]

POSITIONS, CHANNELS = 1536, 64  # the small case that kernels are timed on
ROOM, SHARED = 2 << 30, 512 << 20  # bytes below which disk and shared memory are remarked on


@dataclass(frozen=True)
class Fact:
    """One thing that was looked at: its state, what was seen, and what to do if it is not ok.

    core: without it nothing works, so `nonlocalnet doctor` exits with 1.
    """

    name: str
    state: State
    detail: str
    advice: str = ""
    core: bool = False


def examine_machine() -> list[Fact]:
    """Everything `nonlocalnet doctor` prints, in reading order. Writes only to a temporary file."""
    return [
        python(),
        *(package(name, extra) for name, extra in PACKAGES.items()),
        ffmpeg(),
        h264(),
        *decoders(),
        *devices(),
        *kernels(),
        *room(),
    ]


def core_works(facts: list[Fact]) -> bool:
    """Whether everything that the core needs is there."""
    return all(fact.state == "ok" for fact in facts if fact.core)


def python() -> Fact:
    """The interpreter and the system; one that is too old does not come this far."""
    return Fact("python", "ok", f"{platform.python_version()}, {platform.platform()}", core=True)


# name of the module: the extra that brings it, empty for the core
PACKAGES = {
    "torch": "",
    "numpy": "",
    "av": "",
    "PIL": "",
    "safetensors": "",
    "numba": "",
    "torchvision": "train",
    "lightning": "train",
    "tensorboard": "train",
    "matplotlib": "train",
    "huggingface_hub": "hub",
    "onnxruntime": "export",
    "onnxscript": "export",
}
SERVED_WITHOUT = ("numba",)  # brought by the core, which has another form of what it does
PURPOSE = {
    "numba": "concatenation on the CPU; plain torch serves without it",
    "torchvision": "ImageNet weights",
    "lightning": "training",
    "tensorboard": "training's log",
    "matplotlib": "the attention picture",
    "huggingface_hub": "networks from and to the Hugging Face Hub",
}


def package(name: str, extra: str) -> Fact:
    """Whether a package imports; a failure is told with its cause, the usual one by name."""
    core = not extra and name not in SERVED_WITHOUT
    used = f" ({PURPOSE[name]})" if name in PURPOSE else ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of other packages
            module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == name:
            wanted = f'pip install "nonlocalnet[{extra}]"' if extra else "pip install nonlocalnet"
            return Fact(name, "missing", f"not installed{used}", wanted, core)
        return Fact(name, "warning", _first_line(error), "its installation is incomplete", core)
    except Exception as error:  # a broken package may raise anything at import
        return Fact(name, "warning", _first_line(error), _advice(name, error), core)
    return Fact(name, "ok", f"{getattr(module, '__version__', '')}{used}", core=core)


def _first_line(error: BaseException) -> str:
    return f"does not import: {str(error).strip().partition(chr(10))[0] or type(error).__name__}"


def _advice(name: str, error: Exception) -> str:
    if name == "torchvision" and "torchvision::nms does not exist" in str(error):
        return (
            f"torchvision was built for another torch than the {torch.__version__} here, most often"
            " a CPU-only one; install both in one command from the same source. Without it all"
            " works but ImageNet weights"
        )
    return f"install {name} again, in a version that fits torch {torch.__version__}"


def ffmpeg() -> Fact:
    """The FFmpeg that PyAV carries."""
    try:
        import av
    except ImportError as error:
        return Fact("ffmpeg", "missing", _first_line(error), "pip install av", core=True)
    versions = (f"{k} {'.'.join(map(str, v))}" for k, v in sorted(av.library_versions.items()))
    return Fact("ffmpeg", "ok", ", ".join(versions), core=True)


def h264() -> Fact:
    """A small clip encoded, written, read and compared."""
    y = torch.linspace(0, 255, 64)
    still = torch.stack((*torch.meshgrid(y, y, indexing="ij"), y.flip(0).expand(64, 64)), -1)
    frames = torch.stack([still, 255 - still] * 4).round().to(torch.uint8)  # (8, 64, 64, 3)
    try:
        from .video import Video, write_video

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "clip.mp4")
            write_video(path, frames, fps=8)
            with Video(path) as video:
                back = video.frames(range(len(video)))
    except (ImportError, OSError, UserError) as error:
        advice = "reinstall PyAV from its wheel, which carries FFmpeg: pip install --upgrade av"
        return Fact("h264", "warning", f"encode and decode failed: {error}", advice, core=True)
    if back.shape != frames.shape:
        detail = f"{len(frames)} frames written, {len(back)} read"
        return Fact("h264", "warning", detail, "please report this with its versions", core=True)
    off = (back.float() - frames.float()).abs().mean()
    detail = f"8 frames encoded and decoded, mean difference {off:.1f} of 255"
    return Fact("h264", "ok", detail, core=True)


# format: the decoders for it, any of which will do
DECODERS = {
    "hevc": ("hevc",),
    "vp9": ("vp9", "libvpx-vp9"),
    # FFmpeg's own "av1" only drives hardware
    "av1": ("libdav1d", "libaom-av1", "libgav1"),
    "mpeg4": ("mpeg4",),
}


def decoders() -> list[Fact]:
    """Which other formats the decoder reads."""
    try:
        from av.codec import Codec
    except ImportError:
        return []  # `ffmpeg` has told of it
    facts = []
    for name, candidates in DECODERS.items():
        there = [c for c in candidates if _opens(lambda c=c: Codec(c, "r"))]  # type: ignore[misc]
        if there:
            facts.append(Fact(name, "ok", f"decoded by {there[0]}"))
        else:
            advice = f"{name} videos cannot be read; convert them, or install another build of av"
            facts.append(Fact(name, "missing", "no decoder", advice))
    return facts


def _opens(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except ValueError:  # PyAV's UnknownCodecError is one
        return False
    return True


def devices() -> list[Fact]:
    """Processor, memory, GPUs."""
    cpu = this_machine("cpu")
    detail = f"{cpu.cores} cores, {torch.get_num_threads()} torch threads"
    facts = [Fact("cpu", "ok", f"{detail}, {_size(cpu.memory)} of memory free")]
    count = torch.cuda.device_count()
    if torch.cuda.is_available():
        for i in range(count):
            p = torch.cuda.get_device_properties(i)
            facts.append(Fact(f"cuda:{i}", "ok", f"{p.name}, {_size(p.total_memory)}"))
    elif torch.version.cuda:
        facts.append(
            Fact("cuda", "missing", f"torch is built for CUDA {torch.version.cuda}, no GPU found")
        )
    else:
        facts.append(Fact("cuda", "missing", "torch is built without CUDA"))
    if torch.backends.mps.is_available():
        facts.append(Fact("mps", "ok", "Apple GPU"))
    return facts


def kernels() -> list[Fact]:
    """Which form of each pairwise function runs here, its milliseconds and its error."""
    found = ["cpu"]
    found += ["cuda"] if torch.cuda.is_available() else []
    found += ["mps"] if torch.backends.mps.is_available() else []
    return [kernel(name, device) for device in found for name in PAIRWISE]


def kernel(name: str, device: str) -> Fact:
    """One pairwise function on one device, on 1536 x 1536 pairs of 64 channels."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, POSITIONS, CHANNELS)
    theta, phi, g = (torch.randn(shape, generator=generator) / CHANNELS**0.25 for _ in range(3))
    weight = torch.randn(2 * CHANNELS, generator=generator) if PAIRWISE[name].weighted else None
    exact = _reference(name, theta, phi, g, weight)
    try:
        there = [t.to(device) for t in (theta, phi, g)]
        w = None if weight is None else weight.to(device)
        y = non_local(there[0], there[1], there[2], name, weight=w)
        error = float((y.double().cpu() - exact).norm() / exact.norm())
        speed = _milliseconds(
            lambda: non_local(there[0], there[1], there[2], name, weight=w), device
        )
    except RuntimeError as problem:
        advice = "please report this with its versions"
        return Fact(f"{name} on {device}", "warning", str(problem), advice, core=device == "cpu")
    detail = f"{_form(name, *there)}: {speed:.2f} ms, error {error:.0e} against float64"
    good = error < 1e-2 if device == "cuda" else error < 1e-4  # CUDA may multiply in TF32
    advice = "" if good else "this is wrong: please report it with its versions"
    return Fact(
        f"{name} on {device}", "ok" if good else "warning", detail, advice, core=device == "cpu"
    )


SOFTMAXES = {
    "kept": "all weights, which take no more memory than the embeddings",
    "fused": "torch's fused attention",
    "rows": "softmax of some rows at a time",
}
RELU_SUMS = {
    "relu_sum_numba": "two sorted lists, compiled by Numba",
    "relu_sum_triton": "two sorted lists, compiled by Triton",
    "relu_sum_torch": "two sorted lists, plain torch",
}


def _form(name: str, theta: Tensor, phi: Tensor, g: Tensor) -> str:
    """The form that `ops` takes for these shapes, in words."""
    if name == "concatenation":
        return RELU_SUMS[relu_sum_form(theta.device.type).__name__.rpartition(".")[2]]
    if name == "dot_product":
        return "theta (phi^T g), no matrix of pairs"
    return SOFTMAXES[softmax_form(theta, phi, g)]


def _reference(name: str, theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor | None) -> Tensor:
    """The paper's equation with its matrix of pairs, in float64 on the CPU."""
    a, b = theta.double(), phi.double()
    if weight is not None:
        w = weight.double()
        pairs = ((a @ w[:CHANNELS])[..., None] + (b @ w[CHANNELS:])[:, None]).relu() / POSITIONS
    elif name == "dot_product":
        pairs = a @ b.transpose(1, 2) / POSITIONS
    else:
        pairs = (a @ b.transpose(1, 2)).softmax(-1)
    return pairs @ g.double()


def _milliseconds(call: Callable[[], object], device: str, repeats: int = 7) -> float:
    """The median of some runs."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        elif device == "mps":
            torch.mps.synchronize()
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def room() -> list[Fact]:
    """Space for runs in this folder, for temporary files, and for what reading processes share."""
    facts = []
    for name, path, least, advice in (
        ("disk", Path.cwd(), ROOM, "checkpoints of a ResNet-50 take half a gigabyte: make room"),
        ("temporary files", Path(tempfile.gettempdir()), ROOM, "make room, or set TMPDIR"),
        (
            "shared memory",
            Path("/dev/shm"),
            SHARED,
            "reading processes need more for large clips: docker run --shm-size 2g, or --workers 0",
        ),
    ):
        if not path.is_dir():
            continue
        free = shutil.disk_usage(path).free
        writable = os.access(path, os.W_OK)
        detail = f"{_size(free)} free in {path}" + ("" if writable else ", not writable")
        good = free >= least and writable
        facts.append(Fact(name, "ok" if good else "warning", detail, "" if good else advice))
    return facts


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB"

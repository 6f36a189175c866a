"""A network that `nonlocalnet export` wrote, opened again: used like the one it was made from.

.onnx runs in ONNX Runtime (`pip install "nonlocalnet[export]"`), .pt2 in torch. Open only a .pt2
that you trust: unlike a checkpoint, torch's format may hold code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from .card import card_of, set_card
from .errors import UserError
from .sidecar import Sidecar, read_sidecar
from .streaming import State, is_stream, step_through
from .weights import load

SUFFIXES = (".onnx", ".pt2")
Run = Callable[[Sequence[Tensor]], list[Tensor]]  # the graph's inputs -> its outputs, on the CPU


def open_network(
    path: str | Path, device: str | torch.device = "cpu", *, verify: bool = False
) -> nn.Module:
    """The network of a run, a checkpoint or an exported file, whatever `path` is: with its card.

    device: where it runs; an .onnx takes the CPU unless its runtime has that device.
    verify: a checkpoint's self-test, see `weights.load`; an exported file was compared when made.

    Raises `UserError` as `load` and `read_sidecar` do, and for a file its runtime cannot open.
    """
    path = Path(path)
    if not is_exported(path):
        return load(path, device, verify=verify)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a file that `nonlocalnet export` wrote")
    sidecar = read_sidecar(path)
    kind = ExportedStream if sidecar.kind == "stream" else ExportedClips
    return kind(open_graph(path, device), sidecar).eval()


def is_exported(path: Path) -> bool:
    """Whether that is a file of `nonlocalnet export`, by its name."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


class ExportedClips(nn.Module):
    """An exported network of clips: (N, 3, T, H, W) -> (N, classes), for any N.

    A file with a fixed batch is given so many at a time.
    """

    def __init__(self, run: Run, sidecar: Sidecar) -> None:
        super().__init__()
        self.run, self.sidecar = run, sidecar
        set_card(self, sidecar.card)

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips -> logits. Raises `UserError` for clips of another size."""
        _check(clips, self.sidecar)
        parts = [self.run([part])[0] for part in _filled(clips.float(), self.sidecar.batch)]
        return torch.cat(parts)[: len(clips)].to(clips.device)


class ExportedStream(nn.Module):
    """An exported network of frames, with the interface of `Streaming`."""

    def __init__(self, run: Run, sidecar: Sidecar) -> None:
        super().__init__()
        self.run, self.sidecar = run, sidecar
        self.names = tuple(port.name for port in sidecar.inputs[1:])
        set_card(self, sidecar.card)

    def start(self, frame: Tensor) -> State:
        """The state of streams that have seen nothing, for frames (N, 3, H, W) of this shape."""
        _check(frame, self.sidecar)
        return tuple(
            torch.zeros(frame.shape[0], *port.shape[1:], dtype=getattr(torch, port.type))  # type: ignore[arg-type]
            for port in self.sidecar.inputs[1:]
        )

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """A normalised frame (N, 3, H, W) of each stream -> its logits (N, K) and the new state.

        state: None where all streams begin. Raises `UserError` for frames of another size or
        number.
        """
        _check(frame, self.sidecar)
        state = self.start(frame) if state is None else state
        logits, *after = self.run([frame.float(), *state])
        return logits.to(frame.device), tuple(after)


def of_clips(model: nn.Module) -> nn.Module:
    """The network itself, or a network of frames as one of clips: for `score`, `evaluate`."""
    return FrameByFrame(model) if is_stream(model) else model


class FrameByFrame(nn.Module):
    """A network of frames on clips: the mean of the logits of their frames, as it was trained."""

    def __init__(self, stream: nn.Module) -> None:
        super().__init__()
        self.stream = stream
        set_card(self, card_of(stream))

    def forward(self, clips: Tensor) -> Tensor:
        """Normalised clips (N, 3, T, H, W) -> logits (N, K)."""
        sidecar = getattr(self.stream, "sidecar", None)
        parts = []
        for part in _filled(clips, None if sidecar is None else sidecar.batch):
            parts.append(step_through(self.stream, part).mean(1))
        return torch.cat(parts)[: len(clips)]


def _filled(x: Tensor, batch: int | None) -> Iterator[Tensor]:
    """x in parts of a fixed number, the last filled up with its last; whole if there is none."""
    for part in x.split(batch or len(x)):
        missing = (batch or len(part)) - len(part)
        yield torch.cat([part, *[part[-1:]] * missing])


def _check(x: Tensor, sidecar: Sidecar) -> None:
    want = sidecar.inputs[0].shape
    free = sidecar.kind == "clip" or sidecar.batch is None
    if tuple(x.shape[free:]) == want[free:] and x.dim() == len(want):
        return
    shape, came = (" x ".join(map(str, s[free:])) for s in (want, tuple(x.shape)))
    what = "clips" if sidecar.kind == "clip" else "frames"
    raise UserError(
        f"{sidecar.file} was exported for {what} of {shape}, and they came as {came}; export it"
        " again with the --size and --batch that you need"
    )


def open_graph(path: Path, device: str | torch.device = "cpu") -> Run:
    """What computes the graph in a file. Raises `UserError` if its runtime cannot open it."""
    if path.suffix.lower() == ".pt2":
        return _open_pt2(path, torch.device(device))
    from .onnx_file import open_onnx  # which needs more than torch

    return open_onnx(path, torch.device(device))


def _open_pt2(path: Path, device: torch.device) -> Run:
    told = logging.getLogger("torch._export.serde.serialize")
    level = told.level
    try:
        told.setLevel(logging.CRITICAL)  # of sizes without a use, and tracebacks of broken files
        program = torch.export.load(path)
    except Exception as error:  # whatever torch meets in a file that is none
        raise UserError(f"torch {torch.__version__} cannot open {path}: {error}") from error
    finally:
        told.setLevel(level)
    graph = move_to_device_pass(program, str(device)).module()

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        return [y.cpu() for y in graph(*(x.to(device) for x in inputs))]

    return run

"""How long networks take, side by side: a run beside the files that were exported from it."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .card import card_of
from .errors import UserError
from .export.frames import real_clips
from .exported import ExportedClips, ExportedStream, open_network
from .streaming import Streaming, is_stream
from .transforms import normalize

WARM_UP = 3  # calls that are not counted: the first ones plan, allocate and fill caches
LEAST = 5  # rounds, however long one takes

Step = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """What one call of a network takes, all in seconds, on the wall but for `cpu`.

    kind: "clip" or "stream": what goes through at once, `batch` of them.
    median, p95: of the calls. cpu: median processor time, of all threads. per_second: clips, or
    frames of one stream after another. faster: median ratio of the first network's processor time
    to this one's in the same round, each for one clip or frame. memory: bytes that opening
    and warming up added; None where the system does not tell.
    """

    path: str
    kind: str
    batch: int
    threads: int
    rounds: int
    median: float
    p95: float
    cpu: float
    per_second: float
    faster: float
    memory: int | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def bench(
    paths: Sequence[Path],
    *,
    stream: bool = False,
    batch: int = 1,
    seconds: float = 5.0,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Timing]:
    """Time networks in turns, in this process, on as many threads as torch has.

    paths: runs, checkpoints and exported files. stream: run the former frame by frame too.
    batch: clips or streams at once, where a file does not fix it. seconds: for each, at least five
    rounds.

    Raises `UserError` as `open_network` does, and where clips and frames would be compared.
    """
    steps, kinds, sizes, memory = [], [], [], []
    for path in paths:
        before = _resident()
        model = open_network(path, device)
        if stream and not is_stream(model):
            model = Streaming(model)
        step, size = _step(model, batch, device)
        for _ in range(WARM_UP):
            step()
        after = _resident()
        steps.append(step)
        kinds.append("stream" if is_stream(model) else "clip")
        sizes.append(size)
        memory.append(None if before is None or after is None else max(0, after - before))
    if len(set(kinds)) > 1:
        raise UserError(
            "some of these take clips and some take frames, which do not compare; --stream runs the"
            " networks of runs frame by frame"
        )
    wall, cpu = in_turns(steps, seconds, progress)
    return [
        Timing(
            path=str(path),
            kind=kinds[i],
            batch=sizes[i],
            threads=torch.get_num_threads(),
            rounds=len(wall),
            median=statistics.median(row[i] for row in wall),
            p95=sorted(row[i] for row in wall)[int(0.95 * (len(wall) - 1))],
            cpu=statistics.median(row[i] for row in cpu),
            per_second=sizes[i] / statistics.median(row[i] for row in wall),
            faster=statistics.median(row[0] / max(row[i], 1e-9) for row in cpu)
            * (sizes[i] / sizes[0]),
            memory=memory[i],
        )
        for i, path in enumerate(paths)
    ]


def _step(model: nn.Module, batch: int, device: str) -> tuple[Step, int]:
    """One call of a network on real frames, streams carrying their state; and its batch."""
    if isinstance(model, ExportedClips | ExportedStream):
        batch, device = model.sidecar.batch or batch, "cpu"
    card, streams = card_of(model), is_stream(model)
    clips = real_clips(card, None, streams, lambda done, total: None)
    clips = normalize(clips[torch.arange(batch) % len(clips)], card).to(device)
    if not streams:
        return lambda: _finished(_run(model, clips), device), batch
    step = stepping(model, [frame.contiguous() for frame in clips.unbind(2)])
    return lambda: _finished(step(), device), batch


def stepping(stream: nn.Module, frames: Sequence[Tensor]) -> Callable[[], Tensor]:
    """One step of a stream per call, through the frames (N, 3, S, S) again and again."""
    state = stream.start(frames[0])  # type: ignore[operator]
    turn = itertools.cycle(frames)

    def step() -> Tensor:
        nonlocal state
        logits, state = _run(stream, next(turn), state)
        return logits

    return step


def _run(model: nn.Module, *inputs: Any) -> Any:
    with torch.inference_mode():
        return model(*inputs)


def _finished(logits: Tensor, device: str) -> Tensor:
    return logits.cpu() if device != "cpu" else logits  # a device answers before it is done


def in_turns(
    steps: Sequence[Step],
    seconds: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[list[float]], list[list[float]]]:
    """Rounds of one call each, in turning order: seconds on the wall, and of the processor."""
    wall: list[list[float]] = []
    cpu: list[list[float]] = []
    start, whole = time.monotonic(), seconds * len(steps)
    while len(wall) < LEAST or time.monotonic() - start < whole:
        rounds = [[0.0] * len(steps) for _ in range(2)]
        for i in range(len(steps)) if len(wall) % 2 else reversed(range(len(steps))):
            began = time.perf_counter(), time.process_time()
            steps[i]()
            rounds[0][i] = time.perf_counter() - began[0]
            rounds[1][i] = time.process_time() - began[1]
        wall.append(rounds[0])
        cpu.append(rounds[1])
        progress(min(int(time.monotonic() - start), int(whole)), int(whole))
    return wall, cpu


def _resident() -> int | None:
    """Bytes of this process that are in memory; None elsewhere than on Linux."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else None

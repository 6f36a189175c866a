"""Networks timed side by side."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nonlocalnet import bench as timing
from nonlocalnet import cli, create_model
from nonlocalnet.card import Card, card_of, set_card
from nonlocalnet.errors import UserError
from nonlocalnet.exported import ExportedClips
from nonlocalnet.sidecar import Port, Sidecar
from nonlocalnet.weights import save


class Busy(nn.Module):
    """A network that keeps the processor for so many seconds a clip."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        set_card(self, Card(frames=2, short_side=16, crop=16, test_crop=16))

    def forward(self, clips: Tensor) -> Tensor:
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass
        return torch.zeros(len(clips), 2)


def test_the_ratio_is_of_the_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = {"slow": Busy(0.02), "quick": Busy(0.005)}
    monkeypatch.setattr(timing, "open_network", lambda path, device: networks[path.name])
    slow, quick = timing.bench([Path("slow"), Path("quick")], batch=3, seconds=0.1)
    assert quick.faster == pytest.approx(4, rel=0.3)
    assert slow.faster == 1
    assert slow.cpu == pytest.approx(0.02, rel=0.3)
    assert slow.p95 >= slow.median >= 0.02
    assert quick.per_second == pytest.approx(3 / quick.median)
    assert (slow.kind, slow.batch, slow.rounds) == ("clip", 3, quick.rounds)
    assert slow.rounds >= timing.LEAST


def test_the_ratio_is_for_one_clip_where_batches_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of one clip that takes as long as one of four is four times slower."""
    busy = Busy(0.005)
    port = Port("clips", "float32", (1, 3, 2, 16, 16))
    out = Port("logits", "float32", (1, 2))
    sidecar = Sidecar("one.pt2", "", "clip", "fp32", (port,), (out,), card_of(busy))
    one = ExportedClips(lambda inputs: [busy(inputs[0])], sidecar)
    networks = {"run": Busy(0.005), "one.pt2": one}
    monkeypatch.setattr(timing, "open_network", lambda path, device: networks[path.name])
    run, file = timing.bench([Path("run"), Path("one.pt2")], batch=4, seconds=0.05)
    assert (run.batch, file.batch) == (4, 1)
    assert file.faster == pytest.approx(1 / 4, rel=0.3)


def test_bench_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "online.safetensors"
    save(create_model("tsm_tiny", 4, shift="past").eval(), run)
    assert cli.main(["bench", str(run), str(run), "--stream", "--seconds", "0", "--json"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["path"] == second["path"] == str(run)
    assert first["kind"] == "stream"
    assert min(first["median"], first["cpu"], first["faster"]) > 0
    assert cli.main(["bench", str(run), "--seconds", "0"]) == 0
    assert "online.safetensors" in capsys.readouterr().out


def test_clips_and_frames_do_not_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    class Frames(Busy):
        def start(self, frame: Tensor) -> tuple[Tensor, ...]:
            return ()

        def forward(self, frame: Tensor, state: tuple[Tensor, ...] = ()) -> tuple[Tensor, ...]:  # type: ignore[override]
            return frame.mean((2, 3)), state

    networks = {"a": Busy(0), "b": Frames(0)}
    monkeypatch.setattr(timing, "open_network", lambda path, device: networks[path.name])
    with pytest.raises(UserError, match="do not compare"):
        timing.bench([Path("a"), Path("b")])

"""The doctor: finds what is broken, says what to do, and does not blame what works."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from nonlocalnet import cli, doctor
from nonlocalnet.doctor import Fact, core_works
from nonlocalnet.ops import PAIRWISE
from nonlocalnet.video import VideoError


def breaks_import(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    real = importlib.import_module

    def fake(wanted: str, package: str | None = None) -> ModuleType:
        if wanted == name:
            raise error
        return real(wanted, package)

    monkeypatch.setattr(importlib, "import_module", fake)


def test_the_core_works_here() -> None:
    facts = [doctor.python(), doctor.package("torch", ""), doctor.ffmpeg(), doctor.h264()]
    assert [fact.state for fact in facts] == ["ok"] * 4
    assert core_works(facts)
    assert torch.__version__ in facts[1].detail
    assert "libavcodec" in facts[2].detail


def test_known_torchvision_case_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("operator torchvision::nms does not exist")
    breaks_import(monkeypatch, "torchvision", error)
    fact = doctor.package("torchvision", "train")
    assert fact.state == "warning"
    assert "operator torchvision::nms does not exist" in fact.detail
    assert "built for another torch" in fact.advice
    assert core_works([fact])


@pytest.mark.parametrize(
    ("name", "extra", "error", "state", "advice"),
    [
        ("lightning", "train", ModuleNotFoundError("x", name="lightning"), "missing", "[train]"),
        ("av", "", ModuleNotFoundError("x", name="av"), "missing", "pip install nonlocalnet"),
        ("lightning", "train", ModuleNotFoundError("x", name="yaml"), "warning", "incomplete"),
        ("torchvision", "train", RuntimeError("other"), "warning", "install torchvision again"),
        ("matplotlib", "train", OSError(), "warning", "install matplotlib again"),
    ],
)
def test_packages_that_are_missing_or_broken(
    name: str,
    extra: str,
    error: Exception,
    state: str,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaks_import(monkeypatch, name, error)
    fact = doctor.package(name, extra)
    assert fact.state == state
    assert advice in fact.advice
    assert core_works([fact]) is bool(extra)


def test_an_encoder_that_fails_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, *_: Any, **__: Any) -> None:
        raise VideoError(path, "there is no encoder")

    monkeypatch.setattr("nonlocalnet.video.write_video", fails)
    fact = doctor.h264()
    assert (fact.state, fact.core) == ("warning", True)
    assert "there is no encoder" in fact.detail


def test_a_decoder_that_loses_frames_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nonlocalnet.video.Video.__len__", lambda self: 5)
    fact = doctor.h264()
    assert fact.state == "warning"
    assert "8 frames written, 5 read" in fact.detail


def test_decoders_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DECODERS", {"good": ("none", "h264"), "bad": ("none",)})
    good, bad = doctor.decoders()
    assert (good.state, good.detail) == ("ok", "decoded by h264")
    assert bad.state == "missing"
    assert not bad.core


@pytest.mark.parametrize("name", PAIRWISE)
def test_kernels_are_timed_and_compared(name: str) -> None:
    fact = doctor.kernel(name, "cpu")
    assert fact.state == "ok", fact
    assert " ms, error " in fact.detail
    assert fact.core


@pytest.mark.parametrize("name", PAIRWISE)
def test_a_wrong_kernel_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.non_local

    def wrong(theta: Tensor, phi: Tensor, g: Tensor, *rest: Any, **options: Any) -> Tensor:
        y = real(theta, phi, g, *rest, **options)
        y[:, -1] *= 1.1  # one row of 1024
        return y

    monkeypatch.setattr(doctor, "non_local", wrong)
    fact = doctor.kernel(name, "cpu")
    assert fact.state == "warning"
    assert not core_works([fact])


def test_a_kernel_that_raises_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(doctor, "non_local", fails)
    assert "no kernel image" in doctor.kernel("gaussian", "cpu").detail


def test_little_room_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(fact.detail for fact in doctor.room())
    monkeypatch.setattr(doctor, "ROOM", 1 << 60)
    disk = doctor.room()[0]
    assert (disk.state, bool(disk.advice)) == ("warning", True)


def test_devices_name_the_processor_and_say_why_there_is_no_gpu() -> None:
    facts = {fact.name: fact for fact in doctor.devices()}
    assert "cores" in facts["cpu"].detail
    if not torch.cuda.is_available():
        assert facts["cuda"].state == "missing"
        assert facts["cuda"].detail


@pytest.mark.parametrize(
    ("state", "core", "code"),
    [
        ("ok", True, 0),
        ("warning", False, 0),
        ("missing", False, 0),
        ("warning", True, 1),
        ("missing", True, 1),
    ],
)
def test_the_exit_code_is_about_the_core(
    state: doctor.State,
    core: bool,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fact = Fact("thing", state, "seen", "do this", core)
    monkeypatch.setattr(doctor, "examine_machine", lambda: [fact])
    assert cli.main(["doctor"]) == code
    out = capsys.readouterr().out
    assert f"{state}" in out
    assert "thing: do this" in out


def test_everything_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "package", lambda name, extra: Fact(name, "ok", ""))
    monkeypatch.setattr(doctor, "kernel", lambda name, device: Fact(name, "ok", ""))
    names = [fact.name for fact in doctor.examine_machine()]
    wanted = [*doctor.PACKAGES, *doctor.DECODERS, *PAIRWISE, "python", "ffmpeg", "h264", "disk"]
    assert set(wanted) <= set(names)

"""From a network to a file: it computes the same, or it is not written."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nonlocalnet import create_model
from nonlocalnet.card import Card, card_of, set_card
from nonlocalnet.commands import _ask
from nonlocalnet.errors import UserError
from nonlocalnet.export import export
from nonlocalnet.export.frames import real_clips
from nonlocalnet.export.program import trace, write_onnx, write_pt2
from nonlocalnet.export.proof import prove
from nonlocalnet.exported import ExportedClips, of_clips, open_graph, open_network
from nonlocalnet.kernels import plain
from nonlocalnet.layers import BatchNorm3d, Conv3d
from nonlocalnet.moments import ready
from nonlocalnet.ops import PAIRWISE
from nonlocalnet.prediction import predict
from nonlocalnet.sidecar import Port, Sidecar, check_sidecar, read_sidecar
from nonlocalnet.streaming import Streaming, restart
from nonlocalnet.surgery import insert
from nonlocalnet.synthetic import render_reunion


class Small(nn.Module):
    """A convolution, a block behind it, the mean; the logits of each frame."""

    def __init__(self, **block: Any) -> None:
        super().__init__()
        self.first = nn.Sequential(Conv3d(3, 8, (1, 3, 3), (1, 2, 2)), BatchNorm3d(8), nn.ReLU())
        self.head = nn.Linear(8, 5)
        insert(self, "first", channels=8, zero_init="none", init="msra", **block)
        self.to(memory_format=torch.channels_last_3d)

    def frames(self, x: Tensor) -> Tensor:
        x = self.first(x.contiguous(memory_format=torch.channels_last_3d))
        return self.head(x.mean((3, 4)).mT)

    def forward(self, x: Tensor) -> Tensor:
        return self.frames(x).mean(1)


def uneven(model: nn.Module) -> nn.Module:
    """Norms as after training: a fold that forgets one of their four parts is seen."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


def outputs(run: Any, clips: Tensor, stream: Streaming | None) -> Tensor:
    """The logits of a graph for clips; frame by frame, one stream beginning anew, for a stream."""
    if stream is None:
        return run([clips])[0]
    state, found = stream.start(clips[:, :, 0]), []
    for t, frame in enumerate(clips.unbind(2)):
        if t == 4:
            state = restart(state, torch.arange(len(clips)) == 1)
        logits, *after = run([frame.contiguous(), *state])
        state = tuple(after)
        found.append(logits)
    return torch.stack(found, 1)


@pytest.mark.parametrize("kind", ["clip", "stream"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_every_pairwise_function_as_a_graph(pairwise: str, kind: str, tmp_path: Path) -> None:
    """In ONNX and in torch, for any batch, against the network itself."""
    torch.manual_seed(0)
    online = kind == "stream"
    model = uneven(Small(pairwise=pairwise, causal=3 if online else None))
    stream = Streaming(model) if online else None
    clips = torch.randn(3, 3, 6, 12, 10)
    example = clips[:2, :, 0] if online else clips[:2]
    traced = trace(stream or model, example.contiguous(), free=True)
    assert not [n for n in traced.program.graph.nodes if "nonlocalnet" in str(n.target)]
    onnx, pt2 = tmp_path / "x.onnx", tmp_path / "x.pt2"
    write_onnx(traced, onnx)
    write_pt2(traced, pt2)

    def eager(inputs: list[Tensor]) -> list[Tensor]:
        if stream is None:
            return [model(*inputs)]
        logits, state = stream(inputs[0], tuple(inputs[1:]))
        return [logits, *state]

    with torch.inference_mode():
        want = outputs(eager, clips, stream)
    for path in (onnx, pt2):
        for batch in (3, 1):
            if batch == 1 and online:
                continue  # the restart above is of the second stream
            got = outputs(open_graph(path), clips[:batch], stream)
            assert (got - want[:batch]).abs().max() < 1e-5 * want.std()
    for secret in (str(Path(__file__).parent), str(Path(plain.__file__).parent)):
        assert secret.encode() not in onnx.read_bytes() + pt2.read_bytes()


def test_the_onnx_graph_is_one_of_frames(tmp_path: Path) -> None:
    """No transposition between convolutions, and no norm: what makes it quick."""
    import onnx

    torch.manual_seed(0)
    model = uneven(create_model("tsm_tiny", 4, shift="past"))
    write_onnx(trace(Streaming(model), torch.randn(1, 3, 32, 32)), tmp_path / "x.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "x.onnx").graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Transpose") <= 1  # of the last layer's weight, by torch
    assert kinds.count("Conv") == sum(isinstance(m, nn.Conv3d) for m in model.modules())


@pytest.mark.parametrize("chunks", [1, 3])
def test_plain_forms_are_the_operators(chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "PAIRS_AT_ONCE", 7 * -(-12 // chunks))
    torch.manual_seed(0)
    a, b, g = (torch.randn(2, *s, dtype=torch.float64) for s in ((12,), (7,), (7, 5)))
    pairs = (a[:, :, None] + b[:, None]).clamp(min=0)  # (2, 12, 7)
    want = torch.einsum("npq,nqd->npd", pairs, g) / 7
    torch.testing.assert_close(plain.relu_sum(a, b, g, 1 / 7), want)
    torch.testing.assert_close(torch.ops.nonlocalnet.relu_sum(a, b, g, 1 / 7), want)
    theta, phi = torch.randn(2, 12, 3).double(), torch.randn(2, 7, 3).double()
    weights = torch.exp(torch.einsum("npc,nqc->npq", theta, phi))
    want = torch.einsum("npq,nqd->npd", weights / weights.sum(2, keepdim=True), g)
    torch.testing.assert_close(plain.softmax_rows(theta, phi, g, -(-12 // chunks)), want)


# --- the whole way


@pytest.fixture(scope="module")
def online() -> nn.Module:
    torch.manual_seed(0)
    options: Any = {"shift": "past", "causal": 3, "zero_init": "none"}
    model = uneven(create_model("tsm_tiny", 4, non_local="res3", **options))
    card = dataclasses.replace(card_of(model), classes=("a", "b", "c", "d"), gap=0.25)
    set_card(model, card)
    return model


@pytest.fixture(scope="module")
def file(online: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "online.onnx"
    done = export(online, path, stream=True, batch=2, size=24)
    assert done.proof.error < 1e-5
    assert (done.proof.clips, done.proof.steps) == (4, 12)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_reunion(tmp_path_factory.mktemp("videos") / "reunion", train=4, val=4) / "val"


def test_the_sidecar_says_how_to_use_it(file: Path, online: nn.Module) -> None:
    told = json.loads(file.with_suffix(".json").read_text())
    stream = Streaming(online)
    assert [row["name"] for row in told["inputs"]] == ["frame", *stream.names]
    assert told["states"] == [[name, f"next.{name}"] for name in stream.names]
    state = stream.start(torch.zeros(2, 3, 24, 24))
    assert [row["shape"] for row in told["inputs"][1:]] == [list(t.shape) for t in state]
    assert [f"torch.{row['type']}" for row in told["inputs"][1:]] == [str(t.dtype) for t in state]
    assert told["outputs"][0] == {"name": "logits", "type": "float32", "shape": [2, 4]}
    assert told["classes"] == ["a", "b", "c", "d"]
    assert (told["kind"], told["gap"], told["picture"]["crop"]) == ("stream", 0.25, 24)
    assert sorted(path.name for path in file.parent.iterdir()) == ["online.json", "online.onnx"]


def test_an_exported_stream_is_used_like_streaming(file: Path, online: nn.Module) -> None:
    opened, stream = open_network(file), Streaming(online)
    torch.manual_seed(1)
    frames = torch.randn(5, 2, 3, 24, 24)
    state, ours = opened.start(frames[0]), stream.start(frames[0])
    with torch.inference_mode():
        for frame in frames:
            logits, state = opened(frame, state)
            want, ours = stream(frame, ours)
            assert (logits - want).abs().max() < 1e-5 * want.std()
        assert torch.equal(opened(frames[0])[0], opened(frames[0], opened.start(frames[0]))[0])
    assert opened.names == stream.names
    assert card_of(opened) == dataclasses.replace(card_of(online), short_side=24, test_crop=24)
    with pytest.raises(UserError, match="exported for frames of 2 x 3 x 24 x 24, and they came"):
        opened.start(torch.zeros(1, 3, 24, 24))


def test_a_network_of_frames_predicts_clips(file: Path, online: nn.Module, videos: Path) -> None:
    """The mean over the frames of a clip, which is what the network was trained on."""
    exported = predict(of_clips(open_network(file)), [videos], top=4)
    small = copy.deepcopy(online)
    set_card(small, card_of(open_network(file)))
    for got, want in zip(exported, predict(small, [videos], top=4), strict=True):
        assert (got.path, got.labels, got.error) == (want.path, want.labels, None)
        assert got.scores == pytest.approx(want.scores, abs=1e-5)


def test_a_sidecar_that_is_missing_or_another_ones(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "online.onnx"
    copy.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="has no online.json beside it"):
        open_network(copy)
    beside = copy.with_suffix(".json")
    beside.write_text(file.with_suffix(".json").read_text())
    open_network(copy)
    copy.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(UserError, match="describes another network"):
        open_network(copy)
    for text in ("{}", "[1]", '{"format": "nonlocalnet-export-9"}', '{"format'):
        beside.write_text(text)
        with pytest.raises(UserError, match="cannot be used"):
            open_network(copy)
    with pytest.raises(UserError, match="no such file"):
        open_network(tmp_path / "gone.onnx")


def test_the_json_of_another_is_not_replaced(file: Path, online: nn.Module, tmp_path: Path) -> None:
    beside, words = tmp_path / "online.json", file.with_suffix(".json").read_text()
    for text, message in (("{}", "belongs to no exported network"), (words, "belongs to online")):
        beside.write_text(text)
        (tmp_path / "online.onnx").write_bytes(b"" if text == words else file.read_bytes())
        with pytest.raises(UserError, match=message):
            export(online, tmp_path / "online.pt2", stream=True)
        assert beside.read_text() == text
    assert not (tmp_path / "online.pt2").exists()
    check_sidecar(tmp_path / "online.onnx")  # its own
    beside.write_text("damaged")
    check_sidecar(tmp_path / "online.onnx")  # so that it can be exported again


def test_a_file_that_its_runtime_cannot_open(file: Path, tmp_path: Path) -> None:
    for suffix in (".onnx", ".pt2"):
        (tmp_path / f"x{suffix}").write_bytes(b"no graph")
        with pytest.raises(UserError, match="cannot open"):
            open_graph(tmp_path / f"x{suffix}")


def test_a_file_that_differs_is_not_written(
    online: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight of the graph is changed behind the exporter's back."""
    true = trace

    def wrong(model: nn.Module, *args: Any, **options: Any) -> Any:
        with torch.no_grad():
            model.model.fc.bias[0] += 0.01
        try:
            return true(model, *args, **options)
        finally:
            with torch.no_grad():
                model.model.fc.bias[0] -= 0.01

    monkeypatch.setattr("nonlocalnet.export.trace", wrong)
    with pytest.raises(UserError, match="gives other scores than the network"):
        export(online, tmp_path / "x.pt2", stream=True)
    assert not list(tmp_path.iterdir())


def test_endings_in_capitals_are_the_same(online: nn.Module, tmp_path: Path) -> None:
    export(online, tmp_path / "X.PT2", stream=True)
    assert "onnx" not in read_sidecar(tmp_path / "X.PT2").versions
    assert callable(open_network(tmp_path / "X.PT2").start)


def test_check_data_asks_a_network_of_frames_about_clips(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(checked: Any, model: nn.Module, *_: Any) -> list[str]:
        return [str(tuple(model(torch.zeros(3, 3, 2, 24, 24)).shape))]

    monkeypatch.setattr("nonlocalnet.check.doubts.contradict", asked)
    assert _ask(file, Any, "cpu") == ["(3, 4)"]


def test_half_precision_keeps_float32_at_the_door(online: nn.Module, tmp_path: Path) -> None:
    done = export(online, tmp_path / "x.pt2", stream=True, precision="fp16")
    assert 1e-5 < done.proof.error < 5e-2
    kinds = {port.name.rpartition(".")[2]: port.type for port in done.sidecar.inputs}
    assert kinds == {
        "frame": "float32",
        "cache": "float16",
        "keys": "float16",
        "values": "float16",
        "seen": "int64",
    }
    assert done.sidecar.outputs[0].type == "float32"


def test_int8_of_streams(online: nn.Module, videos: Path, tmp_path: Path) -> None:
    """Keys that a stream has not seen yet are hidden by -inf, which no range of 8 bits has."""
    done = export(
        online, tmp_path / "x.onnx", stream=True, precision="int8", calibrate=[videos], size=16
    )
    assert done.proof.clips == 2  # of four videos; the ranges come from the other two
    assert 1e-4 < done.proof.error < 0.5
    assert done.words[0].startswith("in float as before: ")
    assert "1 Softmax" in done.words[0]
    assert "Conv" not in done.words[0]


def test_clips_go_through_in_the_number_that_a_file_has(file: Path) -> None:
    seen = []

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        seen.append(len(inputs[0]))
        return [inputs[0].mean((2, 3, 4))]

    port = Port("clips", "float32", (2, 3, 4, 8, 8))
    sidecar = dataclasses.replace(read_sidecar(file), kind="clip", inputs=(port,))
    clips = torch.randn(5, 3, 4, 8, 8)
    assert torch.equal(ExportedClips(run, sidecar)(clips), clips.mean((2, 3, 4)))
    assert seen == [2, 2, 2]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("x.bin", {}, "ending in .onnx or .pt2"),
        ("x.onnx", {"batch": 0}, "a batch is a number from 1 on"),
        ("x.onnx", {"size": 0}, "a size is a number of pixels"),
        ("x.onnx", {"precision": "int8"}, "takes an .onnx file and --calibrate"),
        ("x.pt2", {"precision": "int8", "calibrate": "here"}, "takes an .onnx file"),
        ("x.onnx", {"calibrate": "nothing_here"}, "no video of nothing_here can be used"),
        ("x.onnx", {"stream": True}, "cannot run frame by frame"),
    ],
)
def test_what_cannot_be_exported(
    name: str, options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        export(create_model("tsm_tiny", 4), tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_drawn_clips_are_pictures_of_any_length() -> None:
    card = Card(frames=40, short_side=20, test_crop=16)
    clips = real_clips(card, None, False, lambda done, total: None)
    assert clips.shape == (4, 3, 40, 16, 16)
    assert clips.float().std() > 10  # of 255
    assert not torch.equal(clips[:, :, 0], clips[:, :, 10])


def test_the_comparison_sees_what_it_is_for() -> None:
    """A restart, a state that is not carried, and one class that changes are differences."""

    class Sums(nn.Module):
        def __init__(self, keep: float = 1) -> None:
            super().__init__()
            self.keep = keep

        def start(self, frame: Tensor) -> tuple[Tensor]:
            return (torch.zeros(len(frame), 3),)

        def forward(self, frame: Tensor, state: tuple[Tensor]) -> tuple[Tensor, tuple[Tensor]]:
            now = self.keep * state[0] + frame.mean((2, 3))
            return now, (now,)

    torch.manual_seed(0)
    batches = [torch.randn(2, 3, 8, 4, 4)]
    quiet = {"precision": "fp32", "progress": lambda done, total: None}
    assert prove(Sums(), Sums(), batches, **quiet).error == 0
    with pytest.raises(UserError, match="gives other scores"):
        prove(Sums(), Sums(0.99), batches, **quiet)


def test_a_network_that_mixes_frames_out_of_sight_is_refused(
    online: nn.Module, tmp_path: Path
) -> None:
    """Frame by frame, file and network would agree, and neither is what was trained on clips."""

    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = online

        def frames(self, x: Tensor) -> Tensor:
            y = self.body.frames(x)  # type: ignore[operator]
            return y - y.amax(1, keepdim=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.frames(x).mean(1)

    model = Mixes()
    set_card(model, card_of(online))
    with pytest.raises(UserError, match="something in it mixes frames"):
        export(model, tmp_path / "x.onnx", stream=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_mobilenet_frame_by_frame_in_onnx_runtime(tmp_path: Path) -> None:
    """The network of phones and cameras, and mit's ten caches."""
    torch.manual_seed(0)
    model = uneven(create_model("tsm_mobilenetv2", 27, shift="past"))
    done = export(model, tmp_path / "x.onnx", stream=True, size=64)
    assert done.proof.error < 1e-4
    channels = [port.shape[1] for port in done.sidecar.inputs[1:]]
    assert channels == [3, 4, 4, 8, 8, 8, 12, 12, 20, 20]


def test_a_network_of_clips_does_not_go_by_frames(online: nn.Module) -> None:
    sidecar = Sidecar("x.onnx", "", "clip", "fp32", (), (), card_of(online))
    exported = ExportedClips(lambda inputs: [], sidecar)
    assert ready(exported) is exported
    with pytest.raises(UserError, match="exported for clips; export it with --stream"):
        ready(exported, "frame")

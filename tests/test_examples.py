"""The runners of examples/: what they answer at every step, against the network in torch."""

from __future__ import annotations

import base64
import dataclasses
import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import browser
import numpy as np
import pytest
import torch
import video_files
from numpy.typing import NDArray
from torch import Tensor

from nonlocalnet import transforms
from nonlocalnet.card import Card, set_card
from nonlocalnet.head import head_of
from nonlocalnet.models import create_model
from nonlocalnet.streaming import Streaming
from nonlocalnet.transforms import normalize
from nonlocalnet.video import Video, write_video

pytest.importorskip("onnxruntime", reason='needs pip install "nonlocalnet[export]"')

import stream  # examples/stream.py

from nonlocalnet.export import export

EXAMPLES = Path(stream.__file__).parent
CLASSES = ("red, left", "red, right", "blue, left", "blue, right")
COLOURS = ((220, 60, 50), (50, 90, 230))
FPS, STEPS, GAP = 20, 40, 0.1  # so every second picture is a step; the others are white
LOOK = {"short_side": 36, "test_crop": 32, "mean": (0.5, 0.4, 0.45), "std": (0.2, 0.25, 0.3)}


class Case(NamedTuple):
    """A network as a file, what it stands for in torch, and the right answers on a film."""

    network: Path
    film: Path
    sidecar: dict[str, Any]
    seconds: list[float]
    logits: NDArray[np.float32]  # (STEPS, classes)


def draw() -> tuple[Tensor, Tensor]:
    """A disc that walks to and fro and changes colour: (2 STEPS, 72, 96, 3), labels (STEPS,)."""
    frames = torch.full((2 * STEPS, 72, 96, 3), 255, dtype=torch.uint8)
    down, across = torch.meshgrid(torch.arange(72), torch.arange(96), indexing="ij")
    labels, x = [], 40
    for step in range(STEPS):
        right, blue = step // 6 % 2, step // 9 % 2
        x += 5 if right else -5
        frames[2 * step] = 90
        frames[2 * step][(down - 36) ** 2 + (across - x - 15) ** 2 < 150] = torch.tensor(
            COLOURS[blue], dtype=torch.uint8
        )
        labels.append(2 * blue + right)
    return frames, torch.tensor(labels)


def clip_of(film: Path, card: Card) -> Tensor:
    """The steps of the film, prepared as everywhere in nonlocalnet: (1, 3, STEPS, S, S)."""
    with Video(film) as video:
        return normalize(transforms.test_crops(video.frames(range(0, 2 * STEPS, 2)), card, 1), card)


def solve(model: torch.nn.Module, clip: Tensor, labels: Tensor) -> None:
    """Choose the head that tells the film's steps apart, by least squares: no training."""
    seen: list[Tensor] = []
    head = head_of(model)
    hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model.frames(clip)  # type: ignore[operator]
        hook.remove()
        features = seen[0].reshape(STEPS, -1)
        middle, spread = features.mean(0), features.std(0) + 1e-3
        told = (features - middle) / spread
        wanted = 4 * torch.eye(len(CLASSES))[labels] - 1
        square = told.T @ told + 0.3 * torch.eye(told.shape[1])
        weight = torch.linalg.solve(square, told.T @ wanted).T / spread
        head.weight.copy_(weight)
        head.bias.copy_(wanted.mean(0) - weight @ middle)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("stream")
    film, network = folder / "film.mp4", folder / "online.onnx"
    frames, labels = draw()
    write_video(film, frames, FPS, crf=8)
    torch.manual_seed(0)
    blocks = {"causal": 3, "zero_init": "none"}
    model = create_model("tsm_tiny", 4, ("layer2.0",), shift="past", **blocks).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.ones_(module.weight)  # so that every branch says something
    set_card(model, dataclasses.replace(model.card, classes=CLASSES, gap=GAP, frames=4, **LOOK))
    clip = clip_of(film, model.card)
    solve(model, clip, labels)
    export(model, network, stream=True)
    running, state, logits = Streaming(model), None, []
    with torch.no_grad():
        for frame in clip.unbind(2):
            answer, state = running(frame, state)
            logits.append(answer[0].numpy())
    sidecar = json.loads(network.with_suffix(".json").read_text("utf-8"))
    return Case(network, film, sidecar, [i * GAP for i in range(STEPS)], np.stack(logits))


def margin(logits: NDArray[Any]) -> float:
    """How far the best class is ahead, at the step where it is least."""
    first, second = np.sort(logits, 1)[:, :-3:-1].T
    return float((first - second).min())


def test_the_case_tells_what_it_should(case: Case) -> None:
    assert (case.logits.argmax(1) == draw()[1].numpy()).all()
    assert margin(case.logits) > 0.5
    with Video(case.film) as video:
        assert float(video.frames([1]).float().mean()) > 250  # a wrong frame would be noticed


def test_python_answers_as_torch(case: Case) -> None:
    found = stream.answers(str(case.network), case.sidecar, str(case.film))
    seconds, logits = zip(*found, strict=True)
    assert seconds == pytest.approx(case.seconds)
    error = np.abs(np.stack(logits) - case.logits).max() / case.logits.std()
    assert error < 1e-4


def test_python_prints_and_needs_no_torch(case: Case) -> None:
    code = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    code += "; print({'torch', 'nonlocalnet'} & set(sys.modules))"
    command = [sys.executable, "-c", code, EXAMPLES / "stream.py", case.network, case.film]
    *lines, loaded = subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert loaded == "set()"
    assert len(lines) == STEPS
    for step, line in enumerate(lines):
        recent = torch.from_numpy(case.logits[max(0, step - 3) : step + 1]).mean(0)
        best = recent.softmax(0).max(0)
        seconds, score, name = line.split(maxsplit=2)
        assert float(seconds) == pytest.approx(case.seconds[step], abs=0.006)
        assert name == CLASSES[best.indices]
        assert float(score) == pytest.approx(float(best.values), abs=0.002)


@pytest.mark.parametrize(
    ("height", "width", "short", "crop"),
    [
        (72, 96, 32, 32),
        (480, 270, 256, 224),
        (33, 31, 32, 24),
        (20, 30, 64, 64),
        (224, 300, 224, 224),
        (900, 700, 40, 24),
    ],
)
def test_pictures_are_prepared_to_the_last_bit(
    height: int, width: int, short: int, crop: int
) -> None:
    card = Card(short_side=short, test_crop=crop, mean=LOOK["mean"], std=LOOK["std"])
    picture = torch.randint(
        256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    look = {"short_side": short, "crop": crop, "mean": card.mean, "std": card.std}
    wanted = normalize(transforms.test_crops(picture[None], card, 1), card)[:, :, 0]
    np.testing.assert_array_equal(stream.prepared(picture.numpy(), look), wanted.numpy())


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (1, 0, 0, 1)])
def test_every_frame_upright_where_the_pace_is_unknown(
    matrix: tuple[int, int, int, int], tmp_path: Path
) -> None:
    video_files.encode(tmp_path / "plain.mp4", frames=5)
    video_files.turn(tmp_path / "plain.mp4", tmp_path / "turned.mp4", matrix)
    shown = list(stream.pictures(str(tmp_path / "turned.mp4")))
    with Video(tmp_path / "turned.mp4") as video:
        np.testing.assert_array_equal([p for _, p in shown], video.frames(range(5)).numpy())
        assert [t for t, _ in shown] == pytest.approx(video.timestamps.tolist())


def test_slow_films_show_a_picture_for_several_steps(tmp_path: Path) -> None:
    video_files.encode(tmp_path / "film.mp4", frames=5)  # 25 a second
    shown = stream.pictures(str(tmp_path / "film.mp4"), gap=0.03)
    assert [video_files.number_of(picture) for _, picture in shown] == [0, 0, 1, 2, 3, 3, 4]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and tells nobody."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(case: Case) -> Iterator[str]:
    """The page, the network and the film at an address of this machine."""
    folder = case.network.parent
    shutil.copy(EXAMPLES / "stream.html", folder)
    if (EXAMPLES / "ort").exists():
        (folder / "ort").symlink_to(EXAMPLES / "ort")
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# What the page answers, and what the browser showed it, in the middle of that very picture.
LISTEN = """
steps = [];
addEventListener("answer", ({ detail }) => {
  const video = document.querySelector("video"), canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const bytes = Array.from(data, byte => String.fromCharCode(byte)).join("");
  steps.push({ ...detail, pixels: btoa(bytes), best: document.querySelector("li").innerText });
});
"""


@pytest.fixture(scope="module")
def tab(chromium: Any, site: str) -> Iterator[Any]:
    """A tab that may reach nothing but this machine."""
    if not (EXAMPLES / "ort").exists():
        pytest.skip("no ONNX Runtime Web in examples/ort: `make browser` fetches it by npm")
    page = chromium.new_page()
    page.set_default_timeout(15_000)
    browser.confine(page, site)
    page.add_init_script(LISTEN)
    yield page
    page.close()


@pytest.fixture(scope="module")
def steps(tab: Any, site: str) -> list[dict[str, Any]]:
    """What the page says of the film, step by step."""
    tab.goto(f"{site}/stream.html?network=online.onnx&video=film.mp4&fast")
    tab.wait_for_function("document.querySelector('#words').innerText === 'The film is over.'")
    found: list[dict[str, Any]] = tab.evaluate("steps")
    return found


def test_browser_answers_as_python(case: Case, steps: list[dict[str, Any]]) -> None:
    assert [step["seconds"] for step in steps] == pytest.approx(case.seconds)
    logits = np.array([step["logits"] for step in steps])
    # browsers turn H.264's colours into RGB by other roundings than FFmpeg
    difference, ahead = float(np.abs(logits - case.logits).max()), margin(case.logits)
    print(f"\n{STEPS} steps: logits differ by {difference:.3f}, the best is ahead by {ahead:.3f}")
    assert (logits.argmax(1) == case.logits.argmax(1)).all()
    assert difference < ahead / 2
    for step, row in enumerate(steps):  # what is shown is the mean of the last 4
        best = logits[max(0, step - 3) : step + 1].mean(0).argmax()
        assert row["best"].startswith(CLASSES[best])


def test_browser_computes_as_python_on_the_same_pictures(
    case: Case, steps: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [np.frombuffer(base64.b64decode(step["pixels"]), np.uint8) for step in steps]
    rgb = [rgba.reshape(72, 96, 4)[..., :3] for rgba in shown]
    monkeypatch.setattr(stream, "pictures", lambda *_: zip(case.seconds, rgb, strict=True))
    answers = stream.answers(str(case.network), case.sidecar, "")
    wanted = np.stack([logits for _, logits in answers])
    found = np.array([step["logits"] for step in steps])
    assert np.abs(found - wanted).max() / wanted.std() < 1e-4


def test_browser_on_the_camera(tab: Any, site: str) -> None:
    tab.goto(f"{site}/stream.html?network=online.onnx")
    tab.wait_for_function("document.querySelector('#words').innerText.includes('Choose a film')")
    assert tab.input_value("#rate") == "10"
    tab.evaluate(  # not the clock of a busy machine: 25 pictures a second, and one pause
        """clock = 0; HTMLVideoElement.prototype.requestVideoFrameCallback =
            done => setTimeout(() => done(clock += steps.length === 6 ? 1000 : 40), 5)"""
    )
    tab.click("#camera")
    tab.wait_for_function("steps.length >= 9")
    steps = tab.evaluate("steps.slice(0, 9)")
    # the first picture from each tenth on; what a second's pause has left out is not made up for
    wanted = [0, 0.12, 0.2, 0.32, 0.4, 0.52, 1.52, 1.6, 1.68]
    assert [step["seconds"] for step in steps] == pytest.approx(wanted)
    assert np.isfinite([step["logits"] for step in steps]).all()
    assert "steps a second" in tab.inner_text("#pace")


def test_browser_takes_chosen_files_and_says_what_is_wrong(
    case: Case, tab: Any, site: str, tmp_path: Path
) -> None:
    def words(part: str) -> None:
        tab.wait_for_function(f"document.querySelector('#words').innerText.includes('{part}')")

    side = case.network.with_suffix(".json")
    tab.goto(f"{site}/stream.html?fast")
    tab.set_input_files("#film", case.film)
    words("Choose a network first.")
    tab.set_input_files("#files", case.network)
    words("Choose both files at once")
    clip = tmp_path / "clip.json"
    clip.write_text(json.dumps({**case.sidecar, "kind": "clip"}))
    tab.set_input_files("#files", [case.network, clip])
    words("export one with --stream")
    tab.set_input_files("#files", [case.network, side])
    words("Choose a film or the camera.")
    tab.set_input_files("#film", case.network)
    words("cannot show that film")
    tab.set_input_files("#film", case.film)
    words("The film is over.")
    tab.goto(f"{site}/stream.html?network=missing.onnx")
    words("missing.onnx: 404")
    tab.goto(f"{site}/stream.html?network=online.onnx&ort=nowhere/")
    words("ONNX Runtime Web is not in")

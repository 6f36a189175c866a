"""From a network to a file that other programs run: traced, written, compared, and only then there.

program.py   the network as one graph of torch's operators, and as ONNX
layout.py    that ONNX with frames as they are, so that its runtime is quick
int8.py      in 8 bits
frames.py    real clips
proof.py     the file beside the network, on those clips
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn

from ..card import Card, card_of, set_card
from ..errors import UserError
from ..exported import SUFFIXES, ExportedClips, ExportedStream, open_graph
from ..files import check_place, write_text
from ..inputs import Paths
from ..models import IMAGE_MODELS
from ..sidecar import ExportPrecision, Kind, Sidecar, check_sidecar, digest_of, sidecar_path
from ..streaming import Streaming
from ..transforms import normalize
from .frames import Progress, real_clips
from .program import Traced, trace, write_onnx, write_pt2
from .proof import Proof, prove, same_on_clips

Bar = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Export:
    """What was written: the network's file, the JSON beside it, how it compares; words to tell."""

    path: Path
    sidecar: Sidecar
    proof: Proof
    words: tuple[str, ...]


def _no_bar(name: str) -> AbstractContextManager[Progress]:
    return nullcontext(lambda done, total: None)


def export(
    model: nn.Module,
    path: str | Path,
    *,
    stream: bool = False,
    precision: ExportPrecision = "fp32",
    batch: int | None = 1,
    size: int | None = None,
    calibrate: Paths | None = None,
    bar: Bar = _no_bar,
) -> Export:
    """Write a network as .onnx or .pt2, and a .json beside it that says how to use it.

    The file is written only if it computes what the network does, on real frames: videos of
    `calibrate`, or clips drawn here.

    Args:
        model: a network of `create_model` or `load`, with its card.
        path: OUT.onnx, or OUT.pt2 for `torch.export`.
        stream: the network frame by frame, its states named inputs and outputs; see `Streaming`.
        precision: "fp32", "fp16", or "int8", which is for .onnx and needs `calibrate`.
        batch: clips or streams at once; None is any number.
        size: height and width of its pictures; None is what the card tests with. The short side
            changes in proportion, so the same part of a picture is seen.
        calibrate: videos like those that the network is for, see `find_videos`.
        bar: makes a progress bar of a name.

    Raises:
        UserError: options that do not fit, a network that cannot run frame by frame or has no such
            graph, a file that gives other scores, a place that cannot be written.
    """
    path, card = Path(path), _resized(card_of(model), size)
    _check(path, card, precision, batch, calibrate)
    check_place(path)
    check_sidecar(path)
    network = copy.deepcopy(model).cpu().float().eval()
    with bar("reading clips") as progress:
        clips = real_clips(card, calibrate, stream, progress)
    if stream:
        network = same_on_clips(Streaming(network), network, normalize(clips[:1], card))
    set_card(network, card)
    example = normalize(clips[:1], card).expand(2 if batch is None else batch, -1, -1, -1, -1)
    example = (example[:, :, 0] if stream else example[:, :, : card.frames]).contiguous()
    traced = trace(network, example, half=precision == "fp16", free=batch is None)
    kind: Kind = "stream" if stream else "clip"
    ports = traced.inputs, traced.outputs
    sidecar = Sidecar(path.name, "", kind, precision, *ports, card, versions=_versions(path))
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made, batches = Path(folder) / path.name, _batches(clips, card, batch)
        # ranges of some videos, a comparison on others
        others = batches[1::2] if precision == "int8" and len(batches) > 1 else batches
        opset, words = _write(traced, made, sidecar, batches[::2])
        with bar("comparing") as progress:
            proof = prove(network, _opened(made, sidecar), others, precision, progress)
        sidecar = dataclasses.replace(
            sidecar, opset=opset, digest=digest_of(made), verified=proof.to_dict()
        )
        made.replace(path)
    write_text(sidecar_path(path), sidecar.to_json())
    return Export(path, sidecar, proof, (*words, *_told(path, sidecar, proof)))


def _check(
    path: Path, card: Card, precision: str, batch: int | None, calibrate: Paths | None
) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"an export is a file ending in .onnx or .pt2; it came as {str(path)!r}")
    if batch is not None and batch < 1:
        raise UserError(f"a batch is a number from 1 on, or None for any; it came as {batch}")
    if card.architecture.get("name") in IMAGE_MODELS:
        raise UserError(f"{card.architecture['name']} is a network of images; export is for videos")
    if precision == "int8" and (path.suffix.lower() != ".onnx" or calibrate is None):
        raise UserError(
            "int8 is made by ONNX Runtime from the ranges that real videos give: it takes an .onnx"
            " file and --calibrate, a folder of videos like those that the network is for"
        )


def _resized(card: Card, size: int | None) -> Card:
    if size is None:
        return card
    if size < 1:
        raise UserError(f"a size is a number of pixels from 1 on; it came as {size}")
    short = round(size * card.short_side / card.test_crop)
    return dataclasses.replace(card, short_side=short, test_crop=size)


def _batches(clips: Tensor, card: Card, batch: int | None) -> list[Tensor]:
    """Clips (V, 3, T, S, S) uint8 -> normalised, as many at once as go through; some twice."""
    at_once = batch or min(3, len(clips))
    count = -(-len(clips) // at_once) * at_once
    return [normalize(clips[i % len(clips)], card) for i in torch.arange(count).split(at_once)]


def _write(
    traced: Traced, made: Path, sidecar: Sidecar, batches: list[Tensor]
) -> tuple[int | None, list[str]]:
    """Write the file. Returns the version of its operators, and what there is to tell."""
    if made.suffix.lower() == ".pt2":
        write_pt2(traced, made)
        return None, []
    if sidecar.precision != "int8":
        return write_onnx(traced, made), []
    from .int8 import quantize

    source = made.with_name("fp32.onnx")
    opset = write_onnx(traced, source)
    names = [port.name for port in sidecar.inputs]
    left = quantize(source, made, _opened(source, sidecar), names, batches)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(left.items())) or "nothing"
    return opset, [f"in float as before: {kinds}"]


def _opened(path: Path, sidecar: Sidecar) -> nn.Module:
    kind = ExportedStream if sidecar.kind == "stream" else ExportedClips
    return kind(open_graph(path), sidecar)


def _versions(path: Path) -> dict[str, str]:
    names = ["nonlocalnet", "torch"]
    if path.suffix.lower() == ".onnx":
        names += ["onnx", "onnxscript", "onnxruntime"]
    from .. import __version__

    found = {name: metadata.version(name) for name in names[1:]}
    return {"nonlocalnet": __version__, **found}


def _told(path: Path, sidecar: Sidecar, proof: Proof) -> list[str]:
    shapes = " x ".join(map(str, sidecar.inputs[0].shape))
    states = len(sidecar.inputs) - 1
    what = f"{shapes}" + (f" and {states} states" if states else "")
    count = f"{proof.clips} clips" + (f" of {proof.steps} frames" if proof.steps else "")
    return [
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, {sidecar.precision}, takes {what}",
        f"against torch on {count}: largest difference {proof.error:.1e} of the logits' deviation"
        f" ({proof.bound:g} is let through), root mean square {proof.mean:.1e}, same best class in"
        f" {proof.agreement:.1%}",
    ]

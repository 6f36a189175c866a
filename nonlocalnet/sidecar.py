"""What lies beside an exported network, as JSON: everything that a program without torch needs.

`docs/export.md` describes its fields. The network's card is one of them; those about the picture,
the classes and the pace say the same once more in words that need no nonlocalnet to understand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .card import Card
from .errors import UserError

Kind = Literal["clip", "stream"]
ExportPrecision = Literal["fp32", "fp16", "int8"]
Size = int | str  # of an axis; "batch" where it is free

FORMAT = "nonlocalnet-export-1"
BATCH = "batch"


@dataclass(frozen=True)
class Port:
    """One input or output of a graph: its name, its type as NumPy names it, its shape."""

    name: str
    type: str
    shape: tuple[Size, ...]


@dataclass(frozen=True)
class Sidecar:
    """A network as a file, and how it is used.

    file, digest: the name of the network's file beside this one, and the SHA-256 of its bytes.
    inputs, outputs: the picture or clip and the logits first; a stream's states follow, each
        output in the place of the input that it is fed to at the next frame.
    opset: of ONNX; None for a .pt2. versions: of what made it. verified: how it was compared.
    """

    file: str
    digest: str
    kind: Kind
    precision: ExportPrecision
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    card: Card
    opset: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    verified: dict[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int | None:
        """How many clips or frames go through at once; None is any number."""
        size = self.inputs[0].shape[0]
        return size if isinstance(size, int) else None

    def to_json(self) -> str:
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        own |= {key: [dataclasses.asdict(port) for port in own[key]] for key in _PORTS}
        own["card"] = dataclasses.asdict(self.card)
        return json.dumps({"format": FORMAT, **own, **_in_words(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Sidecar:
        """What `to_json` wrote. Raises `UserError` for anything else."""
        try:
            told = json.loads(text)
            if told["format"] != FORMAT:
                raise UserError(f"it has the format {told['format']!r}, and this reads {FORMAT!r}")
            own = {f.name: told[f.name] for f in dataclasses.fields(cls)}
            own |= {key: tuple(_port(row) for row in told[key]) for key in _PORTS}
            own["card"] = Card.from_json(json.dumps(told["card"]))
            return cls(**own)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError("it is not what `nonlocalnet export` writes, or damaged") from error


_PORTS = ("inputs", "outputs")


def _port(row: dict[str, Any]) -> Port:
    return Port(row["name"], row["type"], tuple(row["shape"]))


def _in_words(sidecar: Sidecar) -> dict[str, Any]:
    """The card in terms of pictures, for those who do not read cards."""
    card, (*_, outputs) = sidecar.card, sidecar.outputs[0].shape
    stream = sidecar.kind == "stream"
    return {
        "states": [
            [before.name, after.name]
            for before, after in zip(sidecar.inputs[1:], sidecar.outputs[1:], strict=True)
        ],
        "picture": {
            "short_side": card.short_side,
            "crop": card.test_crop,
            "mean": card.mean,
            "std": card.std,
            "colour": "RGB",
            "layout": "NCHW" if stream else "NCTHW",
        },
        "classes": [card.class_name(i) for i in range(int(outputs))],
        "activation": card.activation,
        "frames": card.frames,
        "stride": card.stride if card.sampling == "dense" else 0,
        "gap": card.gap,
    }


def sidecar_path(network: Path) -> Path:
    return network.with_suffix(".json")


def check_sidecar(network: Path) -> None:
    """Before long work: raises `UserError` where the JSON of an export would replace another's."""
    path = sidecar_path(network)
    try:
        owner = Sidecar.from_json(path.read_text(encoding="utf-8")).file
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, UserError):
        owner = network.name if network.is_file() and path.is_file() else ""
    if not owner:
        raise UserError(
            f"{path} is there already and belongs to no exported network; {network} would replace"
            " it, so give it another name"
        )
    if owner != network.name and path.with_name(owner).exists():
        raise UserError(
            f"{path} belongs to {owner}; {network} would replace it, so give it another name"
        )


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sidecar(network: Path) -> Sidecar:
    """What lies beside the file of an exported network.

    Raises `UserError` if nothing does, or something that belongs to another network.
    """
    path = sidecar_path(network)
    try:
        sidecar = Sidecar.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{network} has no {path.name} beside it, which says what its numbers mean;"
            " `nonlocalnet export` writes both, so copy both"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}; export the network again") from None
    if sidecar.digest != digest_of(network):
        raise UserError(
            f"{path} describes another network than {network} holds; copy the two that were"
            " exported together, or export again"
        )
    return sidecar

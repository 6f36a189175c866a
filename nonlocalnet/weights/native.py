"""Our own checkpoints: safetensors whose metadata is the network's card. No code is executed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from safetensors.torch import save as serialize
from torch import Tensor, nn

from ..card import Card, card_of, set_card
from ..errors import UserError
from . import selftest
from .assemble import assemble, build
from .container import Container
from .differ import compare

FORMAT = "nonlocalnet-1"


def save(model: nn.Module, path: str | Path, *, prove: bool = False) -> None:
    """Write a network made by `create_model` or `load` with its card, atomically.

    `prove` adds what the network gives for a seeded clip, which `load(verify=True)` compares with.

    Raises:
        UserError: no card, a network edited beyond what its card says, or a pairwise function of
            the user's own, which a file cannot hold.
    """
    path = Path(path)
    card, tensors = writable(model, path)
    metadata = {"format": FORMAT, "card": card.to_json()}
    if prove:
        metadata["selftest"] = selftest.record(model)
    partial = path.with_name(path.name + ".partial")
    try:
        # not save_file, which lets only the owner read what it writes
        partial.write_bytes(serialize(tensors, metadata))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error}") from error


def writable(model: nn.Module, path: Path) -> tuple[Card, dict[str, Tensor]]:
    """The card and tensors that a file of a network holds. Raises `UserError` as `save` does."""
    card = card_of(model)
    pairwise = card.architecture.get("pairwise", "")
    if not isinstance(pairwise, str):
        raise UserError(
            f"a checkpoint names its pairwise function, and {pairwise!r} has no name here: save"
            " model.state_dict() yourself and load it into the network you build"
        )
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    misfit = compare(build(card.architecture, path).state_dict(), tensors)
    if misfit:
        raise UserError(
            f"{path} is not written, since load() could not read it: the network is not what its"
            f" card's architecture says; make it with create_model's own arguments, or save"
            f" model.state_dict() yourself. What differs:\n{misfit}"
        )
    return card, tensors


def is_native(container: Container) -> bool:
    return container.notes.get("format") == FORMAT and "card" in container.notes


def load_native(container: Container, path: Path, num_classes: int | None) -> nn.Module:
    """The network of one of our files, on the CPU; see `weights.load`."""
    card = Card.from_json(container.notes["card"])
    classes = card.architecture.get("num_classes")
    new_head = num_classes is not None and num_classes != classes
    if new_head:
        architecture = {**card.architecture, "num_classes": num_classes}
        card = dataclasses.replace(card, architecture=architecture, classes=())
    model = assemble(card.architecture, container.tensors, path, new_head=new_head)
    set_card(model, card)
    return model

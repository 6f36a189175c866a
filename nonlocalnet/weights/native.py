"""Our own checkpoints: safetensors whose metadata is the network's card. No code is executed."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from ..card import Card, card_of, set_card
from ..errors import UserError
from ..models import create_model

FORMAT = "nonlocalnet-1"


def save(model: nn.Module, path: str | Path) -> None:
    """Write a network made by `create_model` with its card, atomically.

    Raises:
        UserError: no card, a network edited beyond what its card says, or a pairwise function of
            the user's own, which a file cannot hold.
    """
    card = card_of(model)
    pairwise = card.architecture.get("pairwise", "")
    if not isinstance(pairwise, str):
        raise UserError(
            f"a checkpoint names its pairwise function, and {pairwise!r} has no name here: save"
            " model.state_dict() yourself and load it into the network you build"
        )
    path = Path(path)
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    with torch.device("meta"):
        wanted = _build(card, path).state_dict()
    misfit = _compare(wanted, tensors)
    if misfit:
        raise UserError(
            f"{path} is not written, since load() could not read it: the network is not what its"
            f" card's architecture says ({misfit}); make it with create_model's own arguments, or"
            " save model.state_dict() yourself"
        )
    partial = path.with_name(path.name + ".partial")
    try:
        # not save_file, which lets only the owner read what it writes
        partial.write_bytes(serialize(tensors, {"format": FORMAT, "card": card.to_json()}))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error}") from error


def load(path: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """A network from its checkpoint, or from a run folder holding model.safetensors.

    The network is in eval mode, ready to take normalised clips (N, 3, T, H, W); its `card` says
    which frames, size, colours, views and class names it was made for.

    Raises:
        UserError: no such file, no checkpoint of ours, or tensors that do not fit its card.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        kind = "a run folder without model.safetensors" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {kind}; give a run made by `nonlocalnet train` or a checkpoint")
    card, tensors = _read(file)
    model = _build(card, file)
    misfit = _compare(model.state_dict(), tensors)
    if misfit:
        raise UserError(f"{file} does not fit the network its card names: {misfit}")
    model.load_state_dict(tensors)
    set_card(model, card)
    return model.eval().to(device)


def _build(card: Card, file: Path) -> nn.Module:
    try:
        return create_model(**card.architecture)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: its card names a network that cannot be built: {error}") from None


def _read(file: Path) -> tuple[Card, dict[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is no safetensors file, or a damaged one: {error}") from None
    if metadata.get("format") != FORMAT or "card" not in metadata:
        raise UserError(
            f"{file} carries no nonlocalnet card, so nothing says what network it is; this version"
            " loads the checkpoints that `nonlocalnet train` and save() write"
        )
    return Card.from_json(metadata["card"]), tensors


def _compare(wanted: dict[str, Tensor], tensors: dict[str, Tensor]) -> str:
    """How the names and shapes of two state dicts differ, in words; empty if they do not."""
    missing = sorted(set(wanted) - set(tensors))
    unexpected = sorted(set(tensors) - set(wanted))
    unfit = sorted(
        f"{n} {tuple(tensors[n].shape)} for {tuple(wanted[n].shape)}"
        for n in set(wanted) & set(tensors)
        if wanted[n].shape != tensors[n].shape
    )
    rows = [("missing", missing), ("unexpected", unexpected), ("other shape", unfit)]
    return "; ".join(
        f"{what}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''} ({len(names)})"
        for what, names in rows
        if names
    )

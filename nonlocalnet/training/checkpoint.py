"""The state of an unfinished run on disk: complete, and whole or not there at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import UserError

VERSION = 2  # raised when the contents change their meaning


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a dictionary of plain values and tensors; until it is whole, the old file stays.

    Raises `UserError` when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save({"version": VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    # torch reports a failed write as a RuntimeError where its own writer meets it
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises `UserError` if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        here = next(each for each in (path, *path.parents) if each.exists())
        raise UserError(
            f"cannot write {path}: {here} is a file; choose another folder with -o"
        ) from error
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> UserError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else None
    return UserError(
        f"cannot write {path}: {reason or _first_line(error)}; what was written before is unharmed,"
        " so make room or choose another folder with -o"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["nothing in it"])[0]


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote, with tensors on the CPU. No code in the file is run.

    Raises `UserError` for a file that is missing, damaged or of another version.
    """
    try:
        with path.open("rb") as file:
            state = _load(path, file)
    except FileNotFoundError as error:
        raise UserError(f"there is no checkpoint {path}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        found = state.get("version") if isinstance(state, dict) else None
        raise UserError(
            f"{path} is a checkpoint of version {found}, and this nonlocalnet reads {VERSION}:"
            " resume with the version that wrote it"
        )
    return state


def _load(path: Path, file: IO[bytes]) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    # what a damaged file makes of the readers inside has no end of kinds, ValueError among them
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, pickle.UnpicklingError) as e:
        raise UserError(
            f"{path} cannot be read as a checkpoint: the file is damaged or none of ours; put back"
            " a copy of it if there is one, else begin again in a new folder with -o, which may"
            " start from the best weights of this run by --pretrained"
        ) from e


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The generators that dropout draws from, on the CPU and on the device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put the generators back to where `random_state` found them, as far as they are here."""
    # clone: setting a state from a view into a larger storage restores a wrong one
    torch.set_rng_state(state["cpu"].clone())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].clone(), device)

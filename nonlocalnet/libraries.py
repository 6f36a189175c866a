"""Image networks of torchvision and timm by name; a library is imported when asked for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Library:
    """A library of image networks: how its module is asked, and the extra that installs it."""

    module: str
    extra: str
    names: Callable[[Any], list[str]]
    make: Callable[[Any, str], nn.Module]
    trained: Callable[[Any, str], Mapping[str, Tensor]]

    def open(self) -> Any:
        """Raises ImportError, naming the extra, where the library is not installed."""
        try:
            return import_module(self.module)
        except ImportError as error:
            raise ImportError(
                f"networks of {self.module} need it, and it does not import here ({error});"
                f' pip install "nonlocalnet[{self.extra}]"'
            ) from error


LIBRARIES: dict[str, Library] = {
    "torchvision": Library(
        "torchvision",
        "train",
        lambda torchvision: torchvision.models.list_models(module=torchvision.models),
        lambda torchvision, name: torchvision.models.get_model(name),
        lambda torchvision, name: torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(
            progress=True, check_hash=True
        ),
    ),
    "timm": Library(
        "timm",
        "timm",
        lambda timm: timm.list_models(),
        lambda timm, name: timm.create_model(name),
        lambda timm, name: timm.create_model(name, pretrained=True).state_dict(),
    ),
}


def image_network(library: str, name: str) -> nn.Module:
    """An image network by its name in a library, with random weights.

    Raises:
        ValueError: a name that the library has not.
        ImportError: the library is not installed.
    """
    source = LIBRARIES[library]
    package = source.open()
    known = source.names(package)
    if name.partition(".")[0] not in known:  # timm's names may end in a dot and a tag of weights
        near = get_close_matches(name, known, 3)
        more = f"; near it are {', '.join(near)}" if near else ""
        raise ValueError(f"{library} has no image network {name!r}{more}")
    try:
        return source.make(package, name)
    except RuntimeError as error:
        raise ValueError(f"{library} cannot make {name!r}: {error}") from None


def trained_weights(library: str, name: str) -> dict[str, Tensor]:
    """The library's own trained weights of a network, its head included, from the internet.

    Raises:
        ValueError: it has none for that network.
        OSError: they cannot be fetched.
        ImportError: the library is not installed.
    """
    source = LIBRARIES[library]
    try:
        return dict(source.trained(source.open(), name))
    except RuntimeError as error:
        raise ValueError(f"{library} has no trained weights of {name!r}: {error}") from None


def colours(network: nn.Module) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of its training, as fields of a card, where the network says them."""
    said = getattr(network, "pretrained_cfg", None) or {}
    return {key: tuple(said[key]) for key in ("mean", "std") if len(said.get(key, ())) == 3}

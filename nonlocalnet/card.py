"""What a network needs to be used right: a small value that travels inside its checkpoint."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import nn

from .errors import UserError

Sampling = Literal["dense", "segments"]
Beyond = Literal["clamp", "wrap"]
Starts = Literal["fit", "floor", "slack", "share"]
Window = Literal["span", "full", "spread"]
Aggregate = Literal["softmax", "logits", "max"]
Activation = Literal["softmax", "sigmoid"]
Cropping = Literal["jitter", "tsn", "mmaction"]

_CHOICES = {
    "sampling": Sampling,
    "beyond": Beyond,
    "starts": Starts,
    "window": Window,
    "aggregate": Aggregate,
    "activation": Activation,
    "cropping": Cropping,
}
WHOLE = 0  # as a number of crops: the whole frame, which the paper tests on
CROPS = (WHOLE, 1, 3, 5, 6, 10)


@dataclass(frozen=True)
class Card:
    """Class names, preprocessing and view rule of one network.

    The defaults are the paper's (section 4): 32 frames, every second one, a 224 crop out of a
    short side of 256 to 320, softmax scores averaged over 10 clips. The paper tests each clip on
    the whole frame; 3 crops of 256 are what its authors' code, PySlowFast and MMAction2 do.
    """

    architecture: dict[str, Any] = field(default_factory=dict)  # arguments of create_model
    classes: tuple[str, ...] = ()
    # which frames
    frames: int = 32
    stride: int = 2
    sampling: Sampling = "dense"
    beyond: Beyond = "clamp"  # past the last frame: repeat it (PySlowFast) or wrap (Caffe2)
    starts: Starts = "fit"  # of test clips, see `clips.Dense`, as for window and rate
    window: Window = "span"
    rate: float = 0.0
    # seconds from one frame of a training clip to the next, the median over videos; 0: not known
    gap: float = 0.0
    # how they look; colours are RGB, mean and std on the scale 0..1
    short_side: int = 256
    crop: int = 224
    test_crop: int = 256
    jitter: tuple[int, int] = (256, 320)
    cropping: Cropping = "jitter"  # in training: by the range above, or see `multi_scale_box`
    flip: bool = True
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    # how views become one score
    clips: int = 10
    crops: int = 3
    aggregate: Aggregate = "softmax"
    activation: Activation = "softmax"  # or each class by itself: several may be right (Charades)
    # where the weights come from, and under which licence
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        """Raises UserError for a value that no network can be used with: files may hold any."""
        counts = ("frames", "stride", "short_side", "crop", "test_crop", "clips")
        for name in counts:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UserError(f"a card's {name} is a whole number from 1 on, not {value!r}")
        if self.crops not in CROPS:
            raise UserError(f"a card's crops are one of {CROPS}, not {self.crops!r}")
        if not isinstance(self.rate, int | float) or not 0 <= self.rate < 1e6:
            raise UserError(f"a card's rate is a number of frames per second, not {self.rate!r}")
        if not isinstance(self.gap, int | float) or not 0 <= self.gap < 1e6:
            raise UserError(f"a card's gap is a number of seconds, not {self.gap!r}")
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(allowed):
                known = ", ".join(get_args(allowed))
                raise UserError(f"a card's {name} is one of {known}, not {value!r}")
        for name, length in (("mean", 3), ("std", 3), ("jitter", 2)):
            value = getattr(self, name)
            if len(value) != length or not all(isinstance(v, int | float) for v in value):
                raise UserError(f"a card's {name} is {length} numbers, not {value!r}")

    def views(self, clips: int | None, crops: int | None) -> tuple[int, int]:
        """Clips and crops of a test; the card's own where not given."""
        return clips or self.clips, self.crops if crops is None else crops

    def class_name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else f"class {label}"

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Card:
        """The card that `to_json` wrote; a field it does not know is an error, not ignored."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or not isinstance(values.get("architecture", {}), dict):
            raise UserError("the checkpoint's card is damaged: it is no JSON of fields")
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise UserError(
                f"the checkpoint's card has fields unknown to this version: {', '.join(unknown)};"
                " it was written by a newer nonlocalnet, so upgrade to read it"
            )
        architecture = _tuples(values.pop("architecture", {}))
        return cls(architecture=architecture, **_tuples(values))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    # JSON knows no tuples
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def card_of(model: nn.Module) -> Card:
    """The card of a network made by `create_model` or `load`.

    Raises `UserError` if the network carries none.
    """
    card = getattr(model, "card", None)
    if not isinstance(card, Card):
        raise UserError(
            f"this {type(model).__name__} carries no card (class names and preprocessing): make it"
            " with create_model() or load(), or set model.card = Card(...)"
        )
    return card


def set_card(model: nn.Module, card: Card) -> None:
    """Give a network its card; `save`, `predict` and the rest read it from there."""
    model.card = card  # type: ignore[assignment]  # a plain attribute, no submodule

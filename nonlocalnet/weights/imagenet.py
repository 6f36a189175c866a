"""ImageNet initialisation: image networks, inflated (paper section 4.1) or as they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor, nn

from ..card import card_of, set_card
from ..errors import UserError
from ..framewise import Framewise
from ..head import is_head
from ..libraries import trained_weights
from ..presets import IMAGENET_MEAN, IMAGENET_STD
from .container import read

# torchvision's names of the weights each size starts from
WEIGHTS = {
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V1",
    "resnet101": "ResNet101_Weights.IMAGENET1K_V1",
    "mobilenetv2": "MobileNet_V2_Weights.IMAGENET1K_V1",
}


def load_imagenet(model: nn.Module, path: str | Path | None = None) -> list[str]:
    """Fill a network of `create_model` with an image network's weights, inflated by the 1/t rule.

    W3d[:, :, i] = W2d / t for each of the t frames; norms are copied; the head is left alone
    unless it fits, non-local blocks always. The network's card takes ImageNet's mean and std. A
    network of torchvision or timm takes its own weights, and has their colours already.

    Args:
        model: a c2d_, i3d_, slowonly_ or tsm_ network of depth 18, 50 or 101, or on MobileNetV2;
            or TSM on an image network of torchvision or timm.
        path: a file with a torchvision or timm network's state dict (.pth or .safetensors). None:
            the library downloads its own.

    Returns:
        The names that were left as they were.

    Raises:
        UserError: no weights for this network, no file, no network to download with, or weights
            that fit another depth.
    """
    card = card_of(model)
    size = str(card.architecture["name"]).partition("_")[2]
    if isinstance(model, Framewise):
        source = read(path).tensors if path is not None else _own(size)
        head = f"{model.host_head}."
        inside = {f"host.{n}": t for n, t in source.items() if not n.startswith(head)}
        return _copy(model, inside, size)
    if size not in WEIGHTS:
        raise UserError(
            f"there are no ImageNet weights for {card.architecture['name']}; sizes that have them"
            f" are {', '.join(WEIGHTS)}"
        )
    source = read(path).tensors if path is not None else _download(size)
    left = _copy(model, source, size)
    set_card(model, dataclasses.replace(card, mean=IMAGENET_MEAN, std=IMAGENET_STD))
    return left


def _copy(model: nn.Module, source: dict[str, Tensor], size: str) -> list[str]:
    # a count that torchvision's files lack and that nothing here uses
    target = {n: t for n, t in model.state_dict().items() if not n.endswith("batches_tracked")}
    source = {n: t for n, t in source.items() if not n.endswith("batches_tracked")}
    unknown = sorted(n for n in source if n not in target)
    absent = [n for n in target if n not in source and ".non_local." not in n]
    left = [n for n in target if n not in source]
    filled = {}
    for name in set(source) & set(target):
        into, weight = target[name], source[name]
        if into.dim() == 5 and weight.dim() == 4:
            t = into.shape[2]
            weight = weight.unsqueeze(2).expand(-1, -1, t, -1, -1) / t  # (O, I, t, h, w)
        if weight.shape == into.shape:
            filled[name] = weight
        elif is_head(name):
            left.append(name)
        else:
            absent.append(name)
    absent = [n for n in absent if not is_head(n)]
    if unknown or absent:
        told = ", ".join((unknown + absent)[:3])
        raise UserError(f"these are no weights of an image {size}: {told} do not fit")
    model.load_state_dict(filled, strict=False)
    return left


def _own(size: str) -> dict[str, Tensor]:
    """The weights of an image network, "timm:convnext_atto", from its library."""
    library, _, name = size.partition(":")
    try:
        return trained_weights(library, name)
    except ValueError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        told = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot download the weights of {name} ({told}); on a machine without internet, save"
            " its state dict elsewhere with torch.save and give that path: --pretrained FILE"
        ) from error


def _download(size: str) -> dict[str, Tensor]:
    try:
        from torchvision.models import get_weight
    except ImportError as error:
        raise UserError(
            f"ImageNet weights come from torchvision, which does not import here ({error});"
            ' pip install "nonlocalnet[train]"'
        ) from error
    weights = get_weight(WEIGHTS[size])
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except OSError as error:  # urllib's errors are OSErrors
        raise UserError(
            f"cannot download {WEIGHTS[size]} ({error}); on a machine without internet, fetch"
            f" {weights.url} elsewhere and give its path: --pretrained FILE"
        ) from error

"""From a recipe to the parts of a run: the network with its first weights, modes, the optimizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from ..block_options import BlockOptions
from ..card import card_of, set_card
from ..errors import UserError
from ..head import head_of, is_head
from ..layers import Affine3d
from ..models import IMAGE_MODELS, KNOWN, create_model, is_model
from ..recipes import Recipe
from ..streaming import check_streams
from ..waking import named_blocks, why_stuck
from ..weights import load, load_imagenet
from ..weights.download import ready
from ..weights.published import PUBLISHED
from .plan import Plan, architecture

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def make_network(recipe: Recipe, classes: int) -> nn.Module:
    """The recipe's network with random weights, drawn from torch's global generator.

    Where the recipe names a trained network instead, that one with a new head.

    Raises `UserError` for a model, block position or option that does not exist.
    """
    if not is_model(recipe.model):
        return _trained(recipe, classes)
    try:
        return create_model(**architecture(recipe, classes))
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def _trained(recipe: Recipe, classes: int) -> nn.Module:
    changed = [
        name
        for name in ("non_local", *BlockOptions.__annotations__, "stem", "shift")
        if getattr(recipe, name, None) != getattr(Recipe(), name, None)
    ]
    if changed:
        raise UserError(
            f"{recipe.model} is a trained network, whose layers and blocks are as they are: leave"
            f" out {', '.join('--' + name.replace('_', '-') for name in changed)}"
        )
    if recipe.model not in PUBLISHED and not Path(recipe.model).exists():
        raise UserError(
            f"no network {recipe.model!r}; there are {KNOWN}, and neither a file nor a"
            " published model has that name"
        )
    path = ready(recipe.model) if recipe.model in PUBLISHED else Path(recipe.model)
    network = load(path, num_classes=classes)
    name = card_of(network).architecture["name"]
    if name in IMAGE_MODELS:
        raise UserError(f"{recipe.model} is {name}, a network of images, and these are videos")
    head = head_of(network)  # new also where the number of classes is the same
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    dropout = recipe.dropout
    if dropout is not None:
        for layer in _of_kind(network, (nn.Dropout,)):
            cast(nn.Dropout, layer).p = dropout
        card = card_of(network)
        architecture = {**card.architecture, "dropout": dropout}
        set_card(network, replace(card, architecture=architecture))
    return network


def start_from(network: nn.Module, source: str, everything: bool = True) -> str:
    """Fill a network with trained weights, as far as they fit; what was done, in words.

    source: "imagenet", a run folder or checkpoint of ours, a published network's name, or a file
        with a 2-D ResNet's weights. The network's card takes over the colours of its training.
    everything: else its head and non-local blocks are left out, as Caffe2's long clips do.

    Raises `UserError` if there are no such weights, or if none fits.
    """
    path = Path(source)
    if source == "imagenet":
        left = load_imagenet(network)
    elif source in PUBLISHED and not path.exists():
        left = _from_video(network, ready(source), everything)
    elif path.is_dir() or path.suffix == ".safetensors":
        left = _from_video(network, path, everything)
    else:
        left = load_imagenet(network, path)
    total = len(network.state_dict())
    new = sum(".non_local." in name for name in left)
    text = f"starts from {source}: {total - len(left)} of {total} tensors"
    return text + (f"; new are the head and {new} tensors of non-local blocks" if left else "")


def _from_video(network: nn.Module, path: Path, everything: bool) -> list[str]:
    other = load(path)
    source, target = _with_constants(network, other), network.state_dict()
    fits = {
        n: t
        for n, t in source.items()
        if n in target and t.shape == target[n].shape and (everything or not _is_added(n))
    }
    left = [n for n in target if n not in fits]
    strange = [n for n in left if not _is_added(n)]
    if strange:
        mine, theirs = card_of(network).architecture, card_of(other).architecture
        raise UserError(
            f"{path} holds {theirs['name']}, whose weights do not fit {mine['name']}:"
            f" {len(strange)} tensors have no counterpart, {strange[0]} among them"
        )
    network.load_state_dict(fits, strict=False)
    card = card_of(other)
    set_card(network, replace(card_of(network), mean=card.mean, std=card.std))
    return left


def _with_constants(network: nn.Module, other: nn.Module) -> dict[str, torch.Tensor]:
    """The other's tensors; where the network has constants for a norm, they stand for its own.

    y = w x + b with w = gamma / sqrt(var + eps) and b = beta - mean w.
    """
    tensors, theirs = other.state_dict(), dict(other.named_modules())
    for name, module in network.named_modules():
        norm = theirs.get(name)
        if isinstance(module, Affine3d) and isinstance(norm, nn.modules.batchnorm._BatchNorm):
            assert norm.running_var is not None
            assert norm.running_mean is not None
            gain = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
            tensors[f"{name}.weight"] = gain
            tensors[f"{name}.bias"] = norm.bias.detach() - norm.running_mean * gain
    return tensors


def _is_added(name: str) -> bool:
    return is_head(name) or ".non_local." in name


def freeze(network: nn.Module, plan: Plan) -> None:
    """Take the parts that shall not learn out of training: see `Recipe`'s freezes."""
    if plan.freeze_backbone:
        network.requires_grad_(False)
        for part in _learning_parts(network):
            part.requires_grad_(True)
    for module in _frozen_norms(network, plan):
        module.requires_grad_(False)


def set_modes(network: nn.Module, plan: Plan) -> None:
    """Training mode, but for frozen parts: their batch norms keep their statistics."""
    network.train(not plan.freeze_backbone)
    if plan.freeze_backbone:
        for part in _learning_parts(network):
            part.train()
    for module in _frozen_norms(network, plan):
        module.eval()


def _learning_parts(network: nn.Module) -> list[nn.Module]:
    # dropout holds nothing, but belongs to the head
    head = [head_of(network), *_of_kind(network, (nn.Dropout,))]
    return [*head, *named_blocks(network).values()]


def _frozen_norms(network: nn.Module, plan: Plan) -> list[nn.Module]:
    """The backbone's norms that keep what they have; those of the blocks always learn."""
    inside = {id(m) for block in named_blocks(network).values() for m in block.modules()}
    norms = [m for m in _of_kind(network, NORMS) if id(m) not in inside]
    return norms if plan.freeze_norm else norms[1:] if plan.freeze_later_norms else []


def _of_kind(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, kinds)]


def make_optimizer(network: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """The plan's optimizer over all that learns, in groups that differ in rate and decay.

    Norm parameters have no weight decay; `rate` of a group is a factor on the learning rate.
    """
    norms = {id(p) for m in _of_kind(network, NORMS) for p in m.parameters(recurse=False)}
    kinds: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in network.named_parameters():
        bias = name.endswith("bias") and id(p) not in norms
        rate = (plan.head_lr if is_head(name) else 1.0) * (plan.bias_lr if bias else 1.0)
        plain = id(p) in norms or (bias and not plan.bias_decay)
        if p.requires_grad:
            kinds.setdefault((rate, 0.0 if plain else plan.weight_decay), []).append(p)
    groups = [
        {"params": params, "rate": rate, "weight_decay": decay}
        for (rate, decay), params in kinds.items()
    ]
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=plan.lr)
    return torch.optim.SGD(groups, lr=plan.lr, momentum=plan.momentum, nesterov=plan.nesterov)


def describe_pace(network: nn.Module) -> list[str]:
    """How far apart the frames of a clip are, and whether the network can answer after each."""
    card, words = card_of(network), []
    if card.gap:
        words.append(
            f"the frames of a clip are {card.gap:.3g} s apart, in the median of the training videos"
        )
    if card.architecture.get("shift") == "past" or card.architecture.get("causal"):
        try:
            check_streams(network)
            words.append("an online network: it can answer after every frame (test --stream)")
        except UserError as error:
            words.append(f"warning: {error}")
    return words


def describe_start(
    network: nn.Module, optimizer: torch.optim.Optimizer, names: list[str]
) -> list[str]:
    """What learns, in words, and a warning for blocks that never would; `names` are `asleep`."""
    total = sum(p.numel() for p in network.parameters())
    learning = sum(p.numel() for g in optimizer.param_groups for p in g["params"])
    words = [f"{learning:,} of {total:,} parameters learn"]
    stuck = why_stuck(network, optimizer)
    words += [f"warning: {name} will not learn: {why}" for name, why in stuck.items()]
    names = [name for name in names if name not in stuck]
    if names:
        words.append(
            f"{', '.join(names)}: starts as the identity, which it leaves in the first steps"
            if len(names) == 1
            else f"{', '.join(names)}: start as the identity, which they leave in the first steps"
        )
    return words


def asleep(network: nn.Module) -> list[str]:
    """Names of the blocks whose output is exactly their input."""
    return [name for name, block in named_blocks(network).items() if not block.is_awake()]

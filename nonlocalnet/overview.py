"""The commands that tell of a network without running it: `show` and `cost`."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from typing import Literal

import torch
from tyro.conf import Positional

from .card import card_of
from .flags import Network, UsageError, find_network, parse_shape
from .models import IMAGE_MODELS, MODELS, create_model, input_shape
from .presets import PRESETS
from .sizes import SIZES
from .terminal import (
    progress_bar,
    say,
    say_json,
    show_functions,
    show_memory,
    show_parts,
    show_table,
)


def show(
    model: Positional[str | None] = None,
    *,
    network: Network,
    frames: int | None = None,
    size: int | None = None,
    presets: bool = False,
) -> int:
    """A network with its edits: output, parameters and multiply-adds of each part.

    Multiply-adds are those of one clip, of convolutions, linear layers and non-local products.

    Args:
        model: A name such as i3d_resnet50, the folder of a run, a checkpoint, or a published model.
        network: Only for a network that is not trained.
        frames: Frames of the clip; None is what the network is made for.
        size: Height and width of the clip; None is what the network is made for.
        presets: Instead of one network, what --preset can be: each with its main network.
    """
    from .cost import cost
    from .surgery import describe

    if presets:
        if model is not None or network != Network() or frames is not None or size is not None:
            raise UsageError("--presets lists all of them; leave out the network and its flags")
        return _show_presets()
    if model is None:
        raise UsageError(
            "show takes a network, such as i3d_resnet50, or a run; --presets lists the geometries"
            " it can have"
        )
    built = find_network(model, network)
    card = card_of(built)
    for name, value in (("frames", frames), ("size", size)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} is at least 1; it came as {value}")
    wanted = dataclasses.replace(card, frames=frames or card.frames, crop=size or card.crop)
    shape = input_shape(wanted)
    try:
        rows = cost(built, shape)
    except ValueError as error:
        raise UsageError(str(error)) from None
    say(f"{card.architecture['name']}, one clip of {' x '.join(map(str, shape))}, float32")
    show_parts(rows)
    say(describe(built))
    return 0


def _show_presets() -> int:
    """What each preset is; and what its main network costs, without blocks and with them."""
    from .cost import cost as count

    first = [[name, p.networks[0], p.text] for name, p in PRESETS.items()]
    show_table(("preset", "main network", ""), first, (), whole=(0, 1))
    say("")
    rows = []
    with progress_bar("presets") as report:
        for done, (name, preset) in enumerate(PRESETS.items()):
            report(done, len(PRESETS))
            network = preset.networks[0]
            cells = []
            for non_local in _counts(network):
                with torch.device("meta"):
                    built = create_model(network, non_local=non_local, preset=name)
                total = count(built, input_shape(card_of(built)))[-1]
                cells += [f"{total.parameters / 1e6:.3f} M", f"{total.multiply_adds / 1e9:.3f} G"]
            rows.append([name, *cells, *[""] * (4 - len(cells))])
    heads = ("main network of", "parameters", "multiply-adds", "with blocks", "")
    show_table(heads, rows, right=(1, 2, 3, 4), whole=(0, 1, 2, 3, 4))
    say("for one clip of the preset's frames, as in training")
    say("with blocks: 5 non-local ones where the codebase puts them, 2 in digits")
    say("one network of a preset: nonlocalnet show i3d_resnet50 --preset slowfast --non-local 5")
    return 0


def _counts(network: str) -> list[int]:
    """No blocks, and the five of the codebases; the digits' network has two, MobileNetV2 none."""
    positions = SIZES[{**MODELS, **IMAGE_MODELS}[network][1]].positions
    return [0, *(count for count in (5, 2) if count in positions)]


def cost(
    model: Positional[str],
    network: Network,
    input: str | None = None,
    train: bool = False,
    batch: int = 1,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    json: bool = False,
) -> int:
    """What a network takes before anything is run: multiply-adds and peak memory of each part.

    Nothing is computed, so this needs neither the memory nor the time that it tells of. Where the
    network has non-local blocks, the four pairwise functions follow side by side.

    Args:
        model: A name such as i3d_resnet50, the folder of a run, a checkpoint, or a published model.
        network: Only for a network that is not trained.
        input: A clip, CHANNELSxFRAMESxHEIGHTxWIDTH, such as 3x32x224x224; None is what the
            network is made for.
        train: A step of training, forward and backward, instead of inference.
        batch: Clips at a time.
        dtype: Type of weights and clips. With --train a 16-bit type is mixed precision, where the
            weights stay float32.
        json: One line of JSON instead of the tables.
    """
    from .cost import compare_functions, momentum_bytes
    from .cost import cost as count

    built = find_network(model, network)
    if batch < 1:
        raise UsageError(f"--batch is a number of clips, such as 8; it came as {batch}")
    card = card_of(built)
    shape = parse_shape(input) if input else input_shape(card)
    kind = getattr(torch, dtype)
    try:
        rows = count(built, shape, batch=batch, dtype=kind, train=train)
        functions = []
        if card.architecture["non_local"]:
            functions = compare_functions(built, shape, batch=batch, dtype=kind)
    except ValueError as error:
        raise UsageError(str(error)) from None
    momentum = momentum_bytes(built)
    if json:
        found = {
            "network": card.architecture,
            "input": shape,
            "batch": batch,
            "dtype": dtype,
            "train": train,
            "parts": [dataclasses.asdict(row) for row in rows],
            "momentum": momentum,
            "functions": [dataclasses.asdict(function) for function in functions],
        }
        say_json(jsonlib.dumps(found, default=str))
        return 0
    clips = "one clip" if batch == 1 else f"{batch} clips"
    work = "a training step" if train else "inference"
    say(f"{card.architecture['name']}, {clips} of {' x '.join(map(str, shape))}, {dtype}, {work}")
    show_memory(rows, momentum if train else None)
    if functions:
        show_functions(functions)
    return 0

"""Values of flags that several commands share, and what is said when one makes no sense."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import PositionalRequiredArgs, arg

from .block_options import Norm, Subsample
from .card import WHOLE
from .errors import UserError
from .listings.data import Data
from .machine import Device, this_machine
from .models import IMAGE_MODELS, KNOWN, MODELS, InflateStyle, create_model, is_model
from .positions import Mode
from .presets import PRESETS
from .protocols import RECIPES
from .recipes import PairwiseName, Stage
from .sizes import SIZES
from .terminal import download_bar
from .weights.published import PUBLISHED

if TYPE_CHECKING:
    from torch import nn

NonLocal = int | Stage | tuple[str, ...]  # the type of Recipe.non_local
DataFlags = PositionalRequiredArgs[Data]
Out = Annotated[Path, arg(aliases=["-o"])]
if TYPE_CHECKING:
    RecipeName = str
    PresetName = str
else:  # a new one becomes a choice without being named twice
    RecipeName = Literal[tuple(RECIPES)]
    PresetName = Literal[tuple(PRESETS)]
MOST_CLIPS = 1000  # of one video; the paper takes 10
MOST_NUMBERS = 10**9  # of one clip; 32 frames of 224 x 224 have five million


class UsageError(UserError):
    """A value on the command line that cannot be understood."""

    exit_code = 2


class Interrupted(UserError):  # noqa: N818  # not an error of anyone
    """Ctrl-C, with what to do next."""

    exit_code = 130


@dataclasses.dataclass(frozen=True)
class Network:
    """What a network named by its architecture is made with; a trained one has it already."""

    non_local: NonLocal = 0
    """Non-local blocks: a count, a stage such as res4, or names such as layer2.1,layer3.4."""
    preset: PresetName | None = None
    """Whose geometry: a codebase's pooling, blocks, head and views; None is the paper's."""
    pairwise: PairwiseName | None = None
    """The pairwise function of the blocks; None is embedded_gaussian, or the preset's."""
    mode: Mode | None = None
    """What a position of a block sees; None is spacetime."""
    subsample: Subsample | None = None
    """Pooling of a block's keys; None is before phi and g, or the preset's."""
    norm: Norm | None = None
    """Norm after a block's output weights; None is batch, or the preset's."""
    stem: str | None = None
    """First layers and their pooling, a name such as paper, caffe2-8 or slowfast."""
    inflate_style: InflateStyle | None = None
    """Which kernels of an I3D bottleneck are inflated; None is 3x1x1."""
    num_classes: int = 400
    """Outputs of the head."""


def parse_views(text: str | None) -> tuple[int | None, int | None]:
    """Clips and crops of "10x3" or "10xwhole"; nothing said is (None, None), the network's rule."""
    if text is None:
        return None, None
    match = re.fullmatch(r"([1-9]\d*)[x×](1|3|5|6|10|whole)", text.strip())
    if match is None:
        raise UsageError(
            "--views is CLIPSxCROPS with 1, 3, 5, 6 or 10 crops or the whole frame, such as 10x3,"
            f" 1x1 or 10xwhole; it came as {text!r}"
        )
    if len(match[1]) > 9 or int(match[1]) > MOST_CLIPS:
        raise UsageError(
            f"--views takes {MOST_CLIPS} clips of a video at most; it came as {text!r}"
        )
    return int(match[1]), WHOLE if match[2] == "whole" else int(match[2])


def parse_shape(text: str) -> tuple[int, ...]:
    """Channels, frames, height and width of "3x32x224x224"."""
    match = re.fullmatch(r"([1-9]\d*)" + r"[x×]([1-9]\d*)" * 3, text.strip())
    if match is None:
        raise UsageError(
            f"--input is CHANNELSxFRAMESxHEIGHTxWIDTH, such as 3x32x224x224; it came as {text!r}"
        )
    if sum(map(len, match.groups())) > 20 or prod(map(int, match.groups())) > MOST_NUMBERS:
        raise UsageError(
            f"--input takes a clip of {MOST_NUMBERS} numbers at most; it came as {text!r}"
        )
    return tuple(map(int, match.groups()))


def find_run(run: Path) -> Path:
    """The run or checkpoint itself, or that of a published model by its name, fetched if need be.

    A file or folder of that name comes first. Raises `UserError` if it cannot be fetched.
    """
    name = str(run)
    if run.exists() or name not in PUBLISHED:
        return run
    from .weights.download import ready

    with download_bar(name) as progress:
        return ready(name, progress=progress)


def find_trained(run: Path, device: Device | None = None, verify: bool = False) -> nn.Module:
    """The trained network of a run, a checkpoint, an exported file or a published model.

    verify: let it pass the self-test in its file. Raises `UserError` if there is none.
    """
    from .exported import open_network

    return open_network(find_run(run), best_device(device), verify=verify)


def find_own(run: Path) -> Path:
    """As `find_run`, for what needs the layers of a network. Raises `UserError` if none show."""
    from .exported import is_exported

    path = find_run(run)
    if is_exported(path):
        raise UserError(f"{path} is an exported network, whose layers are gone: give its run")
    return path


def find_network(model: str, network: Network) -> nn.Module:
    """The network of a run, a checkpoint, a published model or a name with its flags.

    Raises `UsageError` if there is none.
    """
    if (model and Path(model).exists()) or model in PUBLISHED:
        if dataclasses.replace(network, preset=None) != Network():
            raise UsageError(
                f"{model} is a trained network; leave out the flags that build one (--preset may"
                " stay, where its file fits several)"
            )
        from .weights import load

        return load(find_own(Path(model)), preset=network.preset)
    if model not in IMAGE_MODELS and not is_model(model):
        raise UsageError(
            f"there is no network and no run {model!r}; networks are {KNOWN}, and"
            " `nonlocalnet weights` lists the published ones"
        )
    check_non_local(model, network.non_local)
    if network.num_classes < 1:
        raise UsageError(f"--num-classes is at least 1; it came as {network.num_classes}")
    options = {k: v for k, v in vars(network).items() if v is not None}
    try:
        return create_model(model, **options)
    except ValueError as error:
        raise UsageError(str(error)) from None


def check_model(name: str) -> None:
    """Raises `UsageError` for a network that does not exist."""
    if not is_model(name) and name not in PUBLISHED and not (name and Path(name).exists()):
        raise UsageError(
            f"--model is one of {KNOWN}, a trained network's file or folder, or a name"
            f" that `nonlocalnet weights` lists; it came as {name!r}"
        )


def fitting_blocks(model: str, count: NonLocal) -> NonLocal:
    """That count of blocks, or the most below it that the network has documented places for."""
    if not isinstance(count, int) or not is_model(model):
        return count
    places = SIZES[MODELS[model][1]].positions if model in MODELS else ()
    return max(n for n in (0, *places) if isinstance(n, int) and n <= count)


def check_non_local(model: str, value: NonLocal) -> None:
    """Raises `UsageError` for blocks that this network has no place for."""
    if model not in {**MODELS, **IMAGE_MODELS}:
        if value != 0:
            raise UsageError(f"{model} has no place for non-local blocks: --non-local 0")
        return
    size = SIZES[{**MODELS, **IMAGE_MODELS}[model][1]]
    stages = [f"res{i + 2}" for i in range(len(size.layers))]
    stages += [word for word in size.positions if isinstance(word, str)]
    if isinstance(value, int):
        good = value in (0, *size.positions)
    elif isinstance(value, str):
        good = value in stages
    else:
        good = bool(value) and all(_may_exist(word, size.layers) for word in value)
    if good:
        return
    came = ",".join(value) if isinstance(value, tuple) else value
    counts = [0, *(count for count in size.positions if isinstance(count, int))]
    blocks = ", ".join(
        f"layer{i + 1}.0" + (f" to .{depth - 1}" if depth > 1 else "")
        for i, depth in enumerate(size.layers)
    )
    known = f"a count ({', '.join(map(str, counts))})"
    known += f", a stage or layout ({', '.join(stages)})" if stages else ""
    raise UsageError(
        f"--non-local of {model} is {known} or names of residual blocks with commas between"
        f" ({blocks or 'features.6 and the like'}), not {came!r}"
    )


def _may_exist(word: str, layers: tuple[int, ...]) -> bool:
    """Whether a module could have that name; deeper ones are told by the network itself."""
    match = re.fullmatch(r"layer(\d{1,9})(?:\.(\d{1,9})(?:\..+)?)?", word)
    if match is None:
        return word.partition(".")[0].isidentifier() and not word.startswith("layer")
    layer, block = int(match[1]), int(match[2] or 0)
    return 1 <= layer <= len(layers) and block < layers[layer - 1]


def check_output(flag: str, path: Path | None, *suffixes: str) -> None:
    """Raises `UsageError` for a name of another kind of file, and for what is no file at all."""
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        endings = " or ".join(suffixes)
        raise UsageError(f"{flag} is a file ending in {endings}; it came as {str(path)!r}")
    if os.path.lexists(path) and not path.is_file():
        raise UsageError(f"{flag} would replace {path}, which is no regular file")


def best_device(device: Device | None) -> Device:
    """The device asked for, or the best there is. Raises `UserError` if it is not there."""
    return this_machine(device).device


def reading_processes(workers: int | None) -> int:
    """As many as asked for, or few: the views of one video may take 200 MB in each."""
    return min(4, this_machine("cpu").cores - 1) if workers is None else workers


def watched() -> bool:
    """Whether a progress bar would be seen."""
    return sys.stderr.isatty()

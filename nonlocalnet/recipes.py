"""How each result is obtained: everything that training can be told, as a value.

`plan.derive` turns a recipe, a data set and a machine into concrete numbers and says why, in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from .block_options import Init, Norm, Subsample, ZeroInit
from .card import CROPS, Aggregate, Beyond, Cropping, Sampling, Starts, Window
from .errors import UserError
from .head import Head
from .machine import Device
from .models import is_model
from .positions import Mode
from .presets import PRESETS

Stage = Literal["res2", "res3", "res4", "res5", "slowfast", "tsm"]  # or a layout of five
PairwiseName = Literal["gaussian", "embedded_gaussian", "dot_product", "concatenation"]
Colours = Literal["paper", "imagenet"]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["steps", "cosine", "one_cycle"]
Precision = Literal["fp32", "bf16-mixed"]
Loss = Literal["cross_entropy", "bce"]
Strategy = Literal["ddp", "fsdp"]
ShiftKind = Literal["offline", "online"]


@dataclass(frozen=True)
class Recipe:
    """What to train and how. None means: derived from the data and the machine, in words."""

    model: str = "i3d_resnet50"
    """Name of the network, such as i3d_resnet50; or a trained one, by path or published name."""
    non_local: int | Stage | tuple[str, ...] = 5
    """Non-local blocks: 0, 1, 5 or 10, a stage (one block there), or names such as layer3.4."""
    preset: str | None = None
    """A codebase whose layers, blocks, head and views hold where nothing else is said."""
    pairwise: PairwiseName | None = None
    """The pairwise function f (paper, section 3.2); None is embedded_gaussian, or the preset's."""
    mode: Mode | None = None
    """What a position of a block sees: all (None), its own frame, or its own place over time."""
    causal: int | None = None
    """Blocks look back: a frame sees this many, its own the last. None: all; online, a clip's."""
    shift: ShiftKind | None = None
    """TSM's shift: offline, from both sides (None), or online, from the past alone."""
    subsample: Subsample | None = None
    """The paper's 1x2x2 pooling of a block's keys: before (None) or after phi and g, or none."""
    scale: Literal["1/sqrt(d)"] | None = None
    """Factor on theta . phi: none (paper), or 1/sqrt(d) (Caffe2, PySlowFast)."""
    norm: Norm | None = None
    """Norm after a block's output weights; None is batch, or the preset's."""
    zero_init: ZeroInit | None = None
    """Where a block starts at zero, so that it begins as the identity; `none` starts awake."""
    init: Init | None = None
    """A block's first weights: N(0, 0.01^2) (Caffe2, None) or MSRA's (the paper's sentence)."""
    stem: str | None = None
    """The network's first layers and their pooling; None is the network's own."""
    width: int | None = None
    """Channels of the network's first stage; None is its own (64; 16 for tiny)."""
    head: Head | None = None
    """Where the head averages: over all (global), or in 7x7 windows, whose scores are averaged."""
    pretrained: str | None = None
    """First weights: imagenet (a download), a run folder, or a file (ours, or a 2-D ResNet's)."""
    pretrained_blocks: bool = True
    """Take the head and the blocks from there too; or the backbone alone (Caffe2's long clips)."""

    freeze_backbone: bool = False
    """Few-video mode: the features stay as they are; only the head and the blocks learn."""
    freeze_norm: bool = False
    """Keep the batch-norm statistics of the backbone (paper's long clips, two per GPU)."""
    freeze_later_norms: bool = False
    """Keep those of all the backbone's norms but the first (TSN's and TSM's partial batch norm)."""
    sync_norm: bool = False
    """Batch norms take their statistics over all processes, as if their clips were one batch."""
    precise_norm: int = 0
    """Steps whose clips give the norms their statistics for each validation (Caffe2: 200)."""
    dropout: float | None = None
    """Probability of dropping a feature before the head."""

    frames: int | None = None
    """Frames of a clip."""
    stride: int | None = None
    """Video frames from one frame of a clip to the next (dense sampling)."""
    sampling: Sampling | None = None
    """Frames from one dense window (paper), or one from each of equal segments (TSN, TSM)."""
    window: Window | None = None
    """How long a dense clip counts, and where in it the frames lie (see `clips.Dense`)."""
    starts: Starts | None = None
    """Where the dense test clips start (see `clips.Dense`)."""
    beyond: Beyond | None = None
    """A video shorter than the window: repeat its last frame, or start over."""
    crop: int | None = None
    """Side of the square cut out for training, pixels."""
    short_side: int | None = None
    """Length of a frame's short side in validation and test, pixels."""
    test_crop: int | None = None
    """Side of the square cut out in validation and test, pixels."""
    jitter: tuple[int, int] | None = None
    """Range that the short side is drawn from in training, pixels."""
    cropping: Cropping | None = None
    """Training crops: one size out of a jittered frame (paper), or of several sizes and shapes."""
    flip: bool | None = None
    """Mirror half of the training clips."""
    colours: Colours | None = None
    """Mean and deviation to normalise by: the paper's code (0.45, 0.225) or ImageNet's."""

    clips: int | None = None
    """Clips of a video in a test."""
    crops: int | None = None
    """Crops of a clip in a test: 1, 3, 5, 6, 10, or 0 for the whole frame (paper)."""
    aggregate: Aggregate | None = None
    """How the views of a video become one score: mean score, score of the mean logits, maximum."""

    epochs: int | None = None
    """Passes over the training clips."""
    accumulate_to: int | None = None
    """Clips per step of the optimiser, over all processes (paper: 64)."""
    batch: int | None = None
    """Clips per forward pass and process; gradients are accumulated up to a step."""
    optimizer: Optimizer = "sgd"
    """SGD with momentum (paper), or AdamW."""
    lr: float | None = None
    """Learning rate of a step, as it is; None scales the paper's 0.01 for 64 clips to the step."""
    head_lr: float = 1.0
    """Factor on the learning rate of the head (TSM: 5)."""
    bias_lr: float = 1.0
    """Factor on the learning rate of biases, norms aside (TSM: 2, so 10 for that of the head)."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Nesterov's form of momentum (Caffe2 configuration)."""
    weight_decay: float = 1e-4
    """Weight decay; norm parameters have none."""
    bias_decay: bool = True
    """Whether biases decay too (TSM: not)."""
    clip_grad: float = 40.0
    """Longest gradient of a step, 0 for any length (40: MMAction2; the paper has no limit)."""
    schedule: Schedule = "steps"
    """Learning rate over the run: a tenth at each milestone (paper), and others."""
    milestones: tuple[float, ...] = (150 / 400, 300 / 400)
    """Where the schedule `steps` divides by ten, as parts of the run (TSM, MMAction2: 0.4 0.8)."""
    warmup: float | None = None
    """Epochs in which the learning rate rises to its schedule."""
    warmup_from: float = 0.0
    """Part of the learning rate that the rise begins at (PySlowFast: 0.1)."""
    loss: Loss | None = None
    """One label a video, or each class by itself, as for videos with several labels (Charades)."""
    class_weights: bool | None = None
    """Weigh rare classes more in the loss."""
    precision: Precision | None = None
    """Number format of the forward pass."""

    val_fraction: float = 0.2
    """Part of the videos kept for validation where the folder has no train/ and val/."""
    seed: int = 0
    """Seed of everything random."""
    workers: int | None = None
    """Processes that read videos."""
    device: Device | None = None
    """Where to train."""
    strategy: Strategy = "ddp"
    """Several processes: each with all weights, or with a share of them (FSDP)."""
    hang_seconds: float = 600.0
    """Several processes: standing still for so long, they end, and name who hangs."""
    save_seconds: float = 300.0
    """Longest time between two checkpoints; one is written after each epoch in any case."""
    save_steps: int | None = None
    """Steps between two checkpoints."""
    log_steps: int | None = None
    """Steps between two lines of the log."""
    wake_steps: int = 200
    """Steps after the warm-up in which a block should wake up; else a warning says why not."""


# what may differ when a run is resumed: it changes where and how fast, not what is computed
FREE = (
    *("workers", "device", "strategy", "hang_seconds"),
    *("save_seconds", "save_steps", "log_steps", "wake_steps", "batch"),
)


def check(recipe: Recipe, resume: bool = False) -> None:
    """Raises `UserError` for values out of range and options that contradict each other.

    resume: a run fills in what is at its default, so that options are no contradiction yet.
    """
    least = {"frames": 1, "stride": 1, "crop": 1, "short_side": 1, "test_crop": 1, "epochs": 1}
    least |= {
        "accumulate_to": 1,
        "batch": 1,
        "workers": 0,
        "clips": 1,
        "save_steps": 1,
        "log_steps": 1,
        "wake_steps": 1,
    }
    least |= {"precise_norm": 0, "width": 1, "causal": 1}
    for name, low in least.items():
        value = getattr(recipe, name)
        if value is not None and value < low:
            raise UserError(f"{_flag(name)} must be at least {low}; it came as {value}")
    if recipe.preset is not None and recipe.preset not in PRESETS:
        raise UserError(f"--preset is one of {', '.join(PRESETS)}; it came as {recipe.preset!r}")
    if recipe.crops is not None and recipe.crops not in CROPS:
        raise UserError(f"--crops is one of {', '.join(map(str, CROPS))}, not {recipe.crops}")
    for name in ("lr", "head_lr", "bias_lr", "save_seconds", "hang_seconds"):
        value = getattr(recipe, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{_flag(name)} must be above 0; it came as {value}")
    for name in ("weight_decay", "clip_grad"):
        if not 0 <= getattr(recipe, name) < math.inf:
            raise UserError(f"{_flag(name)} must not be negative: {getattr(recipe, name)}")
    for name in ("dropout", "momentum", "warmup_from"):
        value = getattr(recipe, name)
        if value is not None and not 0 <= value < 1:
            raise UserError(f"{_flag(name)} must be at least 0 and below 1; it came as {value}")
    if not all(a < b for a, b in pairwise((0.0, *recipe.milestones, 1.0))):
        raise UserError(
            "--milestones are parts of the run between 0 and 1, rising; they came as"
            f" {' '.join(map(str, recipe.milestones))}"
        )
    if not resume:
        _check_together(recipe)


def _check_together(recipe: Recipe) -> None:
    if recipe.nesterov and recipe.momentum == 0 and recipe.optimizer == "sgd":
        raise UserError("Nesterov's momentum needs --momentum above 0, or --no-nesterov")
    if recipe.freeze_backbone and recipe.pretrained is None and is_model(recipe.model):
        raise UserError(
            "--freeze-backbone trains the head and the non-local blocks on features that are there"
            " already, but this run starts from random weights: add --pretrained imagenet, or the"
            " run folder of a trained network"
        )
    if recipe.sampling == "segments" and recipe.stride not in (None, 1):
        raise UserError(
            f"--sampling segments takes one frame per segment and has no use for --stride"
            f" {recipe.stride}: leave one of them out"
        )
    _check_online(recipe)


def _check_online(recipe: Recipe) -> None:
    named = is_model(recipe.model)  # a trained network is what it is, and refuses either flag
    if recipe.shift is not None and named and not recipe.model.startswith("tsm"):
        raise UserError(
            f"--shift is TSM's, and {recipe.model} has none: take a network whose name begins with"
            " tsm_, such as tsm_resnet50"
        )
    if recipe.causal is not None and named and not recipe.non_local:
        raise UserError(
            f"--causal {recipe.causal} is for non-local blocks, and with --non-local 0 there are"
            " none: leave one of them out"
        )
    if recipe.causal is not None and recipe.mode == "space":
        raise UserError(
            f"--causal {recipe.causal} says how many frames a position sees, and with --mode space"
            " it sees its own alone: leave one of them out"
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")

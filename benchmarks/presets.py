"""Write the tables of docs/networks.md: what every network costs, beside the published figures.

    python benchmarks/presets.py

Parameters and multiply-adds come from `nonlocalnet.cost` and networks without weights, so this
takes half a minute and no memory. A test holds the page to it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nonlocalnet import create_model
from nonlocalnet.block import NonLocalBlock
from nonlocalnet.card import card_of
from nonlocalnet.cost import cost
from nonlocalnet.models import IMAGE_MODELS, MODELS, input_shape
from nonlocalnet.presets import PRESETS
from nonlocalnet.sizes import SIZES
from nonlocalnet.surgery import inflate

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
CLIP = (3, 32, 224, 224)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Figures:
    """Of one network and clip.

    weights: the parameters that are kernels and matrices, which alone the paper's code counts.
    """

    shape: Shape
    parameters: int
    weights: int
    multiply_adds: int


def build(name: str, **options: Any) -> nn.Module:
    """`create_model` without weights."""
    with torch.device("meta"):
        return create_model(name, **options)


@functools.cache
def figures(name: str, shape: Shape | None = None, **options: Any) -> Figures:
    """Those of `create_model(name, **options)`; without a shape, of the clip it is made for."""
    model = build(name, **options)
    return measure(model, shape or input_shape(card_of(model)))


def measure(model: nn.Module, shape: Shape) -> Figures:
    total = cost(model, shape)[-1]
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    return Figures(shape, total.parameters, weights, total.multiply_adds)


def norms(model: nn.Module, shape: Shape) -> int:
    """How many numbers the batch norms of a network without weights give out."""
    seen = []

    def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output.numel())

    for module in model.modules():
        # the norm of a block runs inside it, and gives out as much as the block does
        inside = isinstance(module, NonLocalBlock) and module.norm is not None
        if inside or isinstance(module, nn.BatchNorm3d):
            module.register_forward_hook(record)
    with torch.no_grad():
        model.eval()(torch.empty(1, *shape, device="meta"))
    return sum(seen)


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def head(*cells: str) -> list[str]:
    return [line(*cells), line(*["---"] * len(cells))]


def size_of(f: Figures) -> str:
    return f"{f.parameters / 1e6:.3f} M, {f.multiply_adds / 1e9:.3f} G"


# The networks of the paper, flags of `show` and options, in the geometry of Table 1 and released.
ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("C2D", "c2d", {}),
    ("I3D 3×3×3", "i3d", {"inflate_style": "3x3x3"}),
    ("I3D 3×1×1", "i3d", {}),
    ("NL C2D", "c2d", {"non_local": 1}),
    ("NL C2D", "c2d", {"non_local": 5}),
    ("NL C2D", "c2d", {"non_local": 10}),
    ("NL I3D 3×1×1", "i3d", {"non_local": 5}),
)


def sizes_table() -> list[str]:
    lines = head("network", "flags of `show`", "R50", "R50, caffe2-32", "R101", "R101, caffe2-32")
    for title, kind, options in ROWS:
        flags = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in options.items())
        cells = []
        for depth in ("resnet50", "resnet101"):
            paper = figures(f"{kind}_{depth}", CLIP, **options)
            released = figures(f"{kind}_{depth}", CLIP, stem="caffe2-32", **options)
            cells += [size_of(paper), f"{released.multiply_adds / 1e9:.3f} G"]
        lines.append(line(title, f"`{flags}`" if flags else "", *cells))
    return lines


# Table 2e of the paper: C2D ResNet-101, and how many times its parameters and multiply-adds the
# others have.
PAPER_2E = {"I3D 3×3×3": (1.5, 1.8), "I3D 3×1×1": (1.2, 1.5), "NL C2D, 5 blocks": (1.2, 1.2)}
RELEASED = {"stem": "caffe2-32"}
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Table 1's pooling, `--stem paper`", {}),
    ("released pooling, `--stem caffe2-32`", RELEASED),
    ("released pooling, stride on the 1×1", {**RELEASED, "stride_on": "1x1"}),
    ("Table 1's pooling, stride on the 1×1", {"stride_on": "1x1"}),
)
BLOCKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("released, keys pooled after φ and g", {**RELEASED, "subsample": "after"}),
    ("released, keys not pooled", {**RELEASED, "subsample": "none"}),
)


def ratios(options: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Parameters and multiply-adds of Table 2e's rows over those of C2D, all with `options`."""
    base = figures("c2d_resnet101", CLIP, **options)
    rows = {
        "I3D 3×3×3": figures("i3d_resnet101", CLIP, inflate_style="3x3x3", **options),
        "I3D 3×1×1": figures("i3d_resnet101", CLIP, **options),
        "NL C2D, 5 blocks": figures("c2d_resnet101", CLIP, non_local=5, **options),
    }
    return {name: over(f, base) for name, f in rows.items()}


def over(f: Figures, base: Figures) -> tuple[float, float]:
    return f.weights / base.weights, f.multiply_adds / base.multiply_adds


def released_i3d(style: str, blocks: str = "half", conv1: bool = True) -> tuple[float, float]:
    """The ratios of an I3D that is inflated elsewhere: in every block, or not in conv1."""
    options: dict[str, Any] = {"inflate_style": style, "inflate_blocks": blocks, **RELEASED}
    base = figures("c2d_resnet101", CLIP, **RELEASED)
    if conv1:
        return over(figures("i3d_resnet101", CLIP, **options), base)
    times = {
        name: m.kernel_size[0]
        for name, m in build("i3d_resnet101", **options).named_modules()
        if isinstance(m, nn.Conv3d) and m.kernel_size[0] > 1 and name != "conv1"
    }
    model = inflate(build("c2d_resnet101", **RELEASED), times)
    return over(measure(model, CLIP), base)


def cell(name: str, found: tuple[float, float] | None) -> str:
    """Both ratios; in bold what rounds to another digit than the paper's."""
    if found is None:
        return ""
    words = [
        f"{ratio:.3f}×" if round(ratio, 1) == paper else f"**{ratio:.3f}×**"
        for ratio, paper in zip(found, PAPER_2E[name], strict=True)
    ]
    return ", ".join(words)


def table_2e() -> list[str]:
    lines = head("what is set", "C2D", *PAPER_2E)
    said = [f"{p}×, {m}×" for p, m in PAPER_2E.values()]
    lines.append(line("the paper", "43.2 M, 34.2 G", *said))
    for title, options in VARIANTS:
        base = figures("c2d_resnet101", CLIP, **options)
        size = f"{base.weights / 1e6:.1f} M, {base.multiply_adds / 1e9:.3f} G"
        found = ratios(options)
        lines.append(line(title, size, *(cell(name, found[name]) for name in PAPER_2E)))
    for title, options in BLOCKS:
        name = "NL C2D, 5 blocks"
        lines.append(line(title, "", "", "", cell(name, ratios(options)[name])))
    others: tuple[tuple[str, Callable[[str], tuple[float, float]]], ...] = (
        ("released, conv1 not inflated", lambda style: released_i3d(style, conv1=False)),
        ("released, every block inflated", lambda style: released_i3d(style, "all")),
    )
    for title, ratio in others:
        cells = [cell(f"I3D {s.replace('x', '×')}", ratio(s)) for s in ("3x3x3", "3x1x1")]
        lines.append(line(title, "", *cells, ""))
    return lines


def presets_table() -> list[str]:
    lines = head("preset", "network", "input", "without blocks", "with 5 blocks")
    for preset in PRESETS:
        for network in PRESETS[preset].networks:
            positions = SIZES[{**MODELS, **IMAGE_MODELS}[network][1]].positions
            plain = figures(network, preset=preset)
            cells = [size_of(plain)]
            for count in (count for count in (5, 2) if count in positions):
                note = "" if count == 5 else f" ({count} blocks)"
                cells.append(size_of(figures(network, preset=preset, non_local=count)) + note)
            clip = "×".join(map(str, plain.shape))
            lines.append(
                line(f"`{preset}`", f"`{network}`", clip, *cells, *[""] * (2 - len(cells)))
            )
    return lines


@dataclass(frozen=True)
class Published:
    """What a codebase says of one of its models: G and M as printed, "" where it says nothing."""

    preset: str
    network: str
    non_local: int
    shape: Shape
    billions: str
    millions: str
    source: str
    pairwise: str | None = None
    num_classes: int = 400

    def options(self) -> dict[str, Any]:
        named = {"preset": self.preset, "non_local": self.non_local}
        pairwise = {} if self.pairwise is None else {"pairwise": self.pairwise}
        return {**named, **pairwise, "num_classes": self.num_classes}

    def ours(self) -> Figures:
        return figures(self.network, self.shape, **self.options())

    def with_norms(self) -> float:
        """Multiply-adds in G, counted as they do: norms too, a dot product by its matrix."""
        options = self.options()
        if self.preset.endswith("-dot"):
            options["pairwise"] = "embedded_gaussian"
        found = figures(self.network, self.shape, **options).multiply_adds
        seen = norms(build(self.network, **options), self.shape)
        return (found + NORM[self.source.split()[0]] * seen) / 1e9


# What a number out of a norm costs in each codebase's count. MMAction2: gain and bias in eval mode;
# PyTorchVideo and PySlowFast: five, which is fvcore's figure of a norm in training mode.
NORM = {"MMAction2": 2, "PyTorchVideo": 5, "PySlowFast": 5, "video-nonlocal-net": 0}
I3D, C2D, SLOW, TSM = (
    f"MMAction2 configs/recognition/{name}/README.md" for name in ("i3d", "c2d", "slowonly", "tsm")
)
PTV = "PyTorchVideo docs/source/model_zoo.md"
PSF = "PySlowFast projects/pytorchvideo/README.md"
VNN = "video-nonlocal-net issue 77"


def _clip(frames: int, side: int) -> Shape:
    return (3, frames, side, side)


PUBLISHED: tuple[Published, ...] = (
    Published("caffe2-32x2", "i3d_resnet50", 0, CLIP, "", "28", VNN),
    Published("caffe2-32x2", "i3d_resnet50", 5, CLIP, "", "35", VNN),
    Published("slowfast", "c2d_resnet50", 0, _clip(8, 256), "25.89", "24.33", PSF),
    Published("slowfast", "i3d_resnet50", 0, _clip(8, 256), "37.53", "28.04", PSF),
    Published("pytorchvideo", "c2d_resnet50", 0, _clip(8, 256), "25.89", "24.33", PTV),
    Published("pytorchvideo", "i3d_resnet50", 0, _clip(8, 256), "37.53", "28.04", PTV),
    Published("mmaction-i3d", "i3d_resnet50", 0, _clip(32, 256), "43.5", "28.0", I3D),
    Published("mmaction-i3d", "i3d_resnet50", 5, _clip(32, 256), "59.3", "35.4", I3D),
    Published("mmaction-i3d", "i3d_resnet50", 5, _clip(32, 256), "56.5", "31.7", I3D, "gaussian"),
    Published("mmaction-i3d-dot", "i3d_resnet50", 5, _clip(32, 256), "59.3", "35.4", I3D),
    Published("mmaction-i3d-heavy", "i3d_resnet50", 0, _clip(32, 256), "166.3", "33.0", I3D),
    Published("mmaction-c2d", "c2d_resnet50", 0, _clip(8, 224), "19", "24.3", C2D),
    Published("mmaction-c2d", "c2d_resnet50", 0, _clip(16, 224), "39", "24.3", C2D),
    Published("mmaction-c2d-nopool", "c2d_resnet50", 0, _clip(8, 224), "33", "24.3", C2D),
    Published("mmaction-c2d-nopool", "c2d_resnet101", 0, _clip(8, 224), "63", "43.3", C2D),
    Published("mmaction-slowonly", "slowonly_resnet50", 0, _clip(4, 256), "27.38", "32.45", SLOW),
    Published("mmaction-slowonly", "slowonly_resnet50", 0, _clip(8, 256), "54.75", "32.45", SLOW),
    Published("mmaction-slowonly", "slowonly_resnet101", 0, _clip(8, 256), "112", "60.36", SLOW),
    Published("mmaction-slowonly", "slowonly_resnet50", 5, _clip(4, 256), "43.23", "39.81", SLOW),
    Published("mmaction-slowonly", "slowonly_resnet50", 5, _clip(8, 256), "96.66", "39.81", SLOW),
    Published("mmaction-tsm", "tsm_resnet50", 0, _clip(8, 224), "32.88", "23.87", TSM, None, 174),
    Published("mmaction-tsm", "tsm_resnet50", 0, _clip(16, 224), "65.75", "23.87", TSM, None, 174),
    Published("mmaction-tsm", "tsm_resnet101", 0, _clip(8, 224), "62.66", "42.86", TSM, None, 174),
    Published("mmaction-tsm", "tsm_resnet50", 5, _clip(8, 224), "61.30", "31.68", TSM),
    Published("mmaction-tsm", "tsm_resnet50", 5, _clip(8, 224), "59.06", "28.00", TSM, "gaussian"),
    Published("mmaction-tsm-dot", "tsm_resnet50", 5, _clip(8, 224), "61.30", "31.68", TSM),
    Published("mmaction-tsm", "tsm_mobilenetv2", 0, _clip(8, 256), "3.269", "2.736", TSM),
)  # fmt: skip


def published_table() -> list[str]:
    lines = head("preset", "network", "input", "ours", "with norms", "published", "source")
    for row in PUBLISHED:
        kind = f", {row.pairwise}" if row.pairwise else ""
        blocks = f", {row.non_local} blocks{kind}" if row.non_local else ""
        heads = "" if row.num_classes == 400 else f", {row.num_classes} classes"
        said = [f"{row.millions} M", *([f"{row.billions} G"] if row.billions else [])]
        lines.append(
            line(
                f"`{row.preset}`",
                f"`{row.network}`{blocks}{heads}",
                "×".join(map(str, row.shape)),
                size_of(row.ours()),
                f"{row.with_norms():.3f} G" if row.billions else "",
                ", ".join(said),
                row.source,
            )
        )
    return lines


TABLES: dict[str, Callable[[], list[str]]] = {
    "sizes": sizes_table,
    "table 2e": table_2e,
    "presets": presets_table,
    "published": published_table,
}


def page(text: str) -> str:
    """The page with its tables written anew, each between its two marks."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: benchmarks/presets.py -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"{PAGE.name} needs {begin} and {end}, once")
        rows = "\n".join(table())
        text = pattern.sub(lambda m, rows=rows: f"{m[1]}\n{rows}\n\n{m[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    print(f"{PAGE.relative_to(PAGE.parents[1])} is written")

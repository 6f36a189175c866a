"""The published models of these families: where they lie, what they take, what they reached.

Nothing here was measured by us. Figures, addresses and licences are the publishers' own, each row
naming repository and file; a model whose address could not be established has no row.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from .published_mmaction import GROUPS, OLD_GROUPS, Group


@dataclass(frozen=True)
class Published:
    """One published model.

    name: ours, for the command line. family: whose code trained it. url: the publisher's file.
    preset: a name of PRESETS, saying how the file is to be read. classes: a name of
        `labels.LISTS`, or "" where the order of the outputs is not known.
    card: fields of `Card` that this model does not share with its preset.
    top1, top5: published accuracy in percent on the validation part, None where none is; views:
        what it was measured with, in words. source: the repository and its file that say so.
    licence: of the weights, or of the code where the publisher names none for the weights.
    sha256: how it begins, "" where the publisher gives none. bytes: 0 likewise.
    note: what else one has to know.
    """

    name: str
    family: str
    url: str
    preset: str
    classes: str
    card: Mapping[str, Any]
    top1: float | None
    top5: float | None
    views: str
    source: str
    licence: str
    sha256: str = ""
    bytes: int = 0
    note: str = field(default="", kw_only=True)

    @property
    def input(self) -> str:
        """Frames x stride of a clip, or how many frames spread over the video."""
        if "frames" not in self.card:
            return "one by one"
        frames = f"{self.card['frames']}"
        dense = self.card.get("sampling", "dense") == "dense"
        return f"{frames}x{self.card['stride']}" if dense else f"{frames} spread"

    def to_dict(self) -> dict[str, Any]:
        """Its fields and input, ready for JSON."""
        return {**vars(self), "card": dict(self.card), "input": self.input}


FULL = "10 clips x 3 crops of 256"
FULL_CARD: dict[str, Any] = {"test_crop": 256, "clips": 10, "crops": 3}
META = "https://dl.fbaipublicfiles.com"


def _dense(frames: int, stride: int) -> dict[str, Any]:
    return {"sampling": "dense", "frames": frames, "stride": stride, **FULL_CARD}


# video-nonlocal-net, all R50 on Kinetics-400: our name, file name, preset
# after "caffe2-", frames, stride, figures
CAFFE2 = (
    ("c2d-32x2", "c2d_baseline_32x2_IN_pretrain_400k", "32x2", 32, 2, 72.0, 90.0),
    ("c2d-nl-32x2", "c2d_nonlocal_32x2_IN_pretrain_400k", "32x2", 32, 2, 73.9, 91.0),
    ("i3d-32x2", "i3d_baseline_32x2_IN_pretrain_400k", "32x2", 32, 2, 73.6, 90.8),
    ("i3d-nl-32x2", "i3d_nonlocal_32x2_IN_pretrain_400k", "32x2", 32, 2, 74.9, 91.6),
    ("i3d-128x1", "i3d_baseline_128x1_I3D_pretrain_400k", "128x1-affine", 128, 1, 75.2, 92.0),
    ("i3d-nl-128x1", "i3d_nonlocal_128x1_I3D_pretrain_400k", "128x1-affine", 128, 1, 76.5, 92.7),
    ("c2d-8x8", "c2d_baseline_8x8_IN_pretrain_400k", "8x8", 8, 8, 71.9, 90.0),
    ("c2d-nl-8x8", "c2d_nonlocal_8x8_IN_pretrain_400k", "8x8", 8, 8, 74.4, 91.4),
    ("i3d-8x8", "i3d_baseline_8x8_IN_pretrain_400k", "8x8", 8, 8, 73.4, 90.9),
    ("i3d-nl-8x8", "i3d_nonlocal_8x8_IN_pretrain_400k", "8x8", 8, 8, 74.7, 91.6),
    ("i3d-32x4", "i3d_baseline_32x4_I3D_pretrain_400k", "32x4-affine", 32, 4, 75.5, 92.0),
    ("i3d-nl-32x4", "i3d_nonlocal_32x4_I3D_pretrain_400k", "32x4-affine", 32, 4, 76.5, 92.6),
    ("i3d-8x8-300k", "i3d_baseline_8x8_IN_pretrain_300k", "8x8", 8, 8, 73.2, 90.8),
    ("i3d-8x8-600k-4gpu", "i3d_baseline_8x8_IN_pretrain_600k_4gpu", "8x8", 8, 8, 73.0, 90.4),
    ("i3d-8x8-300k-4gpu", "i3d_baseline_8x8_IN_pretrain_300k_4gpu", "8x8", 8, 8, 72.0, 90.1),
)  # fmt: skip

# R50 on Kinetics-400, 8x8 and trained from scratch: our name, address, preset, figures, source;
# "ptv" is PyTorchVideo's network with PySlowFast's softmax at every place of the head
FACEBOOK = (
    ("slowfast-c2d-nopool-8x8-r50", "pyslowfast/model_zoo/kinetics400/C2D_NOPOOL_8x8_R50.pkl",
     "slowfast-nopool", 67.2, 87.8, "facebookresearch/SlowFast MODEL_ZOO.md"),
    ("slowfast-i3d-8x8-r50", "pyslowfast/model_zoo/kinetics400/I3D_8x8_R50.pkl",
     "slowfast", 73.5, 90.8, "facebookresearch/SlowFast MODEL_ZOO.md"),
    ("slowfast-i3d-nln-8x8-r50", "pyslowfast/model_zoo/kinetics400/I3D_NLN_8x8_R50.pkl",
     "slowfast", 74.0, 91.1, "facebookresearch/SlowFast MODEL_ZOO.md"),
    ("slowfast-ptv-c2d-8x8-r50", "pytorchvideo/pysf_model_zoo/kinetics/C2D_8x8_R50.pyth",
     "slowfast", 71.46, 89.68, "facebookresearch/SlowFast projects/pytorchvideo/README.md"),
    ("slowfast-ptv-i3d-8x8-r50", "pytorchvideo/pysf_model_zoo/kinetics/I3D_8x8_R50.pyth",
     "slowfast", 73.27, 90.70, "facebookresearch/SlowFast projects/pytorchvideo/README.md"),
    ("pytorchvideo-c2d-8x8-r50", "pytorchvideo/model_zoo/kinetics/C2D_8x8_R50.pyth",
     "pytorchvideo", 71.46, 89.68, "facebookresearch/pytorchvideo docs/source/model_zoo.md"),
    ("pytorchvideo-i3d-8x8-r50", "pytorchvideo/model_zoo/kinetics/I3D_8x8_R50.pyth",
     "pytorchvideo", 73.27, 90.70, "facebookresearch/pytorchvideo docs/source/model_zoo.md"),
)  # fmt: skip

UNIFORM: dict[str, Any] = {"sampling": "segments", "test_crop": 224, "clips": 1, "crops": 1}
TWICE = UNIFORM | {"test_crop": 256, "clips": 2, "crops": 3, "flip": False}
TSM_DENSE = _dense(8, 8) | {"beyond": "wrap", "window": "full", "starts": "floor"}
CENTRE, ACCURATE = "1 clip, centre crop of 224", "2 clips x 3 crops of 256"
# TSM: our name, file name after "TSM_", classes, card, top-1, views, note
TSM = (
    ("8x8-dense-r50", "kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e100_dense.pth",
     "kinetics400", TSM_DENSE, 74.1, FULL, ""),
    ("nl-8x8-dense-r50", "kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e100_dense_nl.pth",
     "kinetics400", TSM_DENSE, 75.6, FULL, ""),
    ("8x8-dense-mobilenetv2",
     "kinetics_RGB_mobilenetv2_shift8_blockres_avg_segment8_e100_dense.pth",
     "kinetics400", TSM_DENSE, 69.5, FULL, ""),
    ("8f-r50", "kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth",
     "kinetics400", UNIFORM | {"frames": 8}, 71.2, CENTRE, "72.8 with 10 crops"),
    ("16f-r50", "kinetics_RGB_resnet50_shift8_blockres_avg_segment16_e50.pth",
     "kinetics400", UNIFORM | {"frames": 16}, 72.6, CENTRE, "73.7 with 10 crops"),
    ("sthv1-8f-r50", "something_RGB_resnet50_shift8_blockres_avg_segment8_e45.pth",
     "sthv1", TWICE | {"frames": 8}, 47.2, ACCURATE, "45.6 with 1 clip, centre crop"),
    ("sthv1-16f-r50", "something_RGB_resnet50_shift8_blockres_avg_segment16_e45.pth",
     "sthv1", TWICE | {"frames": 16}, 48.4, ACCURATE, "47.2 with 1 clip, centre crop"),
    ("sthv1-8f-r101", "something_RGB_resnet101_shift8_blockres_avg_segment8_e45.pth",
     "sthv1", TWICE | {"frames": 8}, 48.7, ACCURATE, "46.9 with 1 clip, centre crop"),
    ("sthv2-8f-r50", "somethingv2_RGB_resnet50_shift8_blockres_avg_segment8_e45.pth",
     "sthv2", TWICE | {"frames": 8}, 61.2, ACCURATE, ""),
    ("sthv2-16f-r50", "somethingv2_RGB_resnet50_shift8_blockres_avg_segment16_e45.pth",
     "sthv2", TWICE | {"frames": 16}, 63.1, ACCURATE, ""),
    ("sthv2-8f-r101", "somethingv2_RGB_resnet101_shift8_blockres_avg_segment8_e45.pth",
     "sthv2", TWICE | {"frames": 8}, 63.3, ACCURATE, ""),
)  # fmt: skip


def _rows() -> tuple[Published, ...]:
    return (
        *(_caffe2(*row) for row in CAFFE2),
        *(_lfb(depth) for depth in (50, 101)),
        *(_facebook(*row) for row in FACEBOOK),
        *(_mmaction(group, row, "") for group in GROUPS for row in group.rows),
        *(_mmaction(group, row, "0.x") for group in OLD_GROUPS for row in group.rows),
        *(_tsm(*row) for row in TSM),
        JESTER_ONLINE,
    )


def _caffe2(
    name: str, file: str, preset: str, frames: int, stride: int, top1: float, top5: float
) -> Published:
    return Published(
        f"caffe2-{name}-r50", "video-nonlocal-net", f"{META}/video-nonlocal/{file}.pkl",
        f"caffe2-{preset}", "kinetics400", _dense(frames, stride), top1, top5, FULL,
        "facebookresearch/video-nonlocal-net README.md", "CC-BY-NC-4.0",
    )  # fmt: skip


def _lfb(depth: int) -> Published:
    return Published(
        f"lfb-i3d-nl-32x4-r{depth}", "video-long-term-feature-banks",
        f"{META}/video-long-term-feature-banks/r{depth}_k400_pretrained.pkl", "lfb",
        "", _dense(32, 4), None, None, "",
        "facebookresearch/video-long-term-feature-banks GETTING_STARTED.md",
        "Apache-2.0 (the code's)",
        note="pre-trained on Kinetics-400 to be fine-tuned; no accuracy on it is published, nor"
        " whether the file has its head",
    )  # fmt: skip


def _facebook(
    name: str, path: str, preset: str, top1: float, top5: float, source: str
) -> Published:
    family = "PySlowFast" if name.startswith("slowfast") else "PyTorchVideo"
    return Published(
        name, family, f"{META}/{path}", preset, "kinetics400", _dense(8, 8), top1, top5, FULL,
        source, "Apache-2.0 (the code's)",
    )  # fmt: skip


def _mmaction(
    group: Group, row: tuple[str, str, float, float | None, str, str], branch: str
) -> Published:
    name, preset, top1, top5, views, stem = row
    folder, _, file = stem.rpartition("/")
    folder = folder or re.sub(r"(_\d{8})?-[0-9a-f]{8}$", "", file)
    version = "" if branch else "/v1.0"
    twice = file.endswith("df42dc84")  # two different files cannot both have it
    return Published(
        name, "MMAction2",
        f"https://download.openmmlab.com/mmaction{version}/recognition/{group.folder}/{folder}/"
        f"{file}.pth",
        preset, group.classes, group.card, top1, top5, views,
        f"open-mmlab/mmaction2{' 0.x' if branch else ''}"
        f" configs/recognition/{group.folder}/README.md",
        "Apache-2.0 (the code's)", "" if twice else file[-8:],
        note="the hash in its file's name is also in another file's, so it is not checked"
        if twice
        else "",
    )  # fmt: skip


def _tsm(
    name: str, file: str, classes: str, card: dict[str, Any], top1: float, views: str, note: str
) -> Published:
    return Published(
        f"tsm-{name}", "TSM", f"{TSM_FOLDER}/TSM_{file}", "tsm", classes, card, top1, None, views,
        "mit-han-lab/temporal-shift-module README.md", "MIT (the code's)", note=note,
    )  # fmt: skip


TSM_FOLDER = "https://hanlab18.mit.edu/projects/tsm/models"
JESTER_ONLINE = Published(
    "tsm-jester-online-mobilenetv2", "TSM",
    f"{TSM_FOLDER}/mobilenetv2_jester_online.pth.tar", "tsm-online", "jester", {}, None, None, "",
    "mit-han-lab/temporal-shift-module online_demo/main.py", "MIT (the code's)",
    note="no accuracy is published",
)  # fmt: skip

PUBLISHED: Mapping[str, Published] = {row.name: row for row in _rows()}


def find(name: str) -> Published:
    """The row of a published model. Raises `UserError` naming the nearest ones if there is none."""
    if name in PUBLISHED:
        return PUBLISHED[name]
    near = difflib.get_close_matches(name, PUBLISHED, n=3, cutoff=0.4)
    hint = f"; near it are {', '.join(near)}" if near else ""
    raise UserError(
        f"there is no published model {name!r}{hint}; `nonlocalnet weights` lists them all"
    )

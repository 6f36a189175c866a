"""PyTorchVideo's torch files: C2D and I3D ResNets, and `create_nonlocal` blocks."""

from __future__ import annotations

from .family import Family
from .names import Names

_BLOCK, _RES = "layer{L}.{i}", "blocks.{B}.res_blocks.{i}."
ROWS = [
    ("blocks.0.conv.{p}", "conv1.{p}"),
    ("blocks.0.norm.{p}", "bn1.{p}"),
    (_RES + "branch1_conv.{p}", _BLOCK + ".downsample.0.{p}"),
    (_RES + "branch1_norm.{p}", _BLOCK + ".downsample.1.{p}"),
    (_RES + "branch2.conv_a.{p}", _BLOCK + ".conv1.{p}"),
    (_RES + "branch2.norm_a.{p}", _BLOCK + ".bn1.{p}"),
    (_RES + "branch2.conv_b.{p}", _BLOCK + ".conv2.{p}"),
    (_RES + "branch2.norm_b.{p}", _BLOCK + ".bn2.{p}"),
    (_RES + "branch2.conv_c.{p}", _BLOCK + ".conv3.{p}"),
    (_RES + "branch2.norm_c.{p}", _BLOCK + ".bn3.{p}"),
    ("blocks.6.proj.{p}", "fc.{p}"),
]
FAMILY = Family("PyTorchVideo", Names(ROWS), lambda told, notes: ("pytorchvideo",))

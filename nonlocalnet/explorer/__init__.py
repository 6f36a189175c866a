"""The attention explorer: one HTML page in which any place of a clip can be pointed at.

It holds the embeddings of the blocks and the frames, computes rows and columns of their maps by
itself and asks for nothing from outside.
"""

from __future__ import annotations

import io
import json
import os
import re
from base64 import b64encode
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..attention import Map
from ..card import Card, card_of
from ..errors import UserError
from ..report.markup import escape
from ..scene import scenes
from ..sight import Shot, shoot
from ..transforms import normalize
from ..video import Video
from .pack import pack

SAID = 3  # classes
COARSE = 64  # frames smaller than this are shown with their pixels


def explorer_page(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    seconds: float | None = None,
    blocks: str | Sequence[str] = "all",
    top: int = 20,
) -> str:
    """The page for one clip of a video: HTML that stands alone.

    seconds: a time that the clip is to show, as for `attend_video`; None is the middle clip.
    blocks: names of modules that blocks follow, or "all". top: how many arrows at first.

    Raises `UserError` as `attend_video` does, and for a pairwise function of the user's over too
    many pairs.
    """
    with Video(path) as video:
        shot = shoot(video, card_of(model), video.path, seconds)
    return page_of(model, shot, blocks=blocks, top=top)


def page_of(
    model: nn.Module, shot: Shot, *, blocks: str | Sequence[str] = "all", top: int = 20
) -> str:
    """The page for a clip of a video that is read already."""
    card = card_of(model)
    network = card.architecture.get("name", "the network")
    return compose(
        model,
        normalize(shot.crop, card),
        shot.frames,
        title=f"What {network} looks at in {Path(shot.path).name}",
        seconds=shot.seconds,
        blocks=blocks,
        top=top,
    )


def compose(
    model: nn.Module,
    clip: Tensor,
    frames: Tensor,
    *,
    title: str = "What the network looks at",
    seconds: Sequence[float] | None = None,
    blocks: str | Sequence[str] = "all",
    top: int = 20,
) -> str:
    """The page for any network with non-local blocks, and any clip or image.

    clip: (3, T, H, W), or (3, H, W) for a network of images, as the network takes it. frames:
    (T, H, W, 3) uint8, what it shows, of the same size; seconds: their times.
    """
    if frames.dtype != torch.uint8 or frames.dim() != 4 or frames.shape[3] != 3:
        raise ValueError(f"frames are (T, H, W, 3) uint8, not {frames.dtype} {tuple(frames.shape)}")
    outputs: list[Any] = []
    hook = model.register_forward_hook(lambda *args: outputs.append(args[2]))
    try:
        (of_clip,) = scenes(model, clip, blocks)
    finally:
        hook.remove()
    if of_clip[0].size != tuple(frames.shape[:3]):
        raise ValueError(
            f"the frames {tuple(frames.shape[:3])} are not those of the clip {of_clip[0].size}"
        )
    (at,) = Map(of_clip[-1]).informative(1)
    frame, y, x = (min(max(p, 0), size - 1) for p, size in zip(at, frames.shape, strict=False))
    return _page(
        title,
        {
            "title": title,
            "scores": _said(model, outputs[0]),
            "size": of_clip[0].size,
            "seconds": seconds,
            "frames": [_picture(pixels) for pixels in frames],
            "dim": _dimming(frames),
            "blocks": [pack(scene) for scene in of_clip],
            "start": {"block": len(of_clip) - 1, "at": [round(frame), y, x]},
            "top": top,
        },
    )


def _said(model: nn.Module, output: Any) -> list[tuple[str, float]]:
    """The best classes of a clip with their scores, if these are the network's outputs."""
    card = getattr(model, "card", None)
    if not isinstance(card, Card) or not isinstance(output, Tensor) or output.dim() != 2:
        return []
    logits = output[0].double().cpu()
    scores = logits.sigmoid() if card.activation == "sigmoid" else logits.softmax(0)
    if not bool(scores.isfinite().all()):
        raise UserError("the network's scores are not numbers (NaN or infinity)")
    best = scores.topk(min(SAID, len(scores)))
    return [
        (card.class_name(label), float(score))
        for score, label in zip(best.values, best.indices.tolist(), strict=True)
    ]


def _dimming(frames: Tensor) -> str:
    """A CSS filter: dark grey, as bright in dark clips as in light ones."""
    bright = float(np.quantile(frames.numpy().mean(-1), 0.99))
    return f"grayscale(1) brightness({min(1.3, 125 / max(bright, 1.0)):.2f})"


def _picture(pixels: Tensor) -> str:
    data = io.BytesIO()
    image = Image.fromarray(pixels.numpy())
    if max(image.size) < COARSE:  # a JPEG would smear its few pixels
        image.save(data, "PNG")
        return "data:image/png;base64," + b64encode(data.getvalue()).decode("ascii")
    image.save(data, "JPEG", quality=88)
    return "data:image/jpeg;base64," + b64encode(data.getvalue()).decode("ascii")


def _page(title: str, data: dict[str, Any]) -> str:
    here = resources.files(__package__)
    page, style, maps, script = (
        (here / name).read_text(encoding="utf-8")
        for name in ("explorer.html", "explorer.css", "maps.js", "explorer.js")
    )
    # "<" could end the element that holds the data
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    parts = {"title": escape(title), "style": style, "maps": maps, "script": script, "data": text}
    # all at once: a part that looks like a place for another stays as it is
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], page)

"""A video as a strip of small frames inside the page."""

from __future__ import annotations

import io
from base64 import b64encode

import numpy as np
from PIL import Image

from ..errors import UserError
from ..video import Video
from .markup import Markup, element

FRAMES = 6
HEIGHT = 108  # pixels; twice what a strip of six shows on a page, for sharp screens
COARSE = 64  # frames lower than this are shown with their pixels, not blurred


def strip(path: str) -> Markup:
    """Frames spread evenly over a video, as JPEGs in the page; words if it cannot be read."""
    try:
        with Video(path) as video:
            places = np.linspace(0, len(video) - 1, FRAMES).round().astype(np.int64)
            frames = video.frames(places)  # (FRAMES, H, W, 3) uint8
    except (UserError, OSError):
        return element("p", "(its frames cannot be read any more)", class_="note")
    images = [element("img", src=_jpeg(Image.fromarray(f.numpy())), alt="") for f in frames]
    coarse = frames.shape[1] < COARSE
    return element("div", *images, class_="strip coarse" if coarse else "strip")


def _jpeg(image: Image.Image) -> str:
    if image.height > HEIGHT:
        image = image.resize((max(1, round(image.width * HEIGHT / image.height)), HEIGHT))
    data = io.BytesIO()
    # full colour resolution: halving it would smear the discs of a 32-pixel frame
    image.save(data, "JPEG", quality=82, subsampling=0)
    return "data:image/jpeg;base64," + b64encode(data.getvalue()).decode("ascii")

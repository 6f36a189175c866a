"""A decoded picture as it is shown: RGB, turned and mirrored as its file says."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray


def display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix: the point (x, y) is shown at (ax + cy, bx + dy)."""
    # `frame.side_data` would leave a circle, and with it the picture to the garbage collector
    sides: Any = SideDataContainer(frame)  # type: ignore[call-arg]
    if "DISPLAYMATRIX" not in sides:
        return 1, 0, 0, 1
    values = np.frombuffer(bytes(sides["DISPLAYMATRIX"]), dtype=np.int32)
    return int(values[0]), int(values[1]), int(values[3]), int(values[4])


def upright(frame: VideoFrame, converter: VideoReformatter) -> NDArray[np.uint8]:
    """RGB as shown, (H, W, 3), in memory of the converter's frame.

    Raises `av.FFmpegError` for a picture that has no RGB form.
    """
    plane: Any = converter.reformat(frame, format="rgb24", threads=1).planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    rgb: Any = rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)
    a, b, c, d = display_matrix(frame)
    # the picture's x axis is shown along (a, b), its y axis along (c, d)
    if abs(b) > abs(a):
        a, d, rgb = c, b, rgb.transpose(1, 0, 2)
    return cast(NDArray[np.uint8], rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])

"""Orders of work in which others turn a file into a training clip, for decoding.py to compare with.

Their packages are not used. Each function does what the named codebase does with one file, step
after step and with the same libraries, from reading its public code; only the start of the clip
and the place of the crop are given, so that all of them show the same frames.

PySlowFast:  decode from a key frame to the end of the clip, turn every picture in between into
             RGB, keep what the clip needs, normalise in float, resize whole frames, crop.
MMAction2:   read the file into memory, decode the clip (with PyAV from the first frame of the file
             on, each picture turned into RGB), resize whole frames, crop, resize the crop. It
             normalises on the device.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

try:
    import cv2
    import decord
except ImportError as error:  # nothing else here needs them
    raise ImportError(f"{error}: pip install opencv-python-headless decord") from error

Picture = NDArray[np.uint8]
Pictures = list[Picture]
ToRgb = Callable[[av.VideoFrame], Picture]
SIZE = 224  # of the crop


@dataclass(frozen=True)
class Draw:
    """What is random in a clip: its first frame, a square of the picture, whether it is flipped."""

    start: int
    top: int
    left: int
    side: int
    flip: bool


def to_rgb(frame: av.VideoFrame) -> Picture:
    """As both codebases call it; PyAV then takes as many threads as there are cores."""
    return frame.to_rgb().to_ndarray()


def one_thread(frame: av.VideoFrame) -> Picture:
    """The same on one thread, for the reader: in loaders that run side by side more only cost."""
    return frame.reformat(format="rgb24", threads=1).to_ndarray()


def pyslowfast(path: str, frames: int, stride: int, draw: Draw, rgb: ToRgb = to_rgb) -> Tensor:
    """PyAV, float: slowfast/datasets/{kinetics,decoder,transform}.py. -> (3, T, 224, 224)"""
    container = av.open(path)
    stream = container.streams.video[0]
    tick = stream.duration / stream.frames
    first, last = (int(n * tick) for n in (draw.start, draw.start + frames * stride - 1))
    container.seek(max(first - 1024, 0), any_frame=False, backward=True, stream=stream)
    found = {}
    for frame in container.decode(video=0):
        if frame.pts < first:
            continue
        found[frame.pts] = frame
        if frame.pts > last:
            break
    container.close()
    whole = np.stack([rgb(found[pts]) for pts in sorted(found)])
    kept = torch.linspace(0, frames * stride - 1, frames).clamp(0, len(whole) - 1).long()
    clip = torch.as_tensor(whole).index_select(0, kept)
    clip = (clip.float() / 255.0 - torch.tensor([0.45] * 3)) / torch.tensor([0.225] * 3)
    clip = clip.permute(3, 0, 1, 2)  # (T, H, W, 3) -> (3, T, H, W)
    height, width = clip.shape[2:]
    scale = SIZE / draw.side
    size = (max(SIZE, round(height * scale)), max(SIZE, round(width * scale)))
    clip = functional.interpolate(clip, size=size, mode="bilinear", align_corners=False)
    top = min(round(draw.top * scale), size[0] - SIZE)
    left = min(round(draw.left * scale), size[1] - SIZE)
    clip = clip[:, :, top : top + SIZE, left : left + SIZE]
    return clip.flip(-1) if draw.flip else clip


def mmaction2_pyav(path: str, frames: int, stride: int, draw: Draw, rgb: ToRgb = to_rgb) -> Tensor:
    """mmaction/datasets/transforms/loading.py, PyAVInit and PyAVDecode. -> (3, T, 224, 224)"""
    wanted = draw.start + np.arange(frames) * stride
    pictures: Pictures = []
    with av.open(io.BytesIO(Path(path).read_bytes())) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number > wanted.max() + 1:
                break
            pictures.append(rgb(frame))
    return _mmaction2_crop([pictures[i % len(pictures)] for i in wanted], draw)


def mmaction2_decord(path: str, frames: int, stride: int, draw: Draw) -> Tensor:
    """The same file, DecordInit and DecordDecode. -> (3, T, 224, 224)"""
    wanted = draw.start + np.arange(frames) * stride
    reader = decord.VideoReader(io.BytesIO(Path(path).read_bytes()), num_threads=1)
    return _mmaction2_crop(list(reader.get_batch(wanted).asnumpy()), draw)


def _mmaction2_crop(pictures: Pictures, draw: Draw) -> Tensor:
    """Resize to a short side of 256, cut a square of it, resize that: transforms/processing.py.

    The square is ours; they draw it from four sizes or by area, at the same cost.
    """
    height, width = pictures[0].shape[:2]
    scale = 256 / min(height, width)
    size = (round(width * scale), round(height * scale))
    pictures = [cv2.resize(p, size, interpolation=cv2.INTER_LINEAR) for p in pictures]
    top, left, side = (round(n * scale) for n in (draw.top, draw.left, draw.side))
    pictures = [p[top : top + side, left : left + side] for p in pictures]
    pictures = [cv2.resize(p, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for p in pictures]
    if draw.flip:
        pictures = [cv2.flip(p, 1) for p in pictures]
    return torch.from_numpy(np.stack(pictures).transpose(3, 0, 1, 2))

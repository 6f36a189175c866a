"""A streaming network on a film or a camera, step by step: neither torch nor nonlocalnet.

    pip install onnxruntime numpy av
    python stream.py online.onnx film.mp4          # online.json lies beside online.onnx
    python stream.py online.onnx /dev/video0 v4l2  # or 0 avfoundation, or video=NAME dshow

Prints the time in seconds, the class and its score, averaged over as many steps as a training clip
has frames. The pictures become the same numbers as in nonlocalnet, to the last bit.
"""

import json
import sys
from collections import deque
from functools import cache
from pathlib import Path

import av
import numpy as np
import onnxruntime


@cache
def taps(old, new):
    """Which of `old` pixels make each of `new`, with which whole-number weights; their scale."""
    ratio = old / new
    reach = max(ratio, 1)  # of the triangle; wider where the picture shrinks
    centres = (np.arange(new)[:, None] + 0.5) * ratio
    which = np.floor(centres - reach).astype(int) + np.arange(int(2 * reach) + 2)
    shares = np.clip(1 - abs(which + 0.5 - centres) / reach, 0, 1) * (which >= 0) * (which < old)
    shares /= shares.sum(1, keepdims=True)
    bits = min(int(np.log2((2**15 - 0.5) / shares.max())), 22)  # 16-bit weights, as torch has them
    return which.clip(0, old - 1), np.floor(shares * 2**bits + 0.5).astype(np.int32), bits


def prepared(picture, look):
    """A frame (H, W, 3) uint8 -> (1, 3, crop, crop) float32, as the sidecar's "picture" says."""
    height, width, _ = picture.shape
    crop, short = look["crop"], look["short_side"]
    side = max((2 * crop * min(height, width) + short) // (2 * short), 1)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    which, weights, bits = taps(side, crop)
    for _ in range(2):  # along x, then along y
        square = square.swapaxes(0, 1)
        parts = (w[:, None, None] * square[i] for i, w in zip(which.T, weights.T, strict=True))
        square = np.minimum((sum(parts) + 2 ** (bits - 1)) >> bits, 255)
    mean, std = (np.array(look[name], np.float32) for name in ("mean", "std"))
    return ((square.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]


def pictures(source, container=None, gap=0.0):
    """(seconds, picture) every `gap` seconds: what is shown just after; every frame if gap is 0."""
    with av.open(source, format=container) as file:
        stream = file.streams.video[0]
        begin, steps, shown = None, 0, None
        for frame in file.decode(stream):
            begin = frame.time if begin is None else begin
            now = frame.time - begin
            while gap and shown is not None and steps * gap + 0.005 < now:
                yield steps * gap, shown
                steps += 1
            shown = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            if not gap:
                yield now, shown
        while gap and shown is not None and steps * gap + 0.005 < now + 1 / stream.average_rate:
            yield steps * gap, shown
            steps += 1


def answers(network, sidecar, source, container=None):
    """(seconds, logits) of each step of the network on a film or a camera."""
    session = onnxruntime.InferenceSession(network)
    state = {  # nothing seen yet: zeros
        i["name"]: np.zeros([1 if n == "batch" else n for n in i["shape"]], i["type"])
        for i in sidecar["inputs"][1:]
    }
    names = ["logits", *(after for _, after in sidecar["states"])]
    for seconds, picture in pictures(source, container, sidecar["gap"]):
        frame = prepared(picture, sidecar["picture"])
        logits, *after = session.run(names, {"frame": frame, **state})
        state = dict(zip(state, after, strict=True))
        yield seconds, logits[0]


def scores(logits, activation):
    """Softmax over the classes, or each class by itself."""
    power = np.exp(logits - logits.max())
    return power / power.sum() if activation == "softmax" else 1 / (1 + np.exp(-logits))


def main(network, source, container=None):
    sidecar = json.loads(Path(network).with_suffix(".json").read_text(encoding="utf-8"))
    if sidecar["kind"] != "stream":
        sys.exit("this is no network of frames: export one with --stream")
    recent = deque(maxlen=sidecar["frames"])
    for seconds, logits in answers(network, sidecar, source, container):
        recent.append(logits)
        found = scores(np.mean(recent, 0), sidecar["activation"])
        best = int(found.argmax())
        print(f"{seconds:8.2f}  {found[best]:.3f}  {sidecar['classes'][best]}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

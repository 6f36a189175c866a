"""Small video files of every awkward kind; each frame shows its own number in blocks of light."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, RATE = 96, 64, 25
BITS = 8
# x264 gives the same bytes again only without its macroblock tree, and on one thread
REPEATABLE = "mbtree=0:threads=1"


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """(H, W, 3): the upper half spells `number` in BITS columns, below a bar moves with it."""
    column = np.minimum(np.arange(width) * BITS // width, BITS - 1)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(width) * 200 // width
    image[..., 2] = (np.arange(height) * 200 // height)[:, None]
    image[: height // 2] = (((number >> column) & 1) * 200 + 28)[:, None]
    image[height // 2 :, number % width : number % width + 4] = 255
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that a decoded picture shows."""
    height, width, _ = image.shape
    edges = [-(-width * bit // BITS) for bit in range(BITS + 1)]
    columns = [image[: height // 2 - 2, a:b].mean() for a, b in pairwise(edges)]
    return sum((value > 128) << bit for bit, value in enumerate(columns))


def encode(
    path: Path,
    *,
    frames: int = 60,
    codec: str = "libx264",
    container: str = "mp4",
    pixels: str = "yuv420p",
    size: tuple[int, int] = (HEIGHT, WIDTH),
    ticks: Sequence[int] | None = None,
    base: Fraction = Fraction(1, RATE),
    bframes: int | None = None,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    sound_first: bool = False,
) -> None:
    """Encode pictures 0, 1, ... with a key frame every 12; `ticks` are their times in `base`."""
    with av.open(str(path), "w", format=container, container_options=muxing or {}) as out:
        sound = out.add_stream("aac", rate=16000, layout="mono") if sound_first else None
        default = {"x264-params": REPEATABLE} if codec == "libx264" else {}
        stream = out.add_stream(codec, rate=RATE, options=options or default)
        stream.height, stream.width = size
        stream.pix_fmt, stream.gop_size = pixels, 12
        stream.codec_context.time_base = base
        if bframes is not None:
            stream.codec_context.max_b_frames = bframes
        if sound is not None:
            write_silence(out, sound)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size)).reformat(format=pixels)
            frame.pts, frame.time_base = (ticks[number] if ticks else number), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def write_silence(out: av.container.OutputContainer, stream: av.AudioStream) -> None:
    """One second of it."""
    silence = np.zeros((1, 16000), np.float32)
    frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
    frame.sample_rate = 16000
    out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def copy(
    source: Path, path: Path, container: str, *, start: float = 0.0, shift: float = 0.0
) -> None:
    """Stream copy, shown from `start` seconds on (cut at the key frame before), moved by `shift`.

    In an mp4 the pictures between the key frame and `start` are hidden by an edit list.
    """
    with av.open(str(source)) as given, av.open(str(path), "w", format=container) as out:
        stream = given.streams.video[0]
        target = out.add_stream_from_template(stream)
        moved = round((shift - start) / stream.time_base)
        given.seek(round(start / stream.time_base), stream=stream)
        for packet in given.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                packet.stream = target
                out.mux(packet)


def change(
    source: Path, path: Path, number: int, *, hide_vp8: bool = False, claim_key: bool = False
) -> None:
    """Stream copy with one packet changed.

    hide_vp8: its VP8 frame is never shown. claim_key: the container calls it a key frame.
    """
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = given.streams.video[0]
        target = out.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.dts is not None]
        for place, packet in enumerate(packets):
            data = bytearray(bytes(packet))
            if hide_vp8 and place == number:
                data[0] &= ~16
            copied = av.Packet(bytes(data))
            copied.pts, copied.dts, copied.time_base = packet.pts, packet.dts, packet.time_base
            copied.is_keyframe = packet.is_keyframe or (claim_key and place == number)
            copied.stream = target
            out.mux(copied)


def turn(source: Path, path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Copy an mp4 with another display matrix (a, b, c, d) in its track header."""
    data = bytearray(source.read_bytes())
    # version, flags and 36 bytes of times, numbers and volume stand between the name and the matrix
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def decode(path: Path) -> list[NDArray[np.uint8]]:
    """Every picture of a plain decode from the first byte on; what fails is passed over."""
    pictures = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_type = "NONE"  # how damage is patched up depends on it
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
                pictures += packet.decode()
            except StopIteration:
                break
            except av.FFmpegError:
                continue
    return [picture.to_ndarray(format="rgb24") for picture in pictures]

"""Video files one level down: opening them, and what their packets say before any decoding."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from .errors import UserError

# Every other container stores no presentation times (AVI, raw streams), or seeks only roughly and
# cannot tell a last picture that was cut off from a whole one (MPEG-TS, MPEG-PS, ASF, ...).
SEEKABLE = ("mov", "matroska")

# Demuxers that follow other files or never end, and those that take any text for a picture.
REFUSED = {"concat", "dash", "hls", "image2", "image2pipe", "lavfi", "rtp", "rtsp", "sap", "sdp"}
REFUSED |= {"adf", "bin", "idf", "tty", "xbin", "data", "rawvideo"}


BinaryFile = BinaryIO | io.RawIOBase


class VideoError(UserError):
    """A file that cannot be read or written as video; the sentence names the file."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        # An exception is rebuilt from its message by default; this one takes two arguments.
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class Index:
    """What the packets of a stream say: times in its time base, shown pictures sorted by time.

    Frame i is shown at pts[i] and stored in packet number packet[i], in decoding order; the key
    frames are shown at key_pts and stored in packets key_packet.
    """

    pts: NDArray[np.int64]
    packet: NDArray[np.int64]
    key_pts: NDArray[np.int64]
    key_packet: NDArray[np.int64]
    doubt: str  # why the packets do not tell what the decoder will show; empty if they do


def file_size(path: str) -> int:
    """Bytes of a regular file that is not empty; `VideoError` for everything else."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise VideoError(path, f"cannot be opened: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(path, "is a folder, not a video file")
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(path, "is not a regular file")
    if not status.st_size:
        raise VideoError(path, "is empty (0 bytes)")
    return status.st_size


def demuxers() -> str:
    """The formats that may be read, for FFmpeg's `format_whitelist`."""
    names = {name for name in av.formats_available if not name.endswith("_pipe")}
    return ",".join(sorted(names - REFUSED))


def open_video(
    path: str, file: BinaryFile | None = None, hollow: int | None = None
) -> tuple[InputContainer, VideoStream]:
    """The opened file and its best video stream, with all other streams switched off.

    file: what to read in place of the local file `path`. hollow: the number of the stream to take
    from a file that has its header, but nothing in its packets. Raises `VideoError`.
    """
    options = {"format_whitelist": demuxers()}
    if hollow is not None:
        options["fflags"] = "noparse+nofillin"  # what the header says is not looked up in packets
    try:
        # "file:" so that no part of the name is taken for a protocol; a title in a foreign
        # encoding must not make a video unreadable
        container = av.open(
            f"file:{path}" if file is None else file,
            "r",
            container_options=options,
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError, UnicodeError) as error:
        raise VideoError(path, _why_not(path, file, error)) from error
    return container, video_stream(path, container, hollow)


def video_stream(path: str, container: InputContainer, number: int | None = None) -> VideoStream:
    """The best video stream, or that of this number, with all other streams switched off.

    Cover pictures do not count. Raises `VideoError` after it has closed the container.
    """
    still = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [s for s in container.streams.video if not s.disposition & still]
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in videos else next(iter(videos), None)
    if number is not None:
        stream = next((s for s in videos if s.index == number), None)
    if stream is None:
        kinds = sorted(
            {s.type if s.type != "video" else "a still picture" for s in container.streams}
        )
        container.close()
        raise VideoError(path, f"has no video stream, only {' and '.join(kinds) or 'a header'}")
    if stream.codec_context is None:
        container.close()
        raise VideoError(path, "is in a codec that cannot be decoded here")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    # loaders run many of these side by side; more threads in each only cost
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def _why_not(path: str, file: BinaryFile | None, error: Exception) -> str:
    try:
        with Path(path).open("rb") if file is None else file as opened:
            opened.seek(0)
            start = opened.read(8)
    except OSError as unreadable:
        return f"cannot be read: {unreadable.strerror}"
    if start[4:] == b"ftyp":
        return "is an mp4 without its index: it was cut off, or is still being written"
    if isinstance(error, av.ArgumentError):
        return "is a still image, a playlist or a text, not a video file"
    text = error.strerror if isinstance(error, OSError | av.FFmpegError) else str(error)
    return f"is not a video file that FFmpeg can read ({text})"


def keeps_time(container: InputContainer) -> bool:
    """Whether the container stores presentation times, rather than a constant rate."""
    untimed = Flags(container.format.flags) & Flags.no_timestamps
    return container.format.name != "avi" and not untimed


def nominal_rate(stream: VideoStream) -> Fraction:
    """Frames per second as the file claims, 25 if it claims nothing."""
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def packets(
    container: InputContainer, stream: VideoStream, size: int
) -> Iterator[Packet[VideoStream] | None]:
    """The stream's packets from where the container stands, then an empty one that flushes.

    If the file breaks off, None comes in its place. Ends in any case: packets that add up to many
    times the size of the file come from an index that runs in circles.
    """
    left = 16 * size + 2**20
    try:
        demux: Any = container.demux(stream)
        with closing(demux) as demuxed:  # dropped unclosed, PyAV's generator leaks
            for packet in demuxed:
                left -= packet.size + 1
                if left < 0:
                    break
                yield packet
                if flushes(packet):
                    return
    except (av.FFmpegError, IndexError):  # PyAV may trip over streams that appear late in a file
        pass
    yield None


def flushes(packet: Packet[VideoStream]) -> bool:
    """Whether this is the empty packet after the last, which makes the decoder give up its rest."""
    return packet.dts is None and not packet.size


def scan(container: InputContainer, stream: VideoStream, size: int) -> Index:
    """Read every packet, decode none."""
    family = container.format.name.split(",")[0]
    if family not in SEEKABLE:
        none = np.empty(0, np.int64)
        return Index(none, none, none, none, f"{family} files give no dependable times")
    doubt = ""
    rows = []
    for packet in packets(container, stream, size):
        if packet is None:
            doubt = "the file breaks off"
            break
        if flushes(packet):
            break
        # bit 4 of a VP8 frame says whether it is shown
        hidden = stream.codec_context.name == "vp8" and not bytes(packet)[0] & 16
        if packet.pts is None or packet.is_corrupt or not packet.size or hidden:
            doubt = "a packet is damaged, empty, hidden or without a time"
            break
        rows.append((packet.pts, packet.is_keyframe, packet.is_discard))
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    pts, key, shown = table[:, 0], table[:, 1] != 0, table[:, 2] == 0
    order = np.flatnonzero(shown)[np.argsort(pts[shown])]
    doubt = doubt or _disorder(pts, key, pts[order], stream.frames)
    return Index(pts[order], order, pts[key], np.flatnonzero(key), doubt)


def _disorder(
    pts: NDArray[np.int64], key: NDArray[np.bool_], shown: NDArray[np.int64], promised: int
) -> str:
    """What is wrong with the times of the packets (in decoding order) and of the pictures."""
    if len(pts) < promised:
        return f"the header promises {promised} frames, {len(pts)} are there"
    if not len(shown) or not key[0] or shown[0] < pts[0]:
        return "it does not start with a key frame"
    if (np.diff(shown) == 0).any() or (np.diff(pts[key]) <= 0).any():
        return "times repeat, or key frames are out of order"
    return ""


def h264_prefix(stream: VideoStream) -> int:
    """Bytes of the length that stands before each unit of an H.264 packet, 0 if there is none."""
    head = stream.codec_context.extradata or b""
    if stream.codec_context.name != "h264" or len(head) < 5 or head[0] != 1:
        return 0
    return (head[4] & 3) + 1


def unreferenced(packet: Packet[VideoStream], prefix: int) -> bool:
    """Whether no other picture is predicted from this one, so that it need not be decoded.

    H.264 says so in the head of each slice (nal_ref_idc, section 7.4.1 of the standard). False
    for packets of other codecs and for those that bring more than the picture.
    """
    if not prefix or packet.is_keyframe:
        return False
    data = memoryview(packet)
    place, kinds = 0, set()
    while place + prefix < len(data):
        length = int.from_bytes(data[place : place + prefix], "big")
        kinds.add(data[place + prefix] & 127)  # two bits of nal_ref_idc, five of the type
        place += prefix + length
    # 1 a slice with nal_ref_idc 0; 6 remarks, 9 the start of a picture, 12 padding
    return 1 in kinds and kinds <= {1, 6, 9, 12}

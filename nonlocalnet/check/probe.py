"""One file, decoded to its end: what it is, what it promises and what came."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import fsspec
from av.container import InputContainer
from av.video.stream import VideoStream

from ..footage import Footage, open_sample
from ..opening import VideoFile
from ..packets import flushes, packets
from ..samples import Sample, is_address
from ..video import VideoError, VideoInfo
from .fingerprint import fingerprint, look_of, places

DECODED_BYTES = 1 << 27  # whole frames held at a time while a file is decoded to its end


@dataclass(frozen=True)
class Finding:
    """What was found out about one file, whatever its label; a line of the journal.

    bytes, time: its size and the time of its last change in nanoseconds, before it was opened.
    reason: why it cannot be used; if there is none, frames can be had from it.
    corrupt: damaged pictures and packets. complete: whether it was decoded to its end in time.
    came: how much of what its header promises is there, 0 to 1.
    gop: the most frames from one key frame to the next.
    digest: of its bytes. look: its `fingerprint`. seconds: what the check took.
    limit: the time limit that it ran out of, else 0.
    """

    bytes: int = 0
    time: int = 0
    reason: str = ""
    info: VideoInfo | None = None
    corrupt: int = 0
    complete: bool = False
    came: float = 1.0
    gop: int = 0
    digest: str = ""
    look: str = ""
    seconds: float = 0.0
    limit: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Finding:
        """What `to_dict` gave. Raises `TypeError` for other fields."""
        info = values["info"] and VideoInfo(**values["info"])
        return cls(**{**values, "info": info})


def probe(sample: Sample) -> Iterator[Finding]:
    """What is known after opening a file, after reading its bytes, and after decoding it all.

    The last one has a `reason` or is `complete`. Of a part of a file, `info` describes the part.
    """
    try:
        with open_sample(sample) as video:
            found = Finding(info=_info(video, sample))
            yield found
            if not sample.pictures:
                came, gop = _packets(sample.path)
                if sample.end < math.inf:
                    came = _share(_seconds(video), sample.end - max(0.0, sample.start))
                found = replace(found, came=came, gop=gop, digest=_digest(sample))
                yield found
            pixels = _blake() if sample.pictures else None
            look = _decode_all(video, pixels)
            digest = pixels.hexdigest() if pixels else found.digest
            yield replace(found, corrupt=video.corrupt, digest=digest, look=look, complete=True)
    except VideoError as error:
        yield Finding(reason=error.reason)
    except (OSError, MemoryError) as error:
        yield Finding(reason=str(error) or "there is not enough memory to decode it")


def _info(video: Footage, sample: Sample) -> VideoInfo:
    if sample.start <= 0 and sample.end == math.inf:
        return video.info
    return replace(video.info, frames=len(video), duration=_seconds(video))


def _seconds(video: Footage) -> float:
    times = video.timestamps
    return float(times[-1] - times[0]) + 1 / video.info.fps


def _decode_all(video: Footage, pixels: hashlib.blake2b | None) -> str:
    """The fingerprint; pixels: takes in all of them."""
    step = max(1, DECODED_BYTES // (video.info.height * video.info.width * 3))
    wanted = set(places(len(video)))
    looks = {}
    for start in range(0, len(video), step):
        frames = video.frames(range(start, min(start + step, len(video))))
        if pixels is not None:
            pixels.update(frames.numpy().tobytes())
        for number in wanted & set(range(start, start + len(frames))):
            looks[number] = look_of(frames[number - start])
    return fingerprint(looks, len(video))


def _packets(path: str) -> tuple[float, int]:
    """How much of what is promised came, 0 to 1; the most frames from key frame to key frame."""
    file = VideoFile(path)
    container, stream = file.open()
    with closing(file), container:
        count = longest = since = 0
        end = 0.0  # seconds at which the last picture stops being shown
        for packet in packets(container, stream, file.size):
            if packet is None or flushes(packet):
                break
            since = 1 if packet.is_keyframe else since + 1
            count, longest = count + 1, max(longest, since)
            if packet.pts is not None and packet.time_base:
                shown = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                end = max(end, shown)
        return _came(container, stream, count, end), longest


def _came(container: InputContainer, stream: VideoStream, count: int, end: float) -> float:
    """What came of what is promised, where the header is to be trusted in that."""
    family = container.format.name.split(",")[0]
    if family in ("mov", "avi"):
        return min(1.0, count / stream.frames) if stream.frames else 1.0
    if family in ("matroska", "flv"):
        return _share(end, _promised_seconds(container, stream))
    return 1.0  # other containers promise nothing: their length is what can be found


def _promised_seconds(container: InputContainer, stream: VideoStream) -> float:
    """The length of the stream by the header, 0 if only other streams may be that long."""
    hours, _, rest = str(stream.metadata.get("DURATION", "")).partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        alone = len(container.streams) == 1
        return (container.duration or 0) / 1e6 if alone else 0.0


def _share(came: float, promised: float) -> float:
    """Of the seconds promised; a last picture without a duration is no loss."""
    return min(1.0, came / promised) if came < 0.98 * promised - 0.2 else 1.0


def _blake() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _digest(sample: Sample) -> str:
    """Of the file's bytes, and of which part is meant."""
    opener = fsspec.open if is_address(sample.path) else open
    with opener(sample.path, "rb") as file:
        digest = hashlib.file_digest(file, _blake)
    if sample.start > 0 or sample.end < math.inf:
        digest.update(f"{sample.start} {sample.end}".encode())
    return digest.hexdigest()

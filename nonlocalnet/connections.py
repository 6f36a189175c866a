"""Containers that are no files: cameras, addresses, pipes; each with its best video stream."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from .errors import UserError
from .packets import VideoError, demuxers, video_stream

Opened = tuple[InputContainer, VideoStream]

NETWORK = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "tcp", "udp")
PIPED = (
    "is no video that can be read as it comes: of an mp4 the index must stand first, and raw frames"
    " need --size"
)
TIMEOUT = 10.0  # seconds without an answer, or without a picture, after which a connection is lost


@dataclass(frozen=True)
class Raw:
    """Pictures without a container: their size, rate and layout.

    Raises `UserError` for a size or rate that no picture has.
    """

    width: int
    height: int
    fps: float = 30.0
    pixels: Literal["rgb24", "yuv420p"] = "rgb24"

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1 or not 0 < self.fps < 1e4:
            raise UserError(
                f"raw frames have a size and a rate, such as 640x480 at 30; these came as"
                f" {self.width}x{self.height} at {self.fps:g}"
            )


def public(address: str) -> str:
    """An address as it may be shown: without a password."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", address)


def network(address: str) -> Opened:
    """What comes from an address of `NETWORK`. Raises `VideoError`."""
    # nothing that it names may be a file of this machine
    options = {"protocol_whitelist": "crypto,data,http,https,rtmp,rtmps,rtp,rtsp,tcp,tls,udp"}
    scheme = urlsplit(address).scheme.lower()
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # which loses no packets; all cameras know it
    elif scheme.startswith("http"):
        options |= {"reconnect": "1", "reconnect_delay_max": "5"}  # of a file, from where it was
    return _opened(public(address), address, "cannot be reached", options)


def camera(number: int) -> Opened:
    """The camera of this number, as the system counts them. Raises `VideoError`."""
    name, failed = f"camera {number}", "cannot be opened"
    if sys.platform == "darwin":
        # without a rate AVFoundation takes one that many cameras do not have
        return _opened(name, f"{number}:none", failed, {"framerate": "30"}, "avfoundation")
    if sys.platform != "win32":
        here = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
        if str(number) not in here:
            raise VideoError(name, f"there is none; the system has {_listed(here)}")
        return _opened(name, f"/dev/video{number}", failed, {}, "video4linux2")
    found = getattr(av, "enumerate_input_devices", None)  # since PyAV 17
    devices = [] if found is None else [d for d in found("dshow") if "video" in d.media_types]
    if number >= len(devices):
        raise VideoError(name, f"there is none; the system has {_listed(range(len(devices)))}")
    return _opened(name, f"video={devices[number].name}", failed, {}, "dshow")


def _listed(numbers: Iterable[object]) -> str:
    return ", ".join(map(str, numbers)) or "no camera"


def piped(pipe: IO[str], raw: Raw | None) -> Opened:
    """What comes through standard input: a container, or raw frames. Raises `VideoError`."""
    name = "standard input"
    binary = getattr(pipe, "buffer", None)
    if binary is None or pipe.isatty():
        raise VideoError(name, "nothing is piped into it, such as by: cat a.ts | nonlocalnet ...")
    if raw is None:
        options = {"format_whitelist": demuxers()}
        return _opened(name, _Pipe(binary), PIPED, options)
    size = f"{raw.width}x{raw.height}"
    options = {"video_size": size, "framerate": f"{raw.fps:g}", "pixel_format": raw.pixels}
    return _opened(name, _Pipe(binary), "has no raw frame", options, "rawvideo")


class _Pipe:
    """What can be read and nothing else, so that no one tries to seek in it."""

    def __init__(self, binary: io.BufferedIOBase) -> None:
        self.read: Callable[[int], bytes] = binary.read


def _opened(
    name: str, address: Any, failed: str, options: dict[str, str], format: str | None = None
) -> Opened:
    try:
        container = av.open(
            address,
            "r",
            format=format,
            container_options=options,
            metadata_errors="replace",
            timeout=TIMEOUT if isinstance(address, str) and "://" in address else None,
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        if isinstance(error, av.ExitError):
            text = f"no answer for {TIMEOUT:g} s"
        raise VideoError(name, f"{failed} ({text})") from error
    return container, video_stream(name, container)

"""A video file that may be opened several times, here or at an address, and what it is."""

from __future__ import annotations

from dataclasses import dataclass

from av.container import InputContainer
from av.video.stream import VideoStream

from .packets import Index, file_size, open_video, scan
from .remote import Reading, Remote, media_data
from .samples import is_address


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, as shown: sizes in pixels after rotation, times in seconds.

    fps: frames per second, over the whole video if they vary. rotation: degrees clockwise by which
    the stored picture is turned. counted: why the whole file has to be decoded to know its frames,
    empty when the key frames can be used.
    """

    frames: int
    fps: float
    duration: float
    width: int
    height: int
    codec: str
    container: str
    rotation: int
    variable_rate: bool
    video_streams: int
    counted: str


class VideoFile:
    """A file that is there and not empty; `close` it.

    Raises `VideoError`, as do its methods.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._remote = Remote(path) if is_address(path) else None
        self.size = file_size(path) if self._remote is None else self._remote.size

    def open(self) -> tuple[InputContainer, VideoStream]:
        """Its container and its best video stream, from the first byte on."""
        return open_video(self.path, None if self._remote is None else Reading(self._remote))

    def scan(self, container: InputContainer, stream: VideoStream) -> Index:
        """What the packets of its opened stream say. Of a distant mp4 only the header is read."""
        silent = [] if self._remote is None else media_data(self._remote)
        if self._remote is None or not silent:
            return scan(container, stream, self.size)
        header, same = open_video(self.path, Reading(self._remote, silent), stream.index)
        with header:
            return scan(header, same, self.size)

    def close(self) -> None:
        """Nothing can be opened or read afterwards."""
        if self._remote is not None:
            self._remote.close()

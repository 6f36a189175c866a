"""What the web app takes in, and what gradio may do, both known before gradio is."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class Limits:
    """What is taken in. Raises `UserError` for a limit that lets nothing through."""

    megabytes: float = 200.0
    """Of one video."""
    seconds: float = 120.0
    """Of one video."""
    megapixels: float = 4.0
    """Of one picture: frames of a clip are in memory whole."""
    waiting: int = 24
    """Videos that may be here at once, being sent, waiting or being answered."""
    patience: float = 300.0
    """Seconds that sending a video may take, and that it may then lie here unasked."""
    viewers: int = 2
    """Cameras that are watched at once."""
    turn: float = 120.0
    """Seconds of computing after which a camera makes room for the next."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < 1e9:
                raise UserError(f"--{name} is a number above 0; it came as {value}")

    @property
    def bytes(self) -> int:
        return int(self.megabytes * 1e6)


def environment(folder: str) -> dict[str, str]:
    """What the environment has to hold before gradio is imported. folder: for files of its own."""
    return {
        "GRADIO_ANALYTICS_ENABLED": "False",  # nothing is told to anybody
        "GRADIO_TEMP_DIR": folder,  # else one that is shared with other programs
        # a table of figures about the queue that nobody reads, made anew after each answer
        "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
        "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    }

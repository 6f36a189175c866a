"""Moments in, a timeline out: what is told when, its segments, and the files that hold them."""

from .recorder import Output, Outputs, Recorder
from .segments import Segment
from .telling import Telling, Told
from .writers import Timeline, read_timeline

__all__ = [
    "Output",
    "Outputs",
    "Recorder",
    "Segment",
    "Telling",
    "Timeline",
    "Told",
    "read_timeline",
]

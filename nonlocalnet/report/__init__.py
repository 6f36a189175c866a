"""The report: one HTML file that stands alone, and the same figures as JSON beside it."""

from .curves import read_log
from .page import write_report
from .sections import Picture, Run

__all__ = ["Picture", "Run", "read_log", "write_report"]

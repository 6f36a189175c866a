"""The report: one HTML file that stands alone, and the same figures as JSON beside it."""

from .ablation import (
    AblationRow,
    AblationTable,
    Measured,
    outcome_words,
    write_ablation,
)
from .curves import read_log
from .dots import deviation
from .page import write_report
from .sections import Picture, Run

__all__ = [
    "AblationRow",
    "AblationTable",
    "Measured",
    "Picture",
    "Run",
    "deviation",
    "outcome_words",
    "read_log",
    "write_ablation",
    "write_report",
]

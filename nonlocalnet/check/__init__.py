"""Before training: what is in a data set, what cannot be used and why, what should be doubted.

In reading order: probe (one file), workers (many at once, each with a time limit), journal (what
was found, on disk), remarks (what is said of it), fingerprint and copies (files that are the same
or look alike), labels, reports (all of it, one after another), doubts (what a trained network
contradicts), summary, and what is written: clean, page.
"""

from .journal import FILES, Journal
from .page import write_outputs
from .probe import Finding
from .remarks import KINDS, Grave, Remark
from .reports import Checked, FileReport, check_files, checking
from .summary import Summary

__all__ = [
    "FILES",
    "KINDS",
    "Checked",
    "FileReport",
    "Finding",
    "Grave",
    "Journal",
    "Remark",
    "Summary",
    "check_files",
    "checking",
    "write_outputs",
]

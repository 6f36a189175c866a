"""The one exception that is meant for the person at the keyboard."""

from __future__ import annotations


class UserError(Exception):
    """Bad input, told in one sentence: what was expected, what came, and what to do about it.

    The command line prints the sentence without a traceback and exits with 1.
    """

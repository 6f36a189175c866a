"""The attention explorer: a stub until the page itself is here."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import nn

from ..errors import UserError
from ..surgery import blocks as blocks_of


def explorer_page(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    seconds: float | None = None,
    blocks: Sequence[str] | None = None,
    top: int = 20,
) -> str:
    """A page that says that it is none yet."""
    if not blocks_of(model):
        raise UserError("this network has no non-local block")
    return "<!doctype html><title>explorer</title><script>document.title = 'ran'</script>stub"

"""How a function becomes one of torch's operators, `torch.ops.nonlocalnet.NAME`.

Compiled and exported graphs hold such an operator whole. `torch.library.custom_op` does the same,
but imports torch's compiler, two seconds and 175 MB, at the first call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def operator(
    schema: str,
    fake: Callable[..., Any],
    gradient: Callable[..., Any] | None = None,
    keep: Callable[..., None] | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """Register the function that follows for every device.

    schema: of its arguments and results, as torch writes them.
    fake: the same function for tensors that have shapes only.
    gradient: of the results, called with what `keep` laid aside; None if there is none.
    """

    def register(function: Callable[..., Any]) -> Any:
        name = f"nonlocalnet::{function.__name__}"
        torch.library.define(name, schema)
        torch.library.impl(name, "default", function)
        torch.library.register_fake(name, fake)
        if gradient is not None:
            torch.library.register_autograd(name, gradient, setup_context=keep)
        return getattr(torch.ops.nonlocalnet, function.__name__).default

    return register

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
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function that follows for every device, and give what to call instead of it.

    schema: of its arguments and results, as torch writes them.
    fake: the same function for tensors that have shapes only.
    gradient: of the results, called with what `keep` laid aside; None if there is none.

    Outside of a graph it is an `autograd.Function`, which torch.func differentiates as well, and
    which refuses forward-mode derivatives, where an operator would give zeros.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = f"nonlocalnet::{function.__name__}"
        torch.library.define(name, schema)
        torch.library.impl(name, "default", function)
        torch.library.register_fake(name, fake)
        bare: Callable[..., Any] = getattr(torch.ops.nonlocalnet, function.__name__).default
        if gradient is None:
            return bare
        torch.library.register_autograd(name, gradient, setup_context=keep)
        members = {"forward": bare, "setup_context": keep, "backward": gradient}
        eager: Any = type(
            function.__name__,
            (torch.autograd.Function,),
            {"generate_vmap_rule": True, **{k: staticmethod(v) for k, v in members.items() if v}},
        )

        def call(*args: Any) -> Any:
            return (bare if torch.compiler.is_compiling() else eager.apply)(*args)

        return call

    return register

"""How the tensors of a file differ from those of a network, as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

MOST = 20  # rows


def compare(
    wanted: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    theirs: Callable[[str], str | None] = lambda name: None,
) -> str:
    """A line for each name or shape that differs; empty if none does.

    `theirs` gives another codebase's name of ours, which is told beside it.
    """
    rows: list[tuple[str, str, str]] = []
    for name, tensor in wanted.items():
        also = theirs(name)
        told = f"{name} ({also})" if also not in (None, name) else name
        if name not in given:
            rows.append(("missing", told, f"{tuple(tensor.shape)}"))
        elif given[name].shape != tensor.shape:
            shapes = f"{tuple(given[name].shape)} in the file, {tuple(tensor.shape)} expected"
            rows.append(("shape", told, shapes))
    rows += [
        ("unexpected", name, f"{tuple(tensor.shape)}")
        for name, tensor in given.items()
        if name not in wanted
    ]
    shown = rows[:MOST]
    width = max((len(name) for _, name, _ in shown), default=0)
    lines = [f"  {what:10}  {name:{width}}  {shapes}" for what, name, shapes in shown]
    if len(rows) > MOST:
        lines.append(f"  ... and {len(rows) - MOST} more")
    return "\n".join(lines)

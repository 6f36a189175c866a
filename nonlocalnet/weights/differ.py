"""How the tensors of a file differ from those of a network, as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

MOST = 8  # rows of each kind


def compare(
    wanted: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    theirs: Callable[[str], str | None] = lambda name: None,
) -> str:
    """A line for each name or shape that differs; empty if none does.

    `theirs` gives another codebase's name of ours, which is told beside it.
    """
    kinds: dict[str, list[tuple[str, str]]] = {"shape": [], "missing": [], "unexpected": []}
    for name, tensor in wanted.items():
        also = theirs(name)
        told = f"{name} ({also})" if also not in (None, name) else name
        if name not in given:
            kinds["missing"].append((told, f"{tuple(tensor.shape)}"))
        elif given[name].shape != tensor.shape:
            shapes = f"{tuple(given[name].shape)} in the file, {tuple(tensor.shape)} expected"
            kinds["shape"].append((told, shapes))
    kinds["unexpected"] = [
        (name, f"{tuple(tensor.shape)}") for name, tensor in given.items() if name not in wanted
    ]
    width = max((len(name) for rows in kinds.values() for name, _ in rows[:MOST]), default=0)
    lines = []
    for kind, rows in kinds.items():
        lines += [f"  {kind:10}  {name:{width}}  {shapes}" for name, shapes in rows[:MOST]]
        if len(rows) > MOST:
            lines.append(f"  {kind:10}  and {len(rows) - MOST} more")
    return "\n".join(lines)

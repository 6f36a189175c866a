"""Whether the blocks of a run wake up: what each adds to its input, and a warning if it does not.

A block's share |z - x| / |x| is over all clips of a step, those of all processes, in the forward
passes that the step makes anyway.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..files import write_text
from ..waking import share, why_stuck
from .journal import Journal
from .plan import Plan
from .state import RECIPE, Run

NEARLY = 1e-3  # a block that adds a smaller share of its input is nearly the identity


def is_watched(plan: Plan, step: int) -> bool:
    """Whether blocks are looked at in a step, logged or not: the one to wake by, and half-way."""
    return step in (plan.wake_step, plan.wake_step // 2)


def shares_in(blocks: Sequence[str], squares: Sequence[float]) -> dict[str, float]:
    """Each block's share, from |z - x|^2 and |x|^2 of one after the other; none where x is 0."""
    pairs = zip(blocks, squares[::2], squares[1::2], strict=True)
    return {name: share(added, there) for name, added, there in pairs if there}


def watch_waking(run: Run, journal: Journal, step: int, shares: dict[str, float]) -> None:
    """At the step where blocks should be awake, tell of those that are not, and note it.

    Every process calls it, before the gradients are gone.
    """
    state, plan = run.state, run.plan
    if step == plan.wake_step // 2:
        state.shares = shares
    if step != plan.wake_step or step == 1:  # in the first step each new block is the identity
        return
    stuck = why_stuck(run.network, run.optimizer)
    for name in {**shares, **stuck}:
        why = stuck.get(name)
        sentence = wake_words(name, step, shares.get(name), state.shares.get(name), why)
        told = why is not None and any(name in word and why in word for word in run.words)
        if sentence is not None and not told:  # what was known at the start was told there
            state.notes.append(sentence)
            journal.say(sentence)
    if state.notes and run.fabric.is_global_zero:
        _keep(run)


def wake_words(
    name: str, step: int, share: float | None, before: float | None, why: str | None
) -> str | None:
    """A warning for a block that has not woken up after so many steps; None for one that has.

    share, before: what it adds to its input now and half-way, if known. why: what keeps it from
    learning, as of `why_stuck`.
    """
    if why is not None:
        return f"warning: {name} has not woken up after {step} steps: {why}"
    if share is None or share >= NEARLY:
        return None
    text = (
        f"warning: {name} has hardly woken up after {step} steps: nothing keeps it from learning,"
        f" but it adds only {100 * share:.2g} % to its input"
    )
    if before is not None and share > 1.1 * before:
        so = f"up from {100 * before:.2g} % after {step // 2}: it grows, so train longer (--epochs)"
    else:
        so = "and does not grow: raise the learning rate (--lr)"
    return f"{text}, {so}, or start it awake (--zero-init none)"


def _keep(run: Run) -> None:
    """The notes beside the words of the run's start, where the report reads them."""
    path = run.out / RECIPE
    told = json.loads(path.read_text(encoding="utf-8"))
    # a run that was killed after it wrote them, and before its next checkpoint, finds them there
    told["words"] += [note for note in run.state.notes if note not in told["words"]]
    write_text(path, json.dumps(told, indent=1))

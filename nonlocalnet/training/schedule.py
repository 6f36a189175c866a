"""The learning rate of every step, as a pure function: a resumed run has the same."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..recipes import Schedule
from .plan import Plan

SCHEDULES: dict[Schedule, Callable[[float, tuple[float, ...]], float]] = {
    # factor on the learning rate at a point 0 <= x < 1 of the run
    # the paper: divided by 10 at 150k and 300k of 400k steps
    "steps": lambda x, milestones: 0.1 ** sum(x >= place for place in milestones),
    "cosine": lambda x, _: 0.5 * (1 + math.cos(math.pi * x)),
    # up from 1/25 over three tenths, then down to nothing, both along a cosine
    "one_cycle": lambda x, _: (
        1 - 0.96 * 0.5 * (1 + math.cos(math.pi * x / 0.3))
        if x < 0.3
        else 0.5 * (1 + math.cos(math.pi * (x - 0.3) / 0.7))
    ),
}


def learning_rate(plan: Plan, step: int) -> float:
    """The learning rate of a step, counted from 0.

    In the warm-up it rises along a line to where the schedule is at its end [PySlowFast].
    """
    rising, start = plan.warmup_steps, plan.warmup_from
    factor = SCHEDULES[plan.schedule](max(step, rising) / plan.steps, plan.milestones)
    if step < rising:
        factor = start + (factor - start) * (step + 1) / (rising + 1)
    return plan.lr * factor

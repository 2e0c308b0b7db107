"""Priorities: the formula (`include/rules/priority.yaml`), and what it promises. Pure but for loading the file."""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated

from pydantic import AfterValidator, Field

from collect_ops.kernel.rules_file import Rules, load_rules, shipped
from collect_ops.sources.bounds import NUMBERS
from collect_ops.sources.priority_formula import Ageing, PriorityFormula, RetryBoost

LOWEST, HIGHEST = 0, 10
Boost = Annotated[int, Field(ge=0, le=10)]
#: Seconds between two passes of the sweep, which evaluates waiting tasks anew.
EVALUATED_EVERY_S = 60.0


def _bounded(ageing: Ageing) -> Ageing:
    """What a source's declaration is held to where it is loaded holds for the installation's file as well."""
    for name in ("first_after_s", "every_s"):
        bound, value = NUMBERS[f"priority_formula.ageing.{name}"], getattr(ageing, name)
        if not (bound.least or 0) <= value <= bound.most:
            raise ValueError(f"{name} must be {bound.least:g} to {bound.most:,} seconds")
    return ageing


class PriorityRules(Rules):
    """The installation's formula.

    Args:
        base: When neither submission nor source says one.
        emergency: Added while a task is an emergency.
        retry: What retries add.
        ageing: What waiting adds.
    """

    base: Boost
    emergency: Boost
    retry: RetryBoost
    ageing: Annotated[Ageing, AfterValidator(_bounded)]

    def for_source(self, override: PriorityFormula | None) -> PriorityRules:
        """The formula with what a source sets otherwise."""
        if override is None:
            return self
        return self.model_copy(update={name: value for name, value in override if value is not None})


def priority_of(
    formula: PriorityRules,
    base: int,
    *,
    emergency: bool,
    retry_count: int,
    waited_s: float,
    pinned: bool = False,
) -> int:
    """A task's priority.

    Args:
        formula: Of its source.
        base: 0-10, that was asked for.
        emergency: Whether it is an emergency.
        retry_count: How often it was tried again.
        waited_s: Seconds that it has waited for its next attempt.
        pinned: Somebody has set it by hand: only ageing is added.

    Returns:
        0-10.
    """
    boosts = ageing_boost(formula.ageing, waited_s)
    if not pinned:
        boosts += formula.emergency if emergency else 0
        boosts += min(retry_count * formula.retry.boost, formula.retry.most)
    return max(LOWEST, min(HIGHEST, base + boosts))


def ageing_boost(ageing: Ageing, waited_s: float) -> int:
    """What waiting adds: nothing up to `first_after_s`, a step once it is longer, another after each `every_s`."""
    if waited_s <= ageing.first_after_s:
        return 0
    # Cut before it becomes a whole number: a task may have been admitted with steps that are shorter than any clock's.
    steps = min((waited_s - ageing.first_after_s) / ageing.every_s, HIGHEST)
    return ageing.boost * math.ceil(steps)


def seconds_until_highest(formula: PriorityRules, base: int) -> float:
    """Seconds of waiting after which a task of some base has the highest priority; infinite when it never gets there.

    Ageing adds `boost` as soon as the waiting exceeds `first_after_s + k * every_s`, k = 0, 1, 2, …
    """
    missing = HIGHEST - base
    if missing <= 0:
        return 0.0
    if formula.ageing.boost == 0:
        return math.inf
    steps = math.ceil(missing / formula.ageing.boost)
    return formula.ageing.first_after_s + (steps - 1) * formula.ageing.every_s


def starvation_bound_s(formula: PriorityRules, base: int, *, ahead: int, starts_per_s: float) -> float:
    """Within how many seconds a task starts, however much more urgent work keeps coming.

    Once it has the highest priority nothing that comes later is served before it, since a queue is first in, first out
    within a priority: it waits for what is there already. So

        T = time until the highest priority + one evaluation + ahead / starts_per_s

    Args:
        formula: Its source's.
        base: 0-10, its own.
        ahead: Tasks of the highest priority that wait when it gets there.
        starts_per_s: Tasks that its lane starts a second.
    """
    return seconds_until_highest(formula, base) + EVALUATED_EVERY_S + ahead / starts_per_s


@cache
def priority_rules() -> PriorityRules:
    """The formula of this installation: `include/rules/priority.yaml`."""
    return load_rules(shipped("priority"), PriorityRules)

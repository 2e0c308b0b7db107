"""When a backlog rule acts and when it lets go, and what all acting rules want together: pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from collect_ops.lanes.backlog import Backlog, Load
from collect_ops.lanes.backlog_rules import BacklogRule, Kind
from collect_ops.lanes.policy import PACK
from collect_ops.lanes.rules import LaneRule, LaneRules

#: What was not looked at for longer than this, in seconds, is not known to have held in between.
MAX_GAP_S = 300.0


class Phase(StrEnum):
    """Where a rule stands for one lane or source."""

    IDLE = "IDLE"
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    CLEARING = "CLEARING"

    @property
    def acts(self) -> bool:
        """Whether the rule's actions are in force."""
        return self in (Phase.ACTIVE, Phase.CLEARING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a rule stands.

    Args:
        phase: The phase.
        since: When it began; for PENDING and CLEARING what the waiting time counts from.
        seen_at: When it was looked at last.
    """

    phase: Phase
    since: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeKey:
    """A rule and the lane or source that it is looked at for."""

    rule: str
    kind: Kind
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """A rule whose actions are in force for a lane or source.

    Args:
        rule: The rule.
        scope: Name of the lane or source.
        reason: Why, for people.
    """

    rule: BacklogRule
    scope: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneWish:
    """What acting rules want of a lane; None: as lanes.yaml says."""

    pool: int | None = None
    groups_per_task: int | None = None
    pack: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrakeWish:
    """How acting rules slow a source: the strictest of them."""

    rule: str
    reason: str
    retry_after_s: float
    per_s: float | None


def step(before: Standing | None, rule: BacklogRule, load: Load, now: datetime) -> Standing:
    """Where a rule stands after a look at the load.

    Args:
        before: Where it stood; None for IDLE.
        rule: The rule.
        load: The backlog of the lane or source.
        now: By the database's clock.
    """
    known = before or Standing(phase=Phase.IDLE, since=now, seen_at=now)
    since = min(known.since, now)
    gap = (now - known.seen_at).total_seconds() > MAX_GAP_S
    held_s = 0.0 if gap else (now - since).total_seconds()
    phase = _next(known.phase, rule, load, held_s)
    if phase is known.phase and not (gap and phase in (Phase.PENDING, Phase.CLEARING)):
        return Standing(phase=phase, since=since, seen_at=now)
    return Standing(phase=phase, since=now, seen_at=now)


def _next(phase: Phase, rule: BacklogRule, load: Load, held_s: float) -> Phase:
    """The phase after one look; `held_s` is for how long the phase has lasted."""
    match phase:
        case Phase.IDLE | Phase.PENDING:
            if not rule.when.holds(load):
                return Phase.IDLE
            waited = held_s if phase is Phase.PENDING else 0.0
            return Phase.ACTIVE if waited >= rule.for_s else Phase.PENDING
        case Phase.ACTIVE | Phase.CLEARING:
            if not rule.clear.holds(load):
                return Phase.ACTIVE
            waited = held_s if phase is Phase.CLEARING else 0.0
            return Phase.IDLE if waited >= rule.clear_for_s else Phase.CLEARING


def advance(
    standings: Mapping[ScopeKey, Standing], rules: Sequence[BacklogRule], backlog: Backlog, now: datetime
) -> dict[ScopeKey, Standing]:
    """Where all rules stand after a look at the backlog; what is not in it, or of a rule that is gone, is IDLE.

    Args:
        standings: Where they stood.
        rules: The rules.
        backlog: The backlog.
        now: By the database's clock.
    """
    after: dict[ScopeKey, Standing] = {}
    for rule in rules:
        for scope in sorted(_scopes(rule, standings, backlog)):
            key = ScopeKey(rule=rule.name, kind=rule.scope.kind, scope=scope)
            standing = step(standings.get(key), rule, load_of(backlog, key), now)
            if standing.phase is not Phase.IDLE:
                after[key] = standing
    return after


def load_of(backlog: Backlog, key: ScopeKey) -> Load:
    """The load that a rule is looked at for."""
    loads = backlog.lanes if key.kind == "lane" else backlog.sources
    return loads.get(key.scope, Load())


def _scopes(rule: BacklogRule, standings: Mapping[ScopeKey, Standing], backlog: Backlog) -> set[str]:
    if rule.scope.name is not None:
        return {rule.scope.name}
    loads = backlog.lanes if rule.scope.kind == "lane" else backlog.sources
    known = {key.scope for key in standings if (key.rule, key.kind) == (rule.name, rule.scope.kind)}
    return {*loads, *known}


def lane_wishes(acting: Iterable[Acting], lanes: LaneRules) -> dict[str, LaneWish]:
    """What acting rules want of each lane: the most slots, the fewest groups a task, the fullest shared runs.

    Args:
        acting: Rules in force.
        lanes: Lane rules; every lane of them is in the answer, and no other.
    """
    wishes = dict.fromkeys(lanes.lanes, LaneWish())
    for each in acting:
        if each.rule.scope.kind == "lane" and each.scope in wishes:
            wishes[each.scope] = wish_with(wishes[each.scope], each.rule, lanes.lanes[each.scope])
    return wishes


def wish_with(wish: LaneWish, rule: BacklogRule, lane: LaneRule) -> LaneWish:
    """What is wanted of a lane when one more rule acts on it."""
    scale, widen = rule.actions.scale_groups, rule.actions.widen_pool
    if scale is not None:
        groups = max(1, math.floor(lane.groups_per_task / scale.factor))
        pack = min(scale.max, math.floor(PACK * scale.factor))
        wish = replace(
            wish,
            groups_per_task=min(groups, wish.groups_per_task or groups),
            pack=max(pack, wish.pack or 0),
        )
    if widen is not None:
        slots = max(lane.slots, min(widen.max_slots, lane.slots + widen.slots_step))
        wish = replace(wish, pool=max(slots, wish.pool or 0))
    return wish


def brake_wishes(acting: Iterable[Acting]) -> dict[str, BrakeWish]:
    """How acting rules slow each source; of several rules the longest wait and the lowest rate."""
    wishes: dict[str, BrakeWish] = {}
    for each in acting:
        slow = each.rule.actions.slow_admission
        if slow is None:
            continue
        wish = BrakeWish(
            rule=each.rule.name, reason=each.reason, retry_after_s=slow.retry_after_s, per_s=slow.per_s
        )
        wishes[each.scope] = _stricter(wishes.get(each.scope), wish)
    return wishes


def _stricter(one: BrakeWish | None, other: BrakeWish) -> BrakeWish:
    if one is None:
        return other
    first = other if (other.per_s or 0) < (one.per_s or 0) else one
    return replace(
        first,
        retry_after_s=max(one.retry_after_s, other.retry_after_s),
        per_s=None if None in (one.per_s, other.per_s) else min(one.per_s or 0, other.per_s or 0),
    )

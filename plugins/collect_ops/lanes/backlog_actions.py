"""The backlog's evaluation: sample, look at the rules, set what they want, journal it. Once a minute.

What is wanted is worked out anew each time and then *set*, not added: the next run makes good what one that died left.
Widening asks Airflow's pool first and lets claims use the slots after it has confirmed; narrowing goes the other way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from collect_ops.delivery.shedding import shed
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.backlog import Backlog, lane_messages, measure, sample
from collect_ops.lanes.backlog_policy import (
    Acting,
    LaneWish,
    Phase,
    ScopeKey,
    Standing,
    advance,
    brake_wishes,
    lane_wishes,
    load_of,
    wish_with,
)
from collect_ops.lanes.backlog_rules import BacklogRule, BacklogRules
from collect_ops.lanes.policy import PACK
from collect_ops.lanes.pools import Pools
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import RunsUnavailable
from collect_ops.storage import Connection, Jsonb, connect, query

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogRun:
    """What an evaluation did.

    Args:
        backlog: As measured; None when another evaluation was at work.
        sampled: Samples written.
        acting: Rules in force, as `RULE:KIND:SCOPE`.
        begun: Actions begun, as `RULE:SCOPE:ACTION`.
        ended: Actions let go of, likewise.
        shed: Tasks cancelled.
        pools: Slots that Airflow's pools were set to, by lane.
        problems: Why pools were not set, by lane; the next evaluation tries again.
    """

    backlog: Backlog | None
    sampled: int = 0
    acting: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    shed: int = 0
    pools: Mapping[str, int] | None = None
    problems: Mapping[str, str] | None = None

    @property
    def busy(self) -> bool:
        """Whether another evaluation was at work, and this one did nothing."""
        return self.backlog is None

    def as_json(self) -> dict[str, Any]:
        """For programs, and for XCom."""
        return {
            "busy": self.busy,
            "backlog": None if self.backlog is None else self.backlog.as_json(),
            "sampled": self.sampled,
            "acting": list(self.acting),
            "begun": list(self.begun),
            "ended": list(self.ended),
            "shed": self.shed,
            "pools": dict(self.pools or {}),
            "problems": dict(self.problems or {}),
        }


def run_once(
    backends: Backends,
    lanes: LaneRules,
    rules: BacklogRules,
    pools: Pools,
    *,
    sheddable: Callable[[str], bool],
    actor: str,
) -> BacklogRun:
    """Sample the backlog, see which rules act on it, do and undo what they want. Safe to run twice and at once.

    Args:
        backends: Where the services are.
        lanes: Lane rules.
        rules: Backlog rules.
        pools: Airflow's pools.
        sheddable: Whether a source's declaration allows shedding now.
        actor: Who evaluates, for the journal and the task log.

    Raises:
        DatabaseUnavailable: Nothing, or a part that the next evaluation completes, was done.
    """
    messages = lane_messages(backends, lanes)
    with connect(backends.postgres_dsn, application_name="collect-ops backlog") as connection:
        row = connection.execute(query("lanes/lock_backlog")).fetchone()
        if row is None or not row["locked"]:
            return BacklogRun(backlog=None)
        backlog = measure(connection, lanes, messages)
        sampled = sample(connection, backlog, keep_s=rules.keep_samples_h * 3600)
        evaluation = _Evaluation(connection, lanes, rules, backlog, sheddable, actor)
        with connection.transaction():
            evaluation.decide(row["at"])
        cancelled = evaluation.shed()
        done, problems = set_pools(connection, lanes, pools)
    log.info(
        "backlog: %d tasks wait; %d rules act, %d actions begun, %d ended, %d tasks shed, %d pools not set",
        sum(load.depth for load in backlog.lanes.values()),
        len(evaluation.acting), len(evaluation.begun), len(evaluation.ended), cancelled, len(problems),
    )  # fmt: skip
    return BacklogRun(
        backlog=backlog,
        sampled=sampled,
        acting=tuple(f"{a.rule.name}:{a.rule.scope.kind}:{a.scope}" for a in evaluation.acting),
        begun=tuple(evaluation.begun),
        ended=tuple(evaluation.ended),
        shed=cancelled,
        pools=done,
        problems=problems,
    )


def set_pools(
    connection: Connection, lanes: LaneRules, pools: Pools
) -> tuple[dict[str, int], dict[str, str]]:
    """Set Airflow's pools to what is wanted, and let claims use what Airflow has confirmed.

    Returns:
        Slots set, and problems, by lane.
    """
    done: dict[str, int] = {}
    problems: dict[str, str] = {}
    for row in connection.execute(query("lanes/select_unset_pools")).fetchall():
        lane = row["lane"]
        slots = row["pool_wanted"] or lanes.lanes[lane].slots
        try:
            pools.set_slots(lanes.pool(lane), slots)
        except RunsUnavailable as error:
            problems[lane] = str(error)
            log.error("pool of lane %s not set to %d slots, tried again next time: %s", lane, slots, error)
            connection.execute(query("lanes/note_pool_problem"), {"lane": lane, "problem": str(error)[:1000]})
        else:
            done[lane] = slots
            connection.execute(query("lanes/confirm_pool"), {"lane": lane, "wanted": row["pool_wanted"]})
    return done, problems


@dataclass(frozen=True, slots=True, kw_only=True)
class _ActionKey:
    rule: str
    kind: str
    scope: str
    action: str


class _Evaluation:
    """One evaluation: where the rules stand, what they do, what they let go of."""

    def __init__(
        self,
        connection: Connection,
        lanes: LaneRules,
        rules: BacklogRules,
        backlog: Backlog,
        sheddable: Callable[[str], bool],
        actor: str,
    ) -> None:
        self._connection = connection
        self._lanes = lanes
        self._rules = rules
        self._backlog = backlog
        self._sheddable = sheddable
        self._actor = actor
        self.acting: list[Acting] = []
        self.begun: list[str] = []
        self.ended: list[str] = []

    def decide(self, now: datetime) -> None:
        """States, journal, lanes and brakes, in the caller's transaction."""
        rows = self._connection.execute(query("lanes/select_open_actions")).fetchall()
        under_way = {_action_key(row): row for row in rows}
        self.acting = self._advance(
            now, {(k.rule, k.kind, k.scope): r["reason"] for k, r in under_way.items()}
        )
        wanted = {key: acting for acting in self.acting for key in self._keys(acting)}
        self._end({key: row["id"] for key, row in under_way.items() if key not in wanted})
        self._begin({key: acting for key, acting in wanted.items() if key not in under_way})
        self._set_lanes()
        self._set_brakes()

    def shed(self) -> int:
        """Cancel what shedding rules want gone; returns how many tasks."""
        total = 0
        for acting in self.acting:
            rule = acting.rule.actions.shed
            if rule is not None and self._sheddable(acting.scope):
                total += shed(
                    self._connection,
                    acting.scope,
                    rule=acting.rule.name,
                    below_priority=rule.below_priority,
                    keep=rule.keep,
                    reason=acting.reason,
                    actor=self._actor,
                )
        return total

    def _advance(self, now: datetime, reasons: Mapping[tuple[str, str, str], str]) -> list[Acting]:
        rows = self._connection.execute(query("lanes/select_backlog_states")).fetchall()
        before = {
            ScopeKey(rule=row["rule"], kind=row["kind"], scope=row["scope"]): Standing(
                phase=Phase(row["phase"]), since=row["since"], seen_at=row["seen_at"]
            )
            for row in rows
        }
        after = advance(before, self._rules.rules, self._backlog, now)
        self._write_states(after, [key for key in before if key not in after])
        acting = []
        for key, standing in after.items():
            rule = self._rules.find(key.rule)
            gone = key.kind == "lane" and key.scope not in self._lanes.lanes
            if rule is not None and standing.phase.acts and not gone:
                reason = reasons.get((key.rule, key.kind, key.scope))
                reason = reason or rule.when.describe(load_of(self._backlog, key))
                acting.append(Acting(rule=rule, scope=key.scope, reason=reason))
        return acting

    def _write_states(self, after: Mapping[ScopeKey, Standing], idle: list[ScopeKey]) -> None:
        if after:
            self._connection.execute(
                query("lanes/upsert_backlog_states"),
                {
                    **_columns(list(after)),
                    "phases": [standing.phase for standing in after.values()],
                    "since": [standing.since for standing in after.values()],
                    "seen_at": [standing.seen_at for standing in after.values()],
                },
            )
        if idle:
            self._connection.execute(query("lanes/delete_backlog_states"), _columns(idle))

    def _keys(self, acting: Acting) -> list[_ActionKey]:
        rule = acting.rule
        return [
            _ActionKey(rule=rule.name, kind=rule.scope.kind, scope=acting.scope, action=action)
            for action in rule.actions.named
            if action != "shed" or self._sheddable(acting.scope)
        ]

    def _end(self, ending: Mapping[_ActionKey, int]) -> None:
        if not ending:
            return
        rows = self._connection.execute(
            query("lanes/end_backlog_actions"),
            {
                "ids": list(ending.values()),
                "reasons": [self._undo_reason(key) for key in ending],
                "at_once": [k.action != "widen_pool" or k.scope not in self._lanes.lanes for k in ending],
            },
        ).fetchall()
        self.ended = [f"{row['rule']}:{row['scope']}:{row['action']}" for row in rows]

    def _undo_reason(self, key: _ActionKey) -> str:
        rule = self._rules.find(key.rule)
        if rule is None or key.action not in rule.actions.named:
            return "the rule is gone, or does this no longer"
        load = load_of(self._backlog, ScopeKey(rule=rule.name, kind=rule.scope.kind, scope=key.scope))
        return f"the backlog is gone: {load.depth} tasks wait, the oldest for {load.oldest_s:.0f} s"

    def _begin(self, beginning: Mapping[_ActionKey, Acting]) -> None:
        if not beginning:
            return
        values = [self._values(key, acting.rule) for key, acting in beginning.items()]
        rows = self._connection.execute(
            query("lanes/insert_backlog_actions"),
            {
                "rules": [key.rule for key in beginning],
                "kinds": [key.kind for key in beginning],
                "scopes": [key.scope for key in beginning],
                "actions": [key.action for key in beginning],
                "before": [Jsonb(before) for before, _ in values],
                "after": [Jsonb(after) for _, after in values],
                "reasons": [acting.reason for acting in beginning.values()],
                "at_once": [key.action != "widen_pool" for key in beginning],
                "actor": self._actor,
            },
        ).fetchall()
        self.begun = [f"{row['rule']}:{row['scope']}:{row['action']}" for row in rows]

    def _values(self, key: _ActionKey, rule: BacklogRule) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was, and what the action makes of it."""
        if key.kind == "source":
            load = self._backlog.sources.get(key.scope)
            wanted = rule.actions.named[key.action].model_dump(exclude_none=True)
            return {"depth": load.depth if load else 0}, wanted
        lane = self._lanes.lanes[key.scope]
        wish = wish_with(LaneWish(), rule, lane)
        if key.action == "widen_pool":
            return {"slots": lane.slots}, {"slots": wish.pool}
        before = {"groups_per_task": lane.groups_per_task, "pack": PACK}
        return before, {"groups_per_task": wish.groups_per_task, "pack": wish.pack}

    def _set_lanes(self) -> None:
        wishes = lane_wishes(self.acting, self._lanes)
        self._connection.execute(
            query("lanes/set_lane_settings"),
            {
                "lanes": list(wishes),
                "groups_per_task": [wish.groups_per_task for wish in wishes.values()],
                "packs": [wish.pack for wish in wishes.values()],
                "pools": [wish.pool for wish in wishes.values()],
            },
        )

    def _set_brakes(self) -> None:
        wishes = brake_wishes(self.acting)
        self._connection.execute(
            query("lanes/set_brakes"),
            {
                "sources": list(wishes),
                "rules": [wish.rule for wish in wishes.values()],
                "reasons": [wish.reason for wish in wishes.values()],
                "retry_after_s": [wish.retry_after_s for wish in wishes.values()],
                "per_s": [wish.per_s for wish in wishes.values()],
            },
        )


def _action_key(row: Mapping[str, Any]) -> _ActionKey:
    return _ActionKey(rule=row["rule"], kind=row["kind"], scope=row["scope"], action=row["action"])


def _columns(keys: list[ScopeKey]) -> dict[str, list[str]]:
    return {
        "rules": [key.rule for key in keys],
        "kinds": [key.kind for key in keys],
        "scopes": [key.scope for key in keys],
    }

"""Backlog arithmetic, and when a rule acts and lets go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.cli.backlog import trend
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.lanes.backlog import Load, add_up, backlog_of
from collect_ops.lanes.backlog_policy import (
    MAX_GAP_S,
    Acting,
    Phase,
    ScopeKey,
    Standing,
    advance,
    brake_wishes,
    lane_wishes,
    step,
)
from collect_ops.lanes.backlog_rules import BacklogRule, backlog_rules, load_backlog_rules
from collect_ops.lanes.policy import PACK
from collect_ops.lanes.rules import lane_rules

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
counts = st.integers(0, 10_000)
loads = st.builds(
    Load,
    depth=counts,
    held=st.just(0),
    oldest_s=st.floats(0, 1e6),
    arrivals=st.tuples(counts, counts, counts),
    completions=st.tuples(counts, counts, counts),
)


def rule(**fields: Any) -> BacklogRule:
    declared: dict[str, Any] = {
        "name": "r",
        "scope": {"lane": "bulk"},
        "when": {"depth_above": 100},
        "for_s": 120,
        "clear": {"depth_below": 20},
        "clear_for_s": 300,
        "actions": {"scale_groups": {"factor": 2, "max": 200}},
    }
    return BacklogRule.model_validate({**declared, **fields})


def test_rates_and_time_to_drain() -> None:
    load = Load(depth=600, oldest_s=50, arrivals=(60, 300, 300), completions=(120, 600, 900))
    assert load.arrivals_per_s == (1.0, 1.0, 300 / 900)
    assert load.completions_per_s == (2.0, 2.0, 1.0)
    assert load.drain_s == 600, "one a second more goes than comes"
    assert Load(depth=1, arrivals=(0, 5, 5), completions=(0, 5, 5)).drain_s is None
    assert Load().drain_s == 0


@given(parts=st.lists(loads, max_size=5))
def test_a_sum_has_all_of_it(parts: list[Load]) -> None:
    total = add_up(parts)
    assert total.depth == sum(load.depth for load in parts)
    assert total.oldest_s == max([load.oldest_s for load in parts], default=0.0)
    assert (
        total.completions == tuple(map(sum, zip(*(p.completions for p in parts), strict=True))) or not parts
    )


def test_a_lane_is_the_sum_of_its_sources_and_is_there_when_empty() -> None:
    found = backlog_of(
        {("bulk", "a"): Load(depth=3), ("bulk", "b"): Load(depth=4), ("normal", "a"): Load(depth=1)},
        ["urgent", "bulk"],
    )
    assert {name: load.depth for name, load in found.lanes.items()} == {"urgent": 0, "bulk": 7, "normal": 1}
    assert {name: load.depth for name, load in found.sources.items()} == {"a": 4, "b": 4}


def lived(depths: list[int], *, every_s: float = 60, of: BacklogRule | None = None) -> list[Phase]:
    """The phases of a rule that looks at these depths, one after the other."""
    standing: Standing | None = None
    phases = []
    for number, depth in enumerate(depths):
        now = NOON + timedelta(seconds=number * every_s)
        standing = step(standing, of or rule(), Load(depth=depth), now)
        phases.append(standing.phase)
    return phases


def test_a_rule_acts_after_a_while_and_lets_go_after_a_while() -> None:
    depths = [0, 200, 200, 200, 50, 10, 50, 10, 10, 10, 10, 10, 10, 10]
    assert lived(depths) == [
        Phase.IDLE, Phase.PENDING, Phase.PENDING, Phase.ACTIVE,  # 120 s above 100
        Phase.ACTIVE,  # between the thresholds nothing changes
        Phase.CLEARING, Phase.ACTIVE,  # not low for long enough
        Phase.CLEARING, Phase.CLEARING, Phase.CLEARING, Phase.CLEARING, Phase.CLEARING, Phase.IDLE,
        Phase.IDLE,
    ]  # fmt: skip


@given(depths=st.lists(st.integers(20, 100), max_size=40), acting=st.booleans())
def test_nothing_flaps_between_the_thresholds(depths: list[int], acting: bool) -> None:
    start = [200] * 4 if acting else [0]
    phases = lived([*start, *depths])
    assert {phase.acts for phase in phases[len(start) - 1 :]} == {acting}


@given(depths=st.lists(st.sampled_from([0, 10, 50, 150, 400]), max_size=60))
def test_a_rule_never_begins_or_ends_sooner_than_it_says(depths: list[int]) -> None:
    phases = [Phase.IDLE, *lived(depths)]
    depths = [0, *depths]
    for number in range(1, len(phases)):
        if phases[number].acts and not phases[number - 1].acts:
            assert number >= 3
            assert all(depth > 100 for depth in depths[number - 2 : number + 1])
        if phases[number - 1].acts and not phases[number].acts:
            assert all(depth < 20 for depth in depths[number - 5 : number + 1])


def test_what_was_not_looked_at_has_not_held() -> None:
    assert lived([200, 200], every_s=MAX_GAP_S + 1) == [Phase.PENDING, Phase.PENDING]
    assert lived([200, 200], every_s=120) == [Phase.PENDING, Phase.ACTIVE]


def test_any_scope_is_each_by_itself_and_what_is_gone_is_idle() -> None:
    anyone = rule(
        scope={"source": "any"}, for_s=0, clear_for_s=0, actions={"slow_admission": {"retry_after_s": 5}}
    )
    found = backlog_of({("bulk", "a"): Load(depth=500), ("bulk", "b"): Load(depth=5)}, ["bulk"])
    first = advance({}, [anyone], found, NOON)
    second = advance(first, [anyone], found, NOON + timedelta(seconds=1))
    key = ScopeKey(rule="r", kind="source", scope="a")
    assert {k: standing.phase for k, standing in second.items()} == {key: Phase.ACTIVE}
    assert advance(second, [], found, NOON) == {}


def test_what_acting_rules_want_together() -> None:
    lanes = lane_rules()
    acting = [
        Acting(rule=rule(actions={"scale_groups": {"factor": 2, "max": 200}}), scope="bulk", reason="deep"),
        Acting(rule=rule(actions={"scale_groups": {"factor": 3, "max": 120}}), scope="bulk", reason="deep"),
        Acting(
            rule=rule(actions={"widen_pool": {"slots_step": 5, "max_slots": 4}}), scope="bulk", reason="deep"
        ),
    ]
    wishes = lane_wishes(acting, lanes)
    assert set(wishes) == set(lanes.lanes)
    assert (wishes["bulk"].groups_per_task, wishes["bulk"].pack, wishes["bulk"].pool) == (1, 2 * PACK + 20, 4)
    assert (wishes["urgent"].groups_per_task, wishes["urgent"].pack, wishes["urgent"].pool) == (
        None,
        None,
        None,
    )


def test_of_two_brakes_the_stricter_counts() -> None:
    def slow(**fields: Any) -> Acting:
        return Acting(
            rule=rule(scope={"source": "a"}, actions={"slow_admission": fields}), scope="a", reason="deep"
        )

    wish = brake_wishes([slow(retry_after_s=10, per_s=5), slow(retry_after_s=60, per_s=9)])["a"]
    assert (wish.retry_after_s, wish.per_s) == (60, 5)
    assert brake_wishes([slow(retry_after_s=10, per_s=5), slow(retry_after_s=5)])["a"].per_s is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"when": {}}, "when must have depth_above"),
        ({"clear": {"depth_below": 200}}, "must not be above when's"),
        ({"clear": {"oldest_below_s": 5}}, "which when has not"),
        ({"actions": {}}, "actions must have one of"),
        ({"actions": {"shed": {"below_priority": 3, "keep": 0}}}, "acts on sources, the scope names a lane"),
        ({"scope": {"lane": "bulk", "source": "a"}}, "either lane or source"),
        (
            {"when": {"match": "any", "depth_above": 9, "oldest_above_s": 9}, "clear": {"depth_below": 2}},
            "must match all",
        ),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rule(**fields)


def test_a_file_is_checked_against_the_lanes(tmp_path: Path) -> None:
    path = tmp_path / "backlog.yaml"
    path.write_text(
        "rules:\n"
        "  - {name: a, scope: {lane: bluk}, when: {depth_above: 9}, clear: {depth_below: 2},\n"
        "     actions: {widen_pool: {slots_step: 1, max_slots: 3}}}\n"
        "  - {name: b, scope: {lane: bulk}, when: {depth_above: 9}, clear: {depth_below: 2},\n"
        "     actions: {widen_pool: {slots_step: 1, max_slots: 99}}}\n"
    )
    with pytest.raises(ValidationFailed) as refused:
        load_backlog_rules(path, lane_rules())
    assert "did you mean 'bulk'?" in str(refused.value)
    assert "rules.1.actions.widen_pool.max_slots" in str(refused.value)
    assert len(refused.value.faults) == 2


def test_what_is_shipped_is_gentle() -> None:
    for each in backlog_rules().rules:
        assert each.actions.shed is None
        assert each.actions.slow_admission is None


def test_the_trend_of_depths() -> None:
    assert trend([]) == trend([0, 0]) == ""
    assert trend([0, 4, 8]) == "▁▄█"
    assert len(trend(list(range(100)))) == 30

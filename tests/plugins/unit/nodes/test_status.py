"""States of nodes: what follows from a key's age, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.kernel.rules_file import load_rules
from collect_ops.nodes.rules import PlacementRules, placement_rules
from collect_ops.nodes.status import (
    Figures,
    Known,
    NodeStatus,
    status_of,
    why_not_available,
    why_not_placeable,
)

RULES = PlacementRules()
KNOWN = st.builds(
    Known,
    status=st.sampled_from(NodeStatus),
    key_age_s=st.none() | st.floats(0, 60),
    keys_lost=st.booleans(),
    many_missing=st.booleans(),
    status_for_s=st.floats(0, 1_000),
    draining=st.booleans(),
    left=st.booleans(),
    losses=st.integers(0, 10),
    back_for_s=st.floats(0, 10_000),
)


@pytest.mark.parametrize(
    ("known", "status"),
    [
        (Known(status=NodeStatus.ACTIVE, key_age_s=3), NodeStatus.ACTIVE),
        (Known(status=NodeStatus.LOST, key_age_s=3), NodeStatus.ACTIVE),
        (Known(status=NodeStatus.ACTIVE, key_age_s=50), NodeStatus.SUSPECT),
        (Known(status=NodeStatus.ACTIVE, key_age_s=None), NodeStatus.LOST),
        (Known(status=NodeStatus.ACTIVE, key_age_s=None, keys_lost=True), NodeStatus.SUSPECT),
        (Known(status=NodeStatus.LOST, key_age_s=None, keys_lost=True), NodeStatus.LOST),
        (Known(status=NodeStatus.ACTIVE, key_age_s=None, many_missing=True), NodeStatus.SUSPECT),
        (
            Known(status=NodeStatus.SUSPECT, key_age_s=None, many_missing=True, status_for_s=40),
            NodeStatus.SUSPECT,
        ),
        (
            Known(status=NodeStatus.SUSPECT, key_age_s=None, many_missing=True, status_for_s=46),
            NodeStatus.LOST,
        ),
        (Known(status=NodeStatus.ACTIVE, key_age_s=None, left=True), NodeStatus.LEFT),
        (Known(status=NodeStatus.ACTIVE, key_age_s=3, draining=True), NodeStatus.DRAINING),
        (Known(status=NodeStatus.LOST, key_age_s=3, losses=3, back_for_s=10), NodeStatus.SUSPECT),
        (Known(status=NodeStatus.SUSPECT, key_age_s=3, losses=3, back_for_s=301), NodeStatus.ACTIVE),
        (Known(status=NodeStatus.ACTIVE, key_age_s=3, losses=2, back_for_s=10), NodeStatus.ACTIVE),
    ],
)
def test_states(known: Known, status: NodeStatus) -> None:
    assert status_of(known, RULES)[0] is status


@given(KNOWN)
def test_nobody_is_lost_who_lives_or_whose_key_redis_may_have_lost(known: Known) -> None:
    status, reason = status_of(known, RULES)
    assert reason
    if status is NodeStatus.LOST:
        assert known.key_age_s is None
        assert known.status is NodeStatus.LOST or not known.keys_lost
    if status is NodeStatus.ACTIVE:
        assert known.key_age_s is not None
        assert known.key_age_s <= RULES.heartbeat.suspect_s


@given(
    st.sampled_from(NodeStatus),
    st.builds(
        Figures,
        cpu_percent=st.floats(0, 100),
        memory_percent=st.floats(0, 100),
        disk_percent=st.floats(0, 100),
    ),
)
def test_placeable_is_stricter_than_available(status: NodeStatus, figures: Figures) -> None:
    if why_not_placeable(status, figures, RULES) is None:
        assert why_not_available(status, figures, RULES) is None
        assert status is NodeStatus.ACTIVE
        assert figures.cpu_percent < 80
        assert figures.memory_percent < 80


def test_a_limit_is_named() -> None:
    busy = Figures(cpu_percent=85, memory_percent=10, disk_percent=10)
    assert why_not_available(NodeStatus.ACTIVE, busy, RULES) is None
    assert why_not_placeable(NodeStatus.ACTIVE, busy, RULES) == "cpu_percent is 85, the limit 80"
    assert why_not_placeable(NodeStatus.LOST, busy, RULES) == "is LOST"


def test_the_shipped_rules_are_the_defaults() -> None:
    assert placement_rules() == RULES


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("heartbeat: {every_s: 50}", "every_s must be less than suspect_s"),
        ("placeable: {cpu_percent: 95}", "placeable.cpu_percent must not be above available.cpu_percent"),
        ("available: {cpu: 95}", r"available.cpu: is not a field: known are cpu_percent, memory_percent"),
        ("keep_samples_days: 0", "greater than 0"),
    ],
)
def test_bad_rules(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "placement.yaml"
    path.write_text(text)
    with pytest.raises(ValidationFailed, match=told):
        load_rules(path, PlacementRules)

"""Loading ends for every file of rules too, whatever stands in it; and every number in them has its bounds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collect_ops.execution.rules import ShardingRules
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.kernel.faults import MAX_CHARS
from collect_ops.kernel.paths import include_dir
from collect_ops.kernel.rules_file import Rules, load_rules
from collect_ops.lanes.backlog_rules import BacklogRules, load_backlog_rules
from collect_ops.lanes.priority import PriorityRules
from collect_ops.lanes.rules import LaneRules, lane_rules
from collect_ops.maintenance.retention_rules import RetentionRules
from collect_ops.nodes.rules import PlacementRules
from tests.examples import examples
from tests.plugins.unit.cpu_deadline import ends_within

LOADERS: dict[str, Callable[[Path], Rules]] = {
    "backlog": lambda path: load_backlog_rules(path, lane_rules()),
    "lanes": partial(load_rules, model=LaneRules),
    "placement": partial(load_rules, model=PlacementRules),
    "priority": partial(load_rules, model=PriorityRules),
    "retention": partial(load_rules, model=RetentionRules),
    "sharding": partial(load_rules, model=ShardingRules),
}
MODELS = (BacklogRules, LaneRules, PlacementRules, PriorityRules, RetentionRules, ShardingRules)


def shipped(name: str) -> Any:
    return yaml.safe_load((include_dir() / "rules" / f"{name}.yaml").read_text())


def loads_or_has_faults(name: str, path: Path) -> None:
    with ends_within(10):
        try:
            LOADERS[name](path)
        except ValidationFailed as failed:
            assert failed.faults
            text = str(failed)
            text.encode()
            assert "\0" not in text
            assert len(text) < 3 * MAX_CHARS


def test_every_file_of_rules_is_tried() -> None:
    assert {path.stem for path in (include_dir() / "rules").glob("*.yaml")} == set(LOADERS)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(
    "text",
    [
        'x: "\\UFFFFFFFF"',
        '"\\0": 1',
        "x: {" * 5000,
        "[" * 150 + "]" * 150,
        "".join(f"x{number}: 1\n" for number in range(3000)),
        "lanes: {" + ", ".join(f"l{n}: {{priorities: [0, 3]}}" for n in range(2000)) + "}",
        "rules: [" + ", ".join(["{name: a, scope: {lane: any}}"] * 2000) + "]",
    ],
)
def test_a_hostile_file_has_faults(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    with ends_within(30), pytest.raises(ValidationFailed):
        LOADERS[name](path)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**400), 10**400),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["any", "urgent", "classic", "least_loaded", "\0", "\ud800"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(0, 10**6), VALUES), min_size=1, max_size=5))
def test_a_changed_file_ends_as_rules_or_with_faults(
    tmp_path: Path, name: str, changes: list[tuple[int, Any]]
) -> None:
    fields = copy.deepcopy(shipped(name))
    for number, value in changes:
        places = list(places_of(fields))
        holder, key = places[number % len(places)]
        holder[key] = value
    path = tmp_path / f"{name}.yaml"
    path.write_text(json.dumps(fields))
    loads_or_has_faults(name, path)


def places_of(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in list(items):
        yield value, key
        if isinstance(each, dict | list):
            yield from places_of(each)


def unbounded_numbers(schema: Any, place: str) -> Iterator[str]:
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number") and not {"maximum", "exclusiveMaximum"} & set(schema):
            yield place
        for name, each in schema.items():
            yield from unbounded_numbers(each, f"{place}.{name}")
    elif isinstance(schema, list):
        for index, each in enumerate(schema):
            yield from unbounded_numbers(each, f"{place}.{index}")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_number_has_an_upper_bound(model: type[Rules]) -> None:
    # What both rules and sources have is bounded where sources are loaded; test_ageing_is_bounded.
    found = {place for place in unbounded_numbers(model.json_schema(), "") if ".Ageing." not in place}
    assert found == set()


@pytest.mark.parametrize(
    ("field", "value"), [("every_s", 1e-300), ("first_after_s", 1e300), ("every_s", 1e9)]
)
def test_ageing_is_bounded(tmp_path: Path, field: str, value: float) -> None:
    rules = shipped("priority")
    rules["ageing"][field] = value
    path = tmp_path / "priority.yaml"
    path.write_text(json.dumps(rules))
    with pytest.raises(ValidationFailed) as failed:
        load_rules(path, PriorityRules)
    assert [fault.field for fault in failed.value.faults] == ["ageing"]


@pytest.mark.parametrize(
    ("name", "steps", "value"),
    [
        ("lanes", ("retry", "max_delay_s"), 1e308),
        ("lanes", ("host", "hold_s"), float("inf")),
        ("lanes", ("host", "factor"), 1e300),
        ("lanes", ("lanes", "bulk", "message_ttl_s"), 2**32),
        ("lanes", ("lanes", "bulk", "slots"), 2**31),
        ("lanes", ("broker", "retry_ladder_s"), []),
        ("lanes", ("broker", "exchange"), "x" * 256),
        ("placement", ("heartbeat", "alive_s"), 1e300),
        ("placement", ("failures", "factor"), 1e10),
        ("placement", ("keep_samples_days",), 1e9),
        ("sharding", ("target_s",), 1e300),
        ("backlog", ("rules", 0, "for_s"), 1e300),
    ],
)
def test_numbers_that_their_users_cannot_hold_are_faults(
    tmp_path: Path, name: str, steps: tuple[str | int, ...], value: Any
) -> None:
    rules = shipped(name)
    holder = rules
    for step in steps[:-1]:
        holder = holder.setdefault(step, {}) if isinstance(holder, dict) else holder[step]
    holder[steps[-1]] = value
    path = tmp_path / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump(rules) if value != float("inf") else yaml.safe_dump(rules).replace(".inf", "1e999")
    )
    with pytest.raises(ValidationFailed) as failed:
        LOADERS[name](path)
    assert [fault.field for fault in failed.value.faults] == [".".join(map(str, steps))]

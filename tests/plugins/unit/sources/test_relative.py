"""Defaults that count from when a task is submitted: what they mean, and where they may stand."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.loading_rules import LOADING_RULES
from collect_ops.sources.model import Source
from collect_ops.sources.params import Param
from collect_ops.sources.relative import Moment, Relative
from collect_ops.sources.request import admitted_params, check_params
from collect_ops.sources.rules import faults_of
from collect_ops.sources.stored import dump_definition, load_definition
from tests.plugins.unit.sources.factories import make_source

AT = datetime(2026, 3, 29, 4, 30, 15, tzinfo=UTC)  # of the night in which Berlin's clocks went forward


def asking(param: dict[str, Any]) -> dict[str, Any]:
    """A request with one parameter."""
    return {"params": {"p": param}, "query": {"p": "{p}"}}


def with_default(default: str, kind: str = "datetime", **fields: Any) -> Source:
    return make_source(request=asking({"type": kind, "default": default}), **fields)


def value(default: str, kind: str = "datetime", at: datetime = AT, **fields: Any) -> Any:
    return check_params(with_default(default, kind, **fields), {}, at=at)["p"]


@pytest.mark.parametrize(
    ("default", "kind", "fields", "expected"),
    [
        ("today", "date", {}, "2026-03-29"),
        ("today - 1 day", "date", {}, "2026-03-28"),
        ("today-1day", "date", {}, "2026-03-28"),
        ("today + 2 weeks", "date", {}, "2026-04-12"),
        ("today - 1 month", "date", {}, "2026-02-28"),
        ("today - 1 year", "date", {}, "2025-03-29"),
        ("now", "datetime", {}, "2026-03-29T04:30:15Z"),
        ("now - 90 minutes", "datetime", {}, "2026-03-29T03:00:15Z"),
        ("now", "date", {}, "2026-03-29"),
        ("today", "datetime", {}, "2026-03-29T00:00:00Z"),
        # Midnight in Berlin, before the clocks go forward; a day of the calendar there has 23 hours.
        ("today", "datetime", {"timezone": "Europe/Berlin"}, "2026-03-28T23:00:00Z"),
        ("today + 1 day", "datetime", {"timezone": "Europe/Berlin"}, "2026-03-29T22:00:00Z"),
        ("now - 4 hours", "datetime", {"timezone": "Europe/Berlin"}, "2026-03-29T00:30:15Z"),
        ("today", "date", {"timezone": "America/New_York"}, "2026-03-29"),
        ("today", "date", {"timezone": "Pacific/Honolulu"}, "2026-03-28"),
        ("{data_interval_end}", "datetime", {"schedule": "@hourly"}, "2026-03-29T04:00:00Z"),
        ("{data_interval_start}", "datetime", {"schedule": "@hourly"}, "2026-03-29T03:00:00Z"),
        ("{data_interval_start}", "date", {"schedule": "@daily"}, "2026-03-28"),
        ("{data_interval_start} - 1 day", "date", {"schedule": "@daily"}, "2026-03-27"),
        ("{data_interval_start}", "date", {"schedule": "@quarterly"}, "2025-10-01"),
        ("{data_interval_start}", "date", {"schedule": "0 6 * * 1-5"}, "2026-03-26"),
        (
            "{data_interval_end}",
            "datetime",
            {"schedule": "30 6 * * *", "timezone": "Europe/Berlin"},
            "2026-03-29T04:30:00Z",
        ),
        (
            "{data_interval_start}",
            "datetime",
            {"schedule": "30 6 * * *", "timezone": "Europe/Berlin"},
            "2026-03-28T05:30:00Z",
        ),
    ],
)
def test_what_a_relative_default_means(
    default: str, kind: str, fields: dict[str, Any], expected: str
) -> None:
    assert value(default, kind, **fields) == expected


def test_a_scheduled_moment_is_the_end_of_its_own_interval() -> None:
    moment = datetime(2026, 3, 30, tzinfo=UTC)
    assert value("{data_interval_end}", at=moment, schedule="@daily") == "2026-03-30T00:00:00Z"
    just_before = moment - timedelta(microseconds=1)
    assert value("{data_interval_end}", at=just_before, schedule="@daily") == "2026-03-29T00:00:00Z"


@given(
    at=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),
    schedule=st.sampled_from(["@hourly", "@daily", "@weekly", "@monthly", "*/7 * * * *", "15 3 1,15 * *"]),
)
def test_intervals_follow_each_other_without_a_gap(at: datetime, schedule: str) -> None:
    moment = Moment(at=at.replace(tzinfo=UTC), schedule=schedule)
    end, start = moment.interval_end(), moment.interval_start()
    assert start < end <= moment.at
    assert Moment(at=start, schedule=schedule).interval_end() == start
    one_before_the_end = Moment(at=end - timedelta(seconds=1), schedule=schedule)
    assert one_before_the_end.interval_end() == start


@pytest.mark.parametrize("night", [datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)])
@pytest.mark.parametrize(
    ("schedule", "moments"),
    [("0 * * * *", 72), ("*/30 * * * *", 144), ("30 2 * * *", 3), ("0 3 * * *", 3), ("30 1-3 * * *", None)],
)
def test_no_hour_is_left_out_where_the_clocks_change(
    night: datetime, schedule: str, moments: int | None
) -> None:
    def at(moment: datetime) -> Moment:
        return Moment(at=moment, zone="Europe/Berlin", schedule=schedule)

    begin = night - timedelta(days=1)
    looked = [begin + timedelta(minutes=15 * number) for number in range(4 * 72)]
    ends = sorted({at(moment).interval_end().astimezone(UTC) for moment in looked})
    assert moments is None or len([end for end in ends if end >= begin]) == moments
    for before, end in pairwise(ends):
        assert at(end).interval_end().astimezone(UTC) == end
        assert at(end).interval_start().astimezone(UTC) == before


@given(
    text=st.text(max_size=30) | st.from_regex(r"(today|now) ?[+-] ?[0-9]{1,6} ?[a-z]{1,7}", fullmatch=True)
)
def test_a_text_is_relative_or_a_value_and_nothing_stops_what_reads_it(text: str) -> None:
    relative = Relative.of(text)
    if relative is None:
        return
    with contextlib.suppress(OverflowError, ValueError):
        relative.value(Moment(at=AT))


def test_a_text_that_reads_like_one_stays_text_elsewhere() -> None:
    param = Param.model_validate({"type": "string", "default": "today"})
    assert param.relative_default is None
    assert param.coerce("today") == "today"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"type": "date", "default": "today - 1 fortnight"}, "default"),
        ({"type": "date", "default": "tomorrow"}, "default"),
        ({"type": "integer", "default": "today"}, "default"),
        ({"type": "date", "default": "today - 99999 years"}, "default"),
        ({"type": "date", "default": "today", "allowed": ["2026-01-01"]}, "default"),
        ({"type": "date", "default": "today", "required": True}, "default"),
    ],
)
def test_a_default_that_means_no_moment_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        make_source(request=asking(fields))


def loading_faults(**fields: Any) -> list[str]:
    return [fault.field for fault in faults_of(make_source(**fields), rules=LOADING_RULES)]


def test_a_scheduled_source_asks_for_nothing_that_nobody_gives() -> None:
    required = asking({"type": "date", "required": True})
    assert loading_faults(request=required, schedule="@daily") == ["request.params.p.required"]
    assert loading_faults(request=required) == []
    moving = asking({"type": "date", "default": "{data_interval_start}"})
    assert loading_faults(request=moving) == ["request.params.p.default"]
    assert loading_faults(request=moving, schedule="@daily") == []


@pytest.mark.parametrize("schedule", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30-31 2 *"])
def test_a_schedule_that_never_comes_is_refused(schedule: str) -> None:
    assert loading_faults(schedule=schedule) == ["schedule"]


@pytest.mark.parametrize("schedule", ["0 0 29 2 *", "0 0 30 2 1", "0 0 31 * *"])
def test_a_schedule_that_comes_seldom_is_taken(schedule: str) -> None:
    assert loading_faults(schedule=schedule) == []


@pytest.mark.parametrize(
    "zone", ["Europe/Nowhere", "", "../etc/passwd", "/etc/passwd", "Berlin\x00", "+01:00"]
)
def test_a_time_zone_is_one_of_the_calendar_s(zone: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        make_source(timezone=zone)


def test_what_was_admitted_keeps_its_values() -> None:
    """Nothing moves under a task: not when it is tried again tomorrow, nor where a value was left out."""
    source = with_default("today", "date")
    declared = source.model_dump(mode="json", exclude_unset=True)
    again = load_definition(dump_definition(source).version.hex(), 1, declared)
    assert admitted_params(again, {"p": "2026-01-01"}) == {"p": "2026-01-01"}
    assert admitted_params(again, {}) == {}


def test_a_given_value_is_not_moved() -> None:
    source = with_default("today", "date")
    assert check_params(source, {"p": "2026-01-01"}, at=AT) == {"p": "2026-01-01"}
    with pytest.raises(ValidationFailed):
        check_params(source, {"p": "today"}, at=AT)

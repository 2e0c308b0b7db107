"""Defaults that count from when a task is submitted: `today - 1 day`, `{data_interval_start}`. Pure.

An anchor, and perhaps a distance from it. `today` is the day in the source's time zone, `now` the moment. The interval
of a scheduled run ends at its own moment of the schedule and begins at the moment before; of one that somebody submits
it is the last one that has ended. Days, weeks, months and years are those of the calendar in the time zone; hours and
minutes are as long as they are.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import croniter  # type: ignore[import-untyped]

from collect_ops.sources.texts import SCHEDULE_PRESETS

EXAMPLES = "today - 1 day, now - 6 hours, {data_interval_start}, {data_interval_end}"
_INTERVAL_ENDS = ("{data_interval_start}", "{data_interval_end}")
_RELATIVE = re.compile(
    r"(?P<anchor>today|now|\{data_interval_start\}|\{data_interval_end\})"
    r"(?: ?(?P<sign>[+-]) ?(?P<count>[0-9]{1,5}) ?(?P<unit>minute|hour|day|week|month|year)s?)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a relative default counts from.

    Args:
        at: When the task is submitted; of a scheduled run its moment of the schedule.
        zone: The source's time zone.
        schedule: The source's schedule.
    """

    at: datetime
    zone: str | None = None
    schedule: str | None = None

    @property
    def local(self) -> datetime:
        """In the source's time zone."""
        return self.at.astimezone(UTC if self.zone is None else ZoneInfo(self.zone)).replace(microsecond=0)

    def interval_end(self) -> datetime:
        """The last moment of the schedule that has come."""
        # The iterator's own moment is never among those that it gives, and it counts in seconds.
        local = self.local
        # By way of UTC: what Python adds on a wall clock falls back into the first of two hours.
        return self._before((local.astimezone(UTC) + timedelta(seconds=1)).astimezone(local.tzinfo))

    def interval_start(self) -> datetime:
        """The moment of the schedule before that."""
        return self._before(self.interval_end())

    def _before(self, moment: datetime) -> datetime:
        if self.schedule is None:
            raise ValueError("a source without a schedule has no data interval")
        cron = SCHEDULE_PRESETS.get(self.schedule, self.schedule)
        found: datetime = croniter(cron, moment).get_prev(datetime)
        if any(_clocks_change_near(each) for each in (moment, found)):
            return _before_beside_a_change(cron, moment)
        return found


#: So near to it, a change of the clocks makes times of day come twice, or not at all.
_NEAR = timedelta(hours=4)


def _clocks_change_near(moment: datetime) -> bool:
    return (moment - _NEAR).utcoffset() != (moment + _NEAR).utcoffset()


def _before_beside_a_change(cron: str, moment: datetime) -> datetime:
    """The last moment of a schedule before another, as Airflow has them where the clocks change.

    A schedule of one time a day has that once: of an hour that comes twice in the second one, of one that is left out
    after it. Any other has its times in both hours.
    """
    wall = moment.replace(tzinfo=None, fold=0)
    next_two = croniter(cron, wall)
    one, two = next_two.get_next(datetime), next_two.get_next(datetime)
    daily = (one.hour, one.minute) == (two.hour, two.minute)
    times = croniter(cron, wall + _NEAR)
    best: datetime | None = None
    while True:
        time: datetime = times.get_prev(datetime)
        if best is not None and time < best.astimezone(moment.tzinfo).replace(tzinfo=None) - _NEAR:
            return best.astimezone(moment.tzinfo)
        second = _at(time, moment, fold=1)
        there = second.astimezone(moment.tzinfo).replace(tzinfo=None, fold=0) == time
        if daily:
            candidates = [second if there else _at(time, moment, fold=0)]
        else:
            candidates = [second, _at(time, moment, fold=0)] if there else []
        for candidate in candidates:
            if candidate < moment.astimezone(UTC) and (best is None or candidate > best):
                best = candidate


def _at(time: datetime, moment: datetime, *, fold: int) -> datetime:
    return time.replace(tzinfo=moment.tzinfo, fold=fold).astimezone(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """A relative default.

    Args:
        anchor: What it counts from.
        count: How many units after it; negative: before.
        unit: Of the calendar or the clock; empty where there is no distance.
    """

    anchor: str
    count: int = 0
    unit: str = ""

    @classmethod
    def of(cls, text: object) -> Relative | None:
        """What a default says; None when it is a value of its own."""
        found = _RELATIVE.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            return None
        count = int(found["count"] or 0) * (-1 if found["sign"] == "-" else 1)
        return cls(anchor=found["anchor"], count=count, unit=found["unit"] or "")

    @property
    def needs_schedule(self) -> bool:
        """Whether it counts from a data interval."""
        return self.anchor in _INTERVAL_ENDS

    def value(self, moment: Moment) -> datetime:
        """The moment that it means, in the source's time zone.

        Raises:
            OverflowError, ValueError: It lies outside of the years 1 to 9999, or there is no data interval.
        """
        return _moved(self._anchored(moment), self.count, self.unit)

    def _anchored(self, moment: Moment) -> datetime:
        match self.anchor:
            case "today":
                return moment.local.replace(hour=0, minute=0, second=0)
            case "now":
                return moment.local
            case "{data_interval_end}":
                return moment.interval_end()
            case _:
                return moment.interval_start()

    def as_date(self, moment: Moment) -> date:
        """The day that it means, in the source's time zone."""
        return self.value(moment).date()


def _moved(moment: datetime, count: int, unit: str) -> datetime:
    match unit:
        case "month" | "year":
            return _months_later(moment, count * (12 if unit == "year" else 1))
        case "day" | "week":  # Python adds to what the wall clock says
            return moment + timedelta(days=count * (7 if unit == "week" else 1))
        case "hour" | "minute":
            later = moment.astimezone(UTC) + timedelta(minutes=count * (60 if unit == "hour" else 1))
            return later.astimezone(moment.tzinfo)
    return moment


def _months_later(moment: datetime, months: int) -> datetime:
    """The same day of another month, or the last one of it."""
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise OverflowError("lies outside of the years 1 to 9999")
    day = min(moment.day, monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)

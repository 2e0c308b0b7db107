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
        return self._before(self.local + timedelta(seconds=1))

    def interval_start(self) -> datetime:
        """The moment of the schedule before that."""
        return self._before(self.interval_end())

    def _before(self, moment: datetime) -> datetime:
        if self.schedule is None:
            raise ValueError("a source without a schedule has no data interval")
        cron = SCHEDULE_PRESETS.get(self.schedule, self.schedule)
        found: datetime = croniter(cron, moment).get_prev(datetime)
        return found


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

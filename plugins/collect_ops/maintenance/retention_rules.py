"""`include/rules/retention.yaml`, validated when loaded: how long what has ended is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError

from collect_ops.kernel.errors import Fault, ValidationFailed
from collect_ops.kernel.faults import capped, faults_from
from collect_ops.kernel.rules_file import Rules, load_rules, shipped
from collect_ops.sources.load import load_sources
from collect_ops.sources.model import Source

#: A day at least: what has just ended is still looked at, and ends up in the same transactions as what is open.
Days = Annotated[float, Field(ge=1, le=36_500)]
DAY_S = 86_400.0


class TaskDays(Rules):
    """Days that tasks are kept after their end, with all that is about them.

    Args:
        completed: COMPLETED and PARTIAL.
        cancelled: CANCELLED.
        dead: DEAD, counted from the last thing that was done about its dead letter; an open letter keeps it for ever.
    """

    completed: Days = 90.0
    cancelled: Days = 90.0
    dead: Days = 90.0

    @property
    def least(self) -> float:
        """The shortest of them."""
        return min(self.completed, self.cancelled, self.dead)


class AirflowDays(Rules):
    """Days that Airflow's own records are kept.

    Args:
        metadata: Runs, task instances, XComs, the audit log, … of its metadata database.
        logs: Log folders of runs and of its processes.
    """

    metadata: Days = 30.0
    logs: Days = 30.0


class Pace(Rules):
    """How gently a pass deletes.

    Args:
        batch: Tasks, or rows of other kinds, in one transaction.
        pause_s: Seconds between two transactions.
        time_limit_s: Seconds after which a pass ends; the next one goes on.
    """

    batch: Annotated[int, Field(ge=1, le=10_000)] = 500
    pause_s: Annotated[float, Field(ge=0, le=60)] = 0.1
    time_limit_s: Annotated[float, Field(ge=1, le=86_400)] = 1800.0


class RetentionRules(Rules):
    """How long what has ended is kept.

    Args:
        tasks: Tasks, by how they ended.
        requests_days: Request ids: asked again within it, one gets its first answer. Keeps its task as long.
        traces_days: Traces, when their tasks are kept longer.
        bad_rows_days: Bad rows, when their tasks are kept longer.
        letters_days: Dead letters of messages without a task, once dealt with; and redrives that have ended.
        journals_days: Events, changes of nodes, what backlog rules did; and nodes that are gone.
        versions_days: Declarations that no task refers to any more.
        airflow: Airflow's own records.
        pace: How gently a pass deletes.
    """

    tasks: TaskDays = TaskDays()
    requests_days: Days = 90.0
    traces_days: Days = 30.0
    bad_rows_days: Days = 90.0
    letters_days: Days = 90.0
    journals_days: Days = 90.0
    versions_days: Days = 90.0
    airflow: AirflowDays = AirflowDays()
    pace: Pace = Pace()

    def within(self, time_limit_s: float | None) -> Self:
        """The same rules for a pass that may take so long; None leaves them.

        Raises:
            ValidationFailed: That is no time limit.
        """
        if time_limit_s is None:
            return self
        try:
            pace = Pace.model_validate({**self.pace.model_dump(), "time_limit_s": time_limit_s})
        except ValidationError as error:
            raise ValidationFailed("retention", faults_from(error, Pace)) from error
        return self.model_copy(update={"pace": pace})


def load_retention_rules(path: Path, sources: Mapping[str, Source]) -> RetentionRules:
    """Load and validate a file of retention rules.

    Args:
        path: The file.
        sources: The declared sources, whose dedup windows request ids must outlive.

    Raises:
        ValidationFailed: With every fault of the file.
    """
    rules = load_rules(path, RetentionRules)
    if faults := tuple(_window_faults(rules, sources)):
        raise ValidationFailed(f"rules {path.name}", capped(faults))
    return rules


def retention_rules() -> RetentionRules:
    """The rules of this installation: `include/rules/retention.yaml`, read anew."""
    return load_retention_rules(shipped("retention"), load_sources().sources)


def _window_faults(rules: RetentionRules, sources: Mapping[str, Source]) -> Iterator[Fault]:
    """Sources that refuse equals for longer than request ids are known."""
    for name, source in sources.items():
        window_days = source.dedup.ttl_h / 24
        if window_days > rules.requests_days:
            problem = f"must not be below {window_days:g}, the dedup.ttl_h of source {name} in days"
            yield Fault(field="requests_days", value=rules.requests_days, problem=problem)

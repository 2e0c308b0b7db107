"""The main path without Airflow, on real services: what the DAGs do, called by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from collect_ops.admission.model import Admission, Submission
from collect_ops.admission.service import AdmissionService
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.execution.finish import finish_run
from collect_ops.execution.group import GroupResult, run_group
from collect_ops.execution.plan import Plan, TaskAttempt, plan
from collect_ops.execution.settle import Settled
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.claim import Claimed, claim
from collect_ops.lanes.rules import LaneRules
from collect_ops.lanes.runs import RunState
from collect_ops.sources.load import UnknownSource
from collect_ops.sources.model import Source
from tests.factories import source, submission
from tests.plugins.integration.looks import look

__all__ = ["RecordedRuns", "World", "source"]


class RecordedRuns:
    """`Runs` that keeps what was asked for: tests run it themselves, when and as often as they like."""

    def __init__(self) -> None:
        self.started: dict[str, dict[str, Any]] = {}
        self.states: dict[str, RunState] = {}
        self.woken: list[str] = []
        self.groups: dict[str, dict[int, str]] = {}

    def start(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        if dag_id.startswith("lane_"):
            self.woken.append(dag_id.removeprefix("lane_"))
            return
        self.started.setdefault(run_id, conf)
        self.states.setdefault(run_id, RunState.ACTIVE)

    def state(self, dag_id: str, run_id: str) -> RunState:
        return self.states.get(run_id, RunState.MISSING)

    def group_states(self, dag_id: str, run_id: str) -> Mapping[int, str]:
        return self.groups.get(run_id, {})

    def end(self, dag_id: str, run_id: str) -> None:
        self.states[run_id] = RunState.ENDED


class World:
    """Submit, claim, run, settle.

    Args:
        backends: Where the services are.
        rules: Lane rules.
    """

    def __init__(self, backends: Backends, rules: LaneRules) -> None:
        self.backends = backends
        self.rules = rules
        self.runs = RecordedRuns()
        self.sources: dict[str, Source] = {}
        self.endpoint = Endpoint(base_url="http://127.0.0.1:9", allow_private_networks=True)

    def add(self, *sources: Source) -> None:
        """Declare sources."""
        self.sources.update({each.name: each for each in sources})

    def serve_from(self, base_url: str, **fields: Any) -> None:
        """Where the sources' connection points."""
        self.endpoint = Endpoint(base_url=base_url, allow_private_networks=True, **fields)

    def find(self, name: str) -> Source:
        """A declared source."""
        if name not in self.sources:
            raise UnknownSource(name, self.sources)
        return self.sources[name]

    def service(self, backends: Backends | None = None) -> AdmissionService:
        """The admission service over this world's sources."""
        return AdmissionService(backends or self.backends, self.rules, self.runs, sources=self.find)

    def submission(self, name: str = "things", **fields: Any) -> Submission:
        """A submission with a request id of its own."""
        return submission(name, **fields)

    def submit(self, name: str = "things", **fields: Any) -> Admission:
        """Submit one task."""
        return self.service().admit(self.submission(name, **fields))

    def claim(self, lane: str = "normal") -> Claimed:
        """What the lane DAG does."""
        return claim(lane, self.backends, self.rules, self.runs, actor="test")

    def plan(self, run_id: str) -> Plan:
        """What a run's first task does."""
        return plan(
            self.attempts(run_id), run_id, self.backends, self.rules, lambda _: self.endpoint, actor="test"
        )

    def attempts(self, run_id: str) -> list[TaskAttempt]:
        """The tasks that a run's conf names."""
        return [TaskAttempt(**named) for named in self.runs.started[run_id]["tasks"]]

    async def group(self, run_id: str, group_no: int, **options: Any) -> GroupResult:
        """What a mapped task instance does."""
        return await run_group(
            run_id,
            group_no,
            self.backends,
            self.rules,
            lambda _: self.endpoint,
            **{"node": "test", "actor": "test", **options},
        )

    def finish(self, run_id: str) -> list[Settled]:
        """What a run's last task does."""
        self.runs.states[run_id] = RunState.ENDED
        return finish_run(self.attempts(run_id), run_id, self.backends, self.rules, actor="test")

    def run(self, run_id: str) -> list[GroupResult]:
        """A whole collect run, its groups side by side."""
        self.plan(run_id)
        return self.run_planned(run_id)

    def run_planned(self, run_id: str, *, on: str = "test") -> list[GroupResult]:
        """The rest of a run that is planned.

        Args:
            run_id: The run.
            on: The node that runs its groups.
        """
        open_groups = self.rows(
            "SELECT group_no FROM collect.shard_group WHERE run_id = %s AND status = 'OPEN' ORDER BY group_no",
            run_id,
        )

        async def groups() -> list[GroupResult]:
            return list(
                await asyncio.gather(*(self.group(run_id, row["group_no"], node=on) for row in open_groups))
            )

        results = asyncio.run(groups())
        self.finish(run_id)
        return results

    def claim_and_run(self, lane: str = "normal") -> list[str]:
        """Claim once and run what was claimed; returns the runs."""
        claimed = self.claim(lane)
        for started in claimed.runs:
            self.run(started.run_id)
        return [started.run_id for started in claimed.runs]

    def collect(self, name: str = "things", **fields: Any) -> int:
        """Submit, claim and run one task; returns it."""
        admission = self.submit(name, **fields)
        assert admission.duplicate_of is None, admission.sentence()
        self.claim_and_run(self.rules.lane_of(self.task(admission.task_id)["priority"]))
        return admission.task_id

    def task(self, task_id: int) -> Mapping[str, Any]:
        """A task's row."""
        return self.rows("SELECT * FROM collect.task WHERE id = %s", task_id)[0]

    def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of a statement."""
        return look(self.backends.postgres_dsn, statement, *values)

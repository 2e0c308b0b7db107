"""The demonstration's steps: prepare, submit, watch, check, sum up."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from collect_ops.lanes.rules import lane_rules
from collect_ops.lanes.runs import collect_dag_id, lane_dag_id
from demo.airflow_api import AirflowApi
from demo.errors import SubmissionFailed
from demo.progress import Progress
from demo.server import EXAMPLES_LOGIN, DemoServer
from demo.settings import DemoSettings
from demo.verify import TABLE, Verification

SOURCE: Final = "flights"
CONNECTION: Final = "flights_api"
EXAMPLES_CONNECTION: Final = "example_api"
SUBMIT_DAG: Final = "collect_submit"
SUBMIT_TASK: Final = "submit"
SWEEP_DAG: Final = "collect_sweep"
PARSE_TIMEOUT_S: Final = 180.0
SUBMIT_TIMEOUT_S: Final = 120.0
TASK_TIMEOUT_S: Final = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The answer to a submission.

    Attributes:
        task_id: the task that does the work.
        duplicate_of: the task whose duplicate this submission is; None when a task was admitted.
        status: where that task stands.
        run_url: where to look at the run that submitted.
    """

    task_id: int
    duplicate_of: int | None
    status: str
    run_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came of it; `summary.json` in the stack's folder."""

    status: str
    task_id: int
    duplicate_of: int | None
    rows: int
    expected_rows: int
    checksum_ok: bool
    checksum: str
    seconds: float
    rows_per_second: float
    first_shard_s: float | None
    shards: int
    shards_done: int
    attempts: int
    retries: int
    http_retries: int
    bad_rows: int
    bytes: int
    table: str
    run_url: str
    submission_url: str
    airflow_url: str
    airflow_user: str
    password_file: str
    data_server: str

    @property
    def faults(self) -> list[str]:
        """What is not as it should be, a sentence each."""
        found = []
        if self.status != "COMPLETED":
            found.append(f"task {self.task_id} ended as {self.status}, not COMPLETED")
        if self.rows != self.expected_rows:
            found.append(f"{self.table} has {self.rows:,} rows, the server {self.expected_rows:,}")
        if not self.checksum_ok:
            found.append(f"the checksum of {self.table} is not that of the server's data")
        if self.bad_rows:
            found.append(f"{self.bad_rows:,} rows were set aside as bad")
        if self.shards_done != self.shards:
            found.append(f"{self.shards_done} of {self.shards} shards are done")
        return found

    def write(self, home: Path) -> Path:
        """Write `summary.json`."""
        path = home / "summary.json"
        content: dict[str, Any] = {"ok": not self.faults, **asdict(self), "faults": self.faults}
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path


def prepare_connections(airflow: AirflowApi, server: DemoServer) -> None:
    """Tell Airflow where the data server is, for the flights and for the example sources."""
    prepare_connection(airflow, server.base_url)
    prepare_examples(airflow, server)


def prepare_connection(airflow: AirflowApi, base_url: str) -> None:
    """Tell Airflow where the flights are: on this machine, which a source may not reach by default."""
    airflow.put_connection(
        CONNECTION,
        {
            "conn_type": "http",
            "host": base_url,
            "description": "The demo's data server",
            "extra": json.dumps({"allow_private_networks": True}),
        },
    )


def prepare_examples(airflow: AirflowApi, server: DemoServer) -> None:
    """Tell Airflow where the example sources' API is; one password for every way of signing in that they show."""
    airflow.put_connection(
        EXAMPLES_CONNECTION,
        {
            "conn_type": "http",
            "host": server.examples_url,
            "description": "The API of the example sources, on the demo's data server",
            "login": EXAMPLES_LOGIN,
            "password": server.examples_password,
            "extra": json.dumps({"allow_private_networks": True}),
        },
    )


def needed_dags() -> list[str]:
    """The DAGs that a task passes through."""
    lanes = list(lane_rules().lanes)
    return [SUBMIT_DAG, SWEEP_DAG, *map(lane_dag_id, lanes), *map(collect_dag_id, lanes)]


def unpause_needed(airflow: AirflowApi) -> None:
    """Wait until Airflow knows the DAGs, and let them run."""
    for dag_id in needed_dags():
        airflow.wait_for_dag(dag_id, PARSE_TIMEOUT_S)
        airflow.unpause(dag_id)


def submit(
    airflow: AirflowApi, source: str = SOURCE, *, force: bool, more: Mapping[str, Any] | None = None
) -> Submission:
    """Submit the source through Airflow's REST API, as anybody would.

    Args:
        airflow: where to.
        source: what to collect.
        force: also when an equal task holds the dedup key.
        more: further fields of the form, such as `priority`.

    Raises:
        SubmissionFailed: the run failed, or told no task.
    """
    run_id = airflow.trigger(SUBMIT_DAG, {"source": source, "force": force, **(more or {})})
    page = airflow.run_page(SUBMIT_DAG, run_id)
    answer = _await_answer(airflow, run_id, page)
    return Submission(
        task_id=int(answer["task_id"]),
        duplicate_of=answer.get("duplicate_of"),
        status=str(answer["status"]),
        run_url=page,
    )


def _await_answer(airflow: AirflowApi, run_id: str, page: str) -> dict[str, Any]:
    """What the submitting task returned: it is there before its run is marked as over."""
    deadline = time.monotonic() + SUBMIT_TIMEOUT_S
    while time.monotonic() < deadline:
        answer = airflow.xcom(SUBMIT_DAG, run_id, SUBMIT_TASK)
        if answer is not None:
            return dict(answer)
        state = airflow.run(SUBMIT_DAG, run_id)["state"]
        if state == "failed":
            raise SubmissionFailed(run_url=page, state=state, reason="the submission was not accepted")
        time.sleep(0.1)
    raise SubmissionFailed(run_url=page, state="running", reason=f"no answer within {SUBMIT_TIMEOUT_S:.0f} s")


def summarise(
    settings: DemoSettings,
    server: DemoServer,
    submission: Submission,
    progress: Progress,
    verification: Verification,
    seconds: float,
) -> Summary:
    """Everything that is known, in one place.

    Args:
        settings: the stack.
        server: the data server.
        submission: the answer to the submission that was admitted.
        progress: the task when it had ended.
        verification: of its rows.
        seconds: from the submission to the task's end, as the submitter saw it.
    """
    run_url = submission.run_url
    if progress.dag_id and progress.run_id:
        run_url = settings.airflow().run_page(progress.dag_id, progress.run_id)
    return Summary(
        status=progress.status,
        task_id=progress.task_id,
        duplicate_of=submission.duplicate_of,
        rows=verification.rows,
        expected_rows=verification.expected_rows,
        checksum_ok=verification.checksum_ok,
        checksum=verification.checksum,
        seconds=round(seconds, 3),
        rows_per_second=round(progress.rows / seconds, 1),
        first_shard_s=progress.first_shard_s,
        shards=progress.shards_total,
        shards_done=progress.shards_done,
        attempts=progress.attempt,
        retries=progress.retries,
        http_retries=progress.http_retries,
        bad_rows=progress.bad_rows,
        bytes=progress.bytes,
        table=TABLE,
        run_url=run_url,
        submission_url=submission.run_url,
        airflow_url=settings.airflow_url,
        airflow_user=settings.airflow_user,
        password_file=str(settings.home / "secrets.env"),
        data_server=server.base_url,
    )

"""Airflow shows what really happened: dead tasks are red with a note, tables have events, refusals have answers."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.kills import empty_table, frozen, point_connection, stopped
from tests.e2e.running_stack import CHECKOUT, RunningStack, wait_for
from tests.plugins.integration.admission.inbox_broker import Producer
from tests.servers.paged import Failure, PagedServer, Recorded, pages_only

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]
SOURCE = "example_offset"
TABLE = "landing.example_offset"
CONSUMER = "e2e_landed"
CONSUMER_FILE = f'''"""Runs whenever {TABLE} has new rows."""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset

with DAG(
    dag_id="{CONSUMER}",
    schedule=[Asset("{TABLE}", uri="collect://landing/example_offset")],
    catchup=False,
    is_paused_upon_creation=False,
):
    EmptyOperator(task_id="landed")
'''


def test_a_dead_task_is_red_and_its_run_says_what_to_do(stack: RunningStack, server: PagedServer) -> None:
    server.fail_where(lambda request: True, Failure(status=404))
    task_id = stack.submit({"source": SOURCE, "force": True})["task_id"]
    task = stack.task_ended(task_id)
    assert task["status"] == "DEAD"
    run = stack.run_ended(task["dag_id"], task["run_id"])
    states = {each["task_id"]: each["state"] for each in stack.task_instances(task["dag_id"], task["run_id"])}
    assert (run["state"], states["settle"]) == ("failed", "failed")
    (letter,) = stack.rows("SELECT id FROM collect.dead_letter WHERE task_id = %s", task_id)
    note = run_note(stack, task)
    assert f"task {task_id} of `{SOURCE}` DEAD" in note
    assert "404" in note
    assert f"collect-ops dead redrive {letter['id']}" in note
    settled = stack.airflow.xcom(task["dag_id"], task["run_id"], "settle")
    assert isinstance(settled, list)
    # At once; on a machine that is too busy to answer within two seconds, by the sweep.
    shown = "SELECT FROM collect.run_note WHERE task_id = %s AND delivered_at IS NOT NULL"
    wait_for("the note to be delivered", lambda: stack.rows(shown, task_id), 200)


def since_of(request: Recorded) -> datetime | None:
    since = request.query.get("since")
    return None if since is None else datetime.fromisoformat(since)


@pytest.mark.parametrize("away", [frozen, pytest.param(stopped, marks=pytest.mark.chaos)])
def test_a_dead_tasks_run_fails_though_the_api_server_is_away(
    stack: RunningStack,
    server: PagedServer,
    away: Callable[[RunningStack, str], AbstractContextManager[None]],
) -> None:
    """Its last task cannot write the note then: it comes later, by the sweep."""
    server.fail_where(pages_only(), Failure(status=404))
    task_id = stack.submit({"source": SOURCE, "force": True})["task_id"]
    dead = "SELECT FROM collect.task WHERE id = %s AND status = 'DEAD'"
    verdict = "SELECT FROM pg_stat_activity WHERE application_name = 'collect-ops verdict'"
    note = "SELECT delivered_at FROM collect.run_note WHERE task_id = %s"
    with psycopg.connect(stack.settings.postgres_dsn) as holder:
        wait_for("a dead task", lambda: stack.rows(dead, task_id), 60, poll_s=0.02)
        # A shard group has settled it. The run's last task waits here, before it calls Airflow.
        holder.execute("LOCK TABLE collect.run_note IN ACCESS EXCLUSIVE MODE")
        wait_for("the run's last task", lambda: stack.rows(verdict), 60, poll_s=0.05)
        with away(stack, "api-server"):
            holder.rollback()
            wait_for("its verdict", lambda: not stack.rows(verdict), 60, poll_s=0.05)
            assert stack.rows(note, task_id) == [{"delivered_at": None}]
    task = stack.task(task_id)
    run = stack.run_ended(task["dag_id"], task["run_id"], 200)
    states = {each["task_id"]: each["state"] for each in stack.task_instances(task["dag_id"], task["run_id"])}
    assert (run["state"], states["settle"]) == ("failed", "failed")
    wait_for("the note, by the sweep", lambda: stack.rows(note, task_id)[0]["delivered_at"], 200)
    assert f"task {task_id} of `{SOURCE}` DEAD" in run_note(stack, task)


@pytest.fixture
def small(stack: RunningStack, server: PagedServer) -> Iterator[None]:
    """The source's last task was small, so those that wait share a run; afterwards it is as large as ever."""
    rows = server.rows

    def collect(size: int) -> None:
        server.rows = size
        task_id = stack.submit({"source": SOURCE, "force": True})["task_id"]
        assert stack.task_ended(task_id)["status"] == "COMPLETED"

    collect(20)
    yield
    server.mend()
    collect(rows)


@pytest.mark.usefixtures("small")
def test_a_dead_task_delays_none_of_those_that_share_its_run(
    stack: RunningStack, server: PagedServer
) -> None:
    """Fifty in one run, the first dies first: the others end in the same attempt, and none waits for the verdict."""
    days = [datetime.now(UTC).replace(microsecond=0) - timedelta(days=number) for number in range(50)]
    first, *later = days

    def is_of(day: datetime) -> Callable[[Recorded], bool]:
        return pages_only(lambda request: since_of(request) == day)

    with stack.paused("lane_bulk"):
        batch = [{"since": day.isoformat()} for day in days]
        answer = stack.submit({"source": SOURCE, "priority": 1, "batch": batch})
        ids = [each["task_id"] for each in answer["tasks"]]
        before = len(server.requests)
        server.fail_where(is_of(first), Failure(status=404))
        held = [server.hold_where(is_of(day)) for day in later]
    try:
        stack.task_ended(ids[0], 120)
    finally:
        for each in held:
            each.release()
    unfinished = "SELECT FROM collect.task WHERE id = ANY(%s) AND finished_at IS NULL"
    wait_for("the end of all", lambda: not stack.rows(unfinished, ids), 60)

    tasks = stack.rows("SELECT * FROM collect.task WHERE id = ANY(%s) ORDER BY id", ids)
    assert [task["status"] for task in tasks] == ["DEAD"] + 49 * ["COMPLETED"]
    assert {task["attempt"] for task in tasks} == {1}
    ((dag_id, run_id),) = {(task["dag_id"], task["run_id"]) for task in tasks}
    assert stack.run_ended(dag_id, run_id)["state"] == "failed"
    instances = {each["task_id"]: each for each in stack.task_instances(dag_id, run_id)}
    assert {name: each["state"] for name, each in instances.items()} == {
        "plan": "success", "collect": "success", "settle": "failed",
    }  # fmt: skip
    dead_at, *ended_at = (task["finished_at"] for task in tasks)
    assert dead_at < min(ended_at)
    assert max(ended_at) < datetime.fromisoformat(instances["settle"]["start_date"])
    assert stack.airflow.xcom(dag_id, run_id, "settle") == [], "nothing was left for it to settle"
    asked = Counter(map(since_of, server.requests[before:]))
    assert len({asked[day] for day in later}) == 1, "none was asked for again"
    assert run_note(stack, tasks[0]).startswith("collect-ops: 1 DEAD of 50 tasks")


def test_a_task_that_died_after_its_runs_end_turns_it_red(stack: RunningStack, server: PagedServer) -> None:
    task_id = stack.submit({"source": SOURCE, "force": True})["task_id"]
    task = stack.task_ended(task_id)
    assert stack.run_ended(task["dag_id"], task["run_id"])["state"] == "success"
    # As a repair that settles late writes it.
    stack.execute(
        "INSERT INTO collect.run_note (task_id, attempt, dag_id, run_id, status, reason, written_at) "
        "VALUES (%s, %s, %s, %s, 'DEAD', 'lost too often', now() - interval '1 minute')",
        task_id, task["attempt"], task["dag_id"], task["run_id"],
    )  # fmt: skip
    stack.command("collect_ops.cli", "sweep")
    assert stack.run_ended(task["dag_id"], task["run_id"])["state"] == "failed"
    assert "lost too often" in run_note(stack, task)
    instances = stack.task_instances(task["dag_id"], task["run_id"])
    assert {each["state"] for each in instances} == {"success"}, "what ran well did"


def run_note(stack: RunningStack, task: dict[str, Any]) -> str:
    answer = stack.rest("GET", f"/dags/{task['dag_id']}/dagRuns/{task['run_id']}")
    return str(answer.json()["note"])


def test_a_rejected_submission_answers_with_its_faults(stack: RunningStack) -> None:
    conf = {"source": SOURCE, "params": {"sincee": "2026-01-31T00:00:00Z"}, "path": "//evil"}
    answer = stack.trigger("collect_submit", conf)
    run_id = answer.json()["dag_run_id"]
    assert stack.run_ended("collect_submit", run_id)["state"] == "failed"
    told = stack.airflow.xcom("collect_submit", run_id, "submit")
    assert "params.sincee" in {fault["field"] for fault in told["faults"]}
    assert "did you mean 'since'" in told["error"]


def test_a_collect_dag_refuses_an_empty_trigger_with_a_sentence(stack: RunningStack) -> None:
    answer = stack.trigger("collect_normal", {})
    run_id = answer.json()["dag_run_id"]
    assert stack.run_ended("collect_normal", run_id)["state"] == "failed"
    note = run_note(stack, {"dag_id": "collect_normal", "run_id": run_id})
    assert "to collect something, trigger collect_submit" in note


@pytest.fixture
def consumer(stack: RunningStack) -> Iterator[str]:
    """A DAG of somebody's that is scheduled on the table."""
    path = Path(CHECKOUT / "dags" / f"{CONSUMER}.py")
    path.write_text(CONSUMER_FILE, encoding="utf-8")
    try:
        stack.airflow.wait_for_dag(CONSUMER, 180)
        yield CONSUMER
    finally:
        path.unlink()
        stack.rest("DELETE", f"/dags/{CONSUMER}")


@pytest.mark.timeout(900)
def test_every_way_in_is_followed_by_the_tables_event(
    stack: RunningStack, server: PagedServer, consumer: str
) -> None:
    """REST, the command line, AMQP and the source's own DAG."""
    empty_table(stack, TABLE)
    point_connection(stack, "example_api", server.base_url)
    stack.airflow.unpause(f"source_{SOURCE}")

    def by_rest() -> None:
        stack.submit({"source": SOURCE, "force": True})

    def by_command() -> None:
        done = stack.command("collect_ops.cli", "submit", SOURCE, "--force")
        assert done.returncode == 0, done.stderr

    def by_message() -> None:
        with Producer(stack.settings.amqp_url) as producer:
            producer.ask({"schema": 1, "source": SOURCE, "force": True}, "one", message_id=uuid.uuid4().hex)

    def by_source_dag() -> None:
        assert stack.trigger(f"source_{SOURCE}", {}).status_code == 200

    for submit in (by_rest, by_command, by_message, by_source_dag):
        (newest,) = stack.rows("SELECT coalesce(max(id), 0) AS id FROM collect.task")
        submit()
        follow(stack, consumer, newest["id"])
    assert stack.rows("SELECT FROM collect.table_event") == []


def follow(stack: RunningStack, consumer: str, before: int) -> None:
    """The next task's rows are followed by one event, and the event by a run of the consumer."""
    later = "SELECT id FROM collect.task WHERE id > %s AND source = %s ORDER BY id LIMIT 1"
    (task,) = wait_for("the task", lambda: stack.rows(later, before, SOURCE), 90)
    assert stack.task_ended(task["id"], 120)["status"] == "COMPLETED"
    event = wait_for(f"the event of task {task['id']}", lambda: event_of(stack, task["id"]), 90)
    assert event["extra"]["sources"] == [SOURCE]
    wait_for("the consumer's run", lambda: consumed(stack, consumer, event["id"]), 90)


def events(stack: RunningStack) -> list[dict[str, Any]]:
    answer = stack.rest("GET", "/assets/events?order_by=-timestamp&limit=100")
    if answer.status_code == 500:
        return []  # Airflow 3.3.2 cannot answer while a run that an event created is queued: it has no start_date yet
    assert answer.status_code == 200, answer.text
    return [each for each in answer.json()["asset_events"] if each["name"] == TABLE]


def event_of(stack: RunningStack, task_id: int) -> dict[str, Any] | None:
    found = [each for each in events(stack) if task_id in each["extra"].get("task_ids", ())]
    return found[0] if found else None  # at least one: an answer that came too late is asked for again


def consumed(stack: RunningStack, consumer: str, event_id: int) -> bool:
    runs = [run for each in events(stack) if each["id"] == event_id for run in each["created_dagruns"]]
    return consumer in {run["dag_id"] for run in runs}


def test_the_runs_of_a_source_can_be_listed(stack: RunningStack, server: PagedServer) -> None:
    task_id = stack.submit({"source": SOURCE, "force": True})["task_id"]
    task = stack.task_ended(task_id)
    answer = stack.rest("GET", f"/dags/~/dagRuns?conf_contains=%22{SOURCE}%22&order_by=-start_date&limit=20")
    found = {(run["dag_id"], run["dag_run_id"]) for run in answer.json()["dag_runs"]}
    assert (task["dag_id"], task["run_id"]) in found
    assert all(SOURCE in str(run["conf"]) for run in answer.json()["dag_runs"])

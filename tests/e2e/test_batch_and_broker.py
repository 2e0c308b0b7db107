"""RabbitMQ, or PostgreSQL, is killed while tasks are admitted: each is stored once, and each gets its message."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from collect_ops.admission.model import Admission, Submission
from collect_ops.admission.service import AdmissionService
from collect_ops.broker.consumer import Consumer
from collect_ops.broker.message import TaskMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import intervene, outbox
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rules import lane_rules
from collect_ops.storage import Connection, connect
from tests.e2e.running_stack import RunningStack, wait_for
from tests.plugins.integration.broker.link import Link

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
TASKS = 10_000
BATCH = 1000
SUBMITTER = "test of a killed broker"


@contextmanager
def paused(stack: RunningStack, dag_id: str) -> Iterator[None]:
    """Nobody claims what the test looks at."""
    try:
        wait_for("a moment without a claim", lambda: _paused_between_runs(stack, dag_id), 120)
        yield
    finally:
        pause(stack, dag_id, is_paused=False)


def _paused_between_runs(stack: RunningStack, dag_id: str) -> bool:
    """Runs of a paused DAG stand still, so one that has begun is let go on first."""
    if active_runs(stack, dag_id) == 0:
        pause(stack, dag_id, is_paused=True)
        if active_runs(stack, dag_id) == 0:
            return True
        pause(stack, dag_id, is_paused=False)
    return False


def pause(stack: RunningStack, dag_id: str, *, is_paused: bool) -> None:
    answer = stack.rest("PATCH", f"/dags/{dag_id}", body={"is_paused": is_paused})
    assert answer.status_code == 200, answer.text


def active_runs(stack: RunningStack, dag_id: str) -> int:
    """Runs that are queued or running."""
    answer = stack.rest("GET", f"/dags/{dag_id}/dagRuns?state=running&state=queued")
    assert answer.status_code == 200, answer.text
    return int(answer.json()["total_entries"])


def admit_all(backends: Backends, killing: threading.Event) -> list[Admission]:
    """Ten batches, over kept connections; sets `killing` when the fourth begins."""
    answers: list[Admission] = []
    with AdmissionService(backends, lane_rules(), None) as service:
        for start in range(0, TASKS, BATCH):
            if start == 3 * BATCH:
                killing.set()
            batch = batch_of(BATCH, first=start)
            answers += [one for one in service.admit_batch(batch) if isinstance(one, Admission)]
    return answers


def batch_of(count: int, *, first: int = 0) -> list[Submission]:
    """Submissions of this run, none of which equals another's."""
    return [
        Submission(
            source="example_offset",
            params={"since": f"1990-01-01T00:00:00.{first + number:06d}Z"},
            priority=0,
            request_id=f"kill:{uuid.uuid4()}",
            submitted_by=SUBMITTER,
            submitted_via="test",
            identity={"run": f"{os.getpid()} {uuid.uuid4()}"},
        )
        for number in range(count)
    ]


def waiting(db: Connection) -> dict[int, int]:
    """Generations of the tasks that wait."""
    rows = db.execute(
        "SELECT id, generation FROM collect.task WHERE submitted_by = %s AND status = 'QUEUED'", (SUBMITTER,)
    ).fetchall()
    return {row["id"]: row["generation"] for row in rows}


def messages(backends: Backends, queue: str) -> list[TaskMessage]:
    """What is in a queue; all of it goes back."""
    with Consumer(backends.amqp_url) as consumer:
        return [TaskMessage.decode(one.body) for one in consumer.take(queue, 2 * TASKS, wait_s=2)]


def test_ten_thousand_tasks_and_a_killed_broker(stack: RunningStack) -> None:
    backends, rules = Backends.from_environment(), lane_rules()
    killing = threading.Event()

    def kill() -> None:
        killing.wait()
        os.kill(int(stack.services()["rabbitmq"]["pid"]), signal.SIGKILL)

    with (
        paused(stack, "lane_bulk"),
        connect(backends.postgres_dsn, application_name="test") as db,
    ):
        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        answers = admit_all(backends, killing)
        killer.join(10)
        try:
            ids = {answer.task_id for answer in answers}
            assert len(answers) == len(ids) == len(waiting(db)) == TASKS, "every caller has its own task"
            stack.wait_until_healthy()
            lost = db.execute(
                "SELECT count(*) AS n FROM collect.task WHERE submitted_by = %s AND confirmed_generation < generation",
                (SUBMITTER,),
            ).fetchone()
            with Publisher(backends.amqp_url) as publisher:
                published = outbox.run_once(db, publisher, rules, older_than_s=0)
            print(
                f"not confirmed when the broker died: {lost and lost['n']}; published again: {published.found}"
            )
            found = wait_for("every task's message", lambda: _all_there(backends, waiting(db)), 60)
            assert found >= TASKS
        finally:
            done = intervene.cancel(
                sorted(waiting(db)), backends, rules, actor=SUBMITTER, reason="the test is over"
            )
        assert len(done.moved) == TASKS


def test_a_thousand_tasks_and_a_killed_postgresql(stack: RunningStack) -> None:
    """The postmaster dies when they are stored, and before the broker has seen one of them."""
    backends, rules = Backends.from_environment(), lane_rules()
    address = urlsplit(backends.amqp_url)
    link = Link((str(address.hostname), int(address.port or 5672)))
    behind = replace(backends, amqp_url=link.url(backends.amqp_url))
    with paused(stack, "lane_bulk"), ThreadPoolExecutor(1) as pool:
        try:
            with AdmissionService(behind, rules, None) as service:
                assert len(service.admit_batch(batch_of(1, first=TASKS))) == 1  # opens the connections
                link.holding.set()
                admitting = pool.submit(service.admit_batch, batch_of(BATCH))
                stored = "SELECT 1 FROM collect.task WHERE submitted_by = %s AND status = 'QUEUED' OFFSET %s LIMIT 1"
                wait_for("the stored tasks", lambda: stack.rows(stored, SUBMITTER, BATCH), 60, poll_s=0.02)
                os.kill(int(stack.services()["postgres"]["pid"]), signal.SIGKILL)
                link.holding.clear()
                answers = admitting.result(60)
            stack.wait_until_healthy()
            with connect(backends.postgres_dsn, application_name="test") as db:
                tasks = waiting(db)
                ids = {answer.task_id for answer in answers if isinstance(answer, Admission)}
                assert len(ids) == BATCH, "every caller was told its own task"
                assert ids < set(tasks)
                assert len(tasks) == BATCH + 1
                with Publisher(backends.amqp_url) as publisher:
                    published = outbox.run_once(db, publisher, rules, older_than_s=0)
                print(f"published again after the kill of PostgreSQL: {published.found}")
                found = wait_for("every task's message", lambda: _all_there(backends, waiting(db)), 60)
            assert found >= BATCH + 1
        finally:
            link.close()
            stack.wait_until_healthy()
            with connect(backends.postgres_dsn, application_name="test") as db:
                done = intervene.cancel(
                    sorted(waiting(db)), backends, rules, actor=SUBMITTER, reason="the test is over"
                )
        assert len(done.moved) == BATCH + 1


def _all_there(backends: Backends, tasks: dict[int, int]) -> int | None:
    """How many messages there are, once each task has one of its generation."""
    found = messages(backends, lane_rules().queue("bulk"))
    named = {(one.task_id, one.generation) for one in found}
    return len(found) if set(tasks.items()) <= named else None

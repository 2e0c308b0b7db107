"""RabbitMQ is killed while ten thousand tasks are admitted: each is stored once, and each gets its message."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

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

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
TASKS = 10_000
BATCH = 1000
SUBMITTER = "test of a killed broker"


@contextmanager
def paused(stack: RunningStack, dag_id: str) -> Iterator[None]:
    """Nobody claims what the test looks at."""
    for is_paused in (True, False):
        answer = stack.rest("PATCH", f"/dags/{dag_id}", body={"is_paused": is_paused})
        assert answer.status_code == 200, answer.text
        if is_paused:
            try:
                yield
            except BaseException:
                stack.rest("PATCH", f"/dags/{dag_id}", body={"is_paused": False})
                raise


def admit_all(backends: Backends, killing: threading.Event) -> list[Admission]:
    """Ten batches, over kept connections; sets `killing` when the fourth begins."""
    answers: list[Admission] = []
    with AdmissionService(backends, lane_rules(), None) as service:
        for start in range(0, TASKS, BATCH):
            if start == 3 * BATCH:
                killing.set()
            batch = [
                Submission(
                    source="example_offset",
                    params={"since": f"1990-01-01T00:00:00.{start + number:06d}Z"},
                    priority=0,
                    request_id=f"kill:{uuid.uuid4()}",
                    submitted_by=SUBMITTER,
                    submitted_via="test",
                    identity={"run": os.getpid()},
                )
                for number in range(BATCH)
            ]
            answers += [one for one in service.admit_batch(batch) if isinstance(one, Admission)]
    return answers


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


def _all_there(backends: Backends, tasks: dict[int, int]) -> int | None:
    """How many messages there are, once each task has one of its generation."""
    found = messages(backends, lane_rules().queue("bulk"))
    named = {(one.task_id, one.generation) for one in found}
    return len(found) if set(tasks.items()) <= named else None

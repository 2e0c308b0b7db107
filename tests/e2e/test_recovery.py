"""New work starts soon after a blow, and what runs goes on: short form of the benchmark `recovery`.

`make chaos` runs those marked so besides.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pika
import psutil
import psycopg
import pytest

from benchmarks import slow_source
from benchmarks.settings import BenchSettings
from benchmarks.slow_source import LONG_PAGE_S, Kind
from collect_ops.admission.service import AdmissionService
from collect_ops.kernel.backends import Backends
from collect_ops.lanes.rest_runs import RestRuns
from collect_ops.lanes.rules import lane_rules
from stack import postgres, supervisor
from stack.layout import Layout
from stack.settings import CELERY_VHOST, load
from tests.e2e.kills import point_connection
from tests.e2e.running_stack import RunningStack, wait_for
from tests.factories import submission

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]
NUMBERS = slow_source.numbers()
#: Less than the long group has left. An urgent task's start on an idle machine takes 2 s.
SOON_S = 90.0
JOBS = "SELECT id, state FROM job WHERE job_type = 'SchedulerJob' ORDER BY id"


@pytest.fixture
def source(stack: RunningStack, request: pytest.FixtureRequest) -> Iterator[None]:
    with slow_source.serve(getattr(request, "param", LONG_PAGE_S)) as port:
        point_connection(stack, "example_api", f"http://127.0.0.1:{port}")
        yield


@pytest.fixture
def long_task(stack: RunningStack, source: None) -> Iterator[int]:
    """A task whose one group runs for two minutes, and has begun."""
    task_id = admit(stack, Kind.LONG, priority=5)
    landed = "SELECT 1 FROM collect.task_progress WHERE id = %s AND rows_landed > 0"
    wait_for("its first page", lambda: stack.rows(landed, task_id), 120)
    yield task_id
    stack.command("collect_ops.cli", "cancel", str(task_id))


def admit(stack: RunningStack, kind: Kind, priority: int) -> int:
    """Admit a task at once, as the command line does; repeated while PostgreSQL is away."""

    def submitted() -> int | None:
        done = stack.command(
            "collect_ops.cli", "submit", slow_source.SOURCE, "--priority", str(priority),
            "-p", f"since={slow_source.since(kind, next(NUMBERS))}", "--json",
        )  # fmt: skip
        return int(json_of(done.stdout)["task_id"]) if done.returncode == 0 else None

    return wait_for("an admission", submitted, 60)


def json_of(text: str) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(text)
    return found


def scheduler_jobs(stack: RunningStack) -> dict[int, str]:
    """States of Airflow's scheduler jobs."""
    known = load(Layout(home=stack.settings.home))
    with postgres.connect(known, known.places["POSTGRES_AIRFLOW_DB"]) as connection:
        return dict(connection.execute(JOBS).fetchall())


def pid_of(stack: RunningStack, program: str) -> int:
    return supervisor.states(Layout(home=stack.settings.home))[program].pid


def assert_untouched(stack: RunningStack, task_id: int) -> None:
    """The group that ran goes on: nothing of its task was lost or begun again."""
    task = stack.task(task_id)
    assert (task["attempt"], task["lost_count"], task["retry_count"]) == (1, 0, 0)
    assert task["status"] in ("RUNNING", "COMPLETED")


def test_postgres_killed_under_a_long_group_holds_up_nothing_new(stack: RunningStack, long_task: int) -> None:
    began = time.monotonic()
    os.kill(pid_of(stack, "postgres"), signal.SIGKILL)
    urgent = admit(stack, Kind.URGENT, priority=10)
    ended = "SELECT status FROM collect.task WHERE id = %s AND finished_at IS NOT NULL"
    (task,) = wait_for("its end", lambda: stack.rows(ended, urgent), SOON_S, patient=True)
    took_s = time.monotonic() - began
    assert task["status"] == "COMPLETED"
    # The group was still at its second page of five, and would have held up everything for as long.
    assert stack.task(long_task)["status"] == "RUNNING"
    assert took_s < 4 * LONG_PAGE_S
    assert_untouched(stack, long_task)


def test_plans_that_wait_for_a_slow_source_hold_up_no_claim(stack: RunningStack) -> None:
    """Six runs, as many as two lanes have room for; each waits for as long as a request may take."""
    settings = stack.settings
    backends = Backends(
        postgres_dsn=settings.postgres_dsn, redis_url=settings.redis_url, amqp_url=settings.amqp_url
    )
    service = AdmissionService(backends, lane_rules(), RestRuns.from_environment())

    def admitted(kind: Kind, priority: int) -> int:
        params = {"since": slow_source.since(kind, next(NUMBERS))}
        return service.admit(submission(slow_source.SOURCE, params=params, priority=priority)).task_id

    unclaimed = "SELECT 1 FROM collect.task WHERE id = ANY(%s) AND claimed_at IS NULL"
    started = "SELECT 1 FROM collect.task WHERE id = %s AND started_at IS NOT NULL"
    planned = "SELECT 1 FROM collect.shard WHERE task_id = ANY(%s)"
    slow: list[int] = []
    with slow_source.serve(waiting_s=28.0) as port:
        point_connection(stack, "example_api", f"http://127.0.0.1:{port}")
        for priorities in ((1, 5), (1, 5), (5,), (5,)):  # each with a run of its own
            some = [admitted(Kind.WAITING, priority) for priority in priorities]
            wait_for("their claim", lambda ids=some: not stack.rows(unclaimed, ids), 60, poll_s=0.1)
            slow += some
        urgent = admitted(Kind.URGENT, 10)
        wait_for("its plan", lambda: stack.rows(started, urgent), 60, poll_s=0.1)
        assert not stack.rows(planned, slow), "each of them waits for the source yet"
    for task_id in (*slow, urgent):
        stack.command("collect_ops.cli", "cancel", str(task_id))


@pytest.mark.parametrize("source", [8.0], indirect=True)  # four pages of it: longer than the pause
def test_a_scheduler_that_was_paused_for_20_s_takes_nothing_with_it(
    stack: RunningStack, long_task: int
) -> None:
    before = scheduler_jobs(stack)
    pid = pid_of(stack, "scheduler")
    assert stack.task(long_task)["status"] == "RUNNING"
    os.kill(pid, signal.SIGSTOP)
    time.sleep(20)  # the pause is what is tested
    os.kill(pid, signal.SIGCONT)
    ended = "SELECT status FROM collect.task WHERE id = %s AND finished_at IS NOT NULL"
    (task,) = wait_for("the long task's end", lambda: stack.rows(ended, long_task), 240)
    assert task["status"] == "COMPLETED"
    assert_untouched(stack, long_task)
    assert pid_of(stack, "scheduler") == pid, "it was taken for dead by nobody"
    assert scheduler_jobs(stack) == before


def test_a_killed_scheduler_is_known_to_be_dead_at_once(stack: RunningStack, long_task: int) -> None:
    running = [job for job, state in scheduler_jobs(stack).items() if state == "running"]
    pid = pid_of(stack, "scheduler")
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    wait_for(
        "the dead scheduler's job being marked",
        lambda: all(scheduler_jobs(stack)[job] == "failed" for job in running),
        30,
        poll_s=0.1,
    )
    # Long before Airflow would take it for dead, and before the next one has imported anything.
    assert time.monotonic() - killed < 30
    assert "running" not in scheduler_jobs(stack).values()
    stack.wait_until_healthy(240)
    assert pid_of(stack, "scheduler") != pid
    urgent = admit(stack, Kind.URGENT, priority=10)
    started = "SELECT 1 FROM collect.task WHERE id = %s AND started_at IS NOT NULL"
    wait_for("the start of new work", lambda: stack.rows(started, urgent), SOON_S)
    assert_untouched(stack, long_task)


@pytest.mark.chaos
def test_frozen_groups_hold_no_control_task(stack: RunningStack, long_task: int) -> None:
    """The whole pool of groups stands still; claiming, planning and settling go on beside it."""
    (worker,) = [psutil.Process(pid_of(stack, "worker"))]
    groups = next(child for child in worker.children() if "groups@" in " ".join(child.cmdline()))
    frozen = [groups, *groups.children(recursive=True)]
    planned = "SELECT 1 FROM collect.task WHERE id = %s AND started_at IS NOT NULL"
    for process in frozen:
        process.suspend()
    try:
        urgent = admit(stack, Kind.URGENT, priority=10)
        wait_for("a claim and a plan beside a frozen pool", lambda: stack.rows(planned, urgent), SOON_S)
    finally:
        for process in frozen:
            try:
                process.resume()
            except psutil.NoSuchProcess:  # it had ended before it was frozen
                continue
    ended = "SELECT status FROM collect.task WHERE id = %s AND finished_at IS NOT NULL"
    (task,) = wait_for("its end", lambda: stack.rows(ended, urgent), 180)
    assert task["status"] == "COMPLETED"


@pytest.mark.chaos
def test_health_and_watchdog_see_a_scheduler_whose_process_lives_and_does_nothing(
    stack: RunningStack,
) -> None:
    pid = pid_of(stack, "scheduler")
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(
            "an unhealthy scheduler",
            lambda: "last heartbeat" in (stack.services()["scheduler"]["problem"] or ""),
            60,
            poll_s=1,
        )
        wait_for("another scheduler", lambda: pid_of(stack, "scheduler") not in (0, pid), 120, poll_s=1)
    finally:
        if psutil.pid_exists(pid) and pid_of(stack, "scheduler") == pid:
            os.kill(pid, signal.SIGCONT)
    stack.wait_until_healthy(240)


@pytest.mark.chaos
def test_connections_cut_off_under_a_long_group_hold_up_nothing_new(
    stack: RunningStack, long_task: int
) -> None:
    settings = BenchSettings.load()
    with psycopg.connect(settings.stack.postgres_admin_dsn, autocommit=True) as connection:
        connection.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"""
        )
    urgent = admit(stack, Kind.URGENT, priority=10)
    started = "SELECT 1 FROM collect.task WHERE id = %s AND started_at IS NOT NULL"
    wait_for("the start of new work", lambda: stack.rows(started, urgent), SOON_S)
    assert_untouched(stack, long_task)


@pytest.mark.chaos
@pytest.mark.parametrize("source", [3.0], indirect=True)
def test_a_worker_that_is_restarted_hands_back_what_its_groups_have_not_done(
    stack: RunningStack, long_task: int
) -> None:
    done = stack.command("stack", "restart", "worker", timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    ended = "SELECT * FROM collect.task WHERE id = %s AND finished_at IS NOT NULL"
    (task,) = wait_for("its end", lambda: stack.rows(ended, long_task), 240)
    assert task["status"] == "COMPLETED"
    assert (task["lost_count"], task["retry_count"]) == (0, 0), "what was handed back was not lost"


@pytest.mark.chaos
def test_a_message_that_celery_lost_is_sent_anew(stack: RunningStack, source: None) -> None:
    """As after the death of a worker that had acked a message and had not begun with its task."""
    worker = psutil.Process(pid_of(stack, "worker"))
    pools = worker.children()
    worker.suspend()  # who would start the pools again
    try:
        for pool in pools:
            for process in (*pool.children(recursive=True), pool):
                process.kill()
        urgent = admit(stack, Kind.URGENT, priority=10)
        purged = wait_for("a message that no worker takes", purge_celery, 120)
        assert purged >= 1
    finally:
        worker.resume()
    lost = time.monotonic()
    ended = "SELECT status, attempt, retry_count FROM collect.task WHERE id = %s AND finished_at IS NOT NULL"
    (task,) = wait_for("its end", lambda: stack.rows(ended, urgent), 240)
    print(f"a task whose message was lost has ended after {time.monotonic() - lost:.0f} s")
    assert (task["status"], task["retry_count"]) == ("COMPLETED", 0)
    stack.wait_until_healthy(240)


def purge_celery() -> int:
    """Empty the queues of Celery's workers; returns how many messages were in them."""
    url = urlsplit(os.environ["COLLECT_AMQP_URL"])._replace(path=f"/{CELERY_VHOST}").geturl()
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        return sum(channel.queue_purge(queue).method.message_count for queue in ("control", "default"))

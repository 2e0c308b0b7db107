"""A task that ended DEAD fails its run and says so, whoever settled it and whatever was away; nothing else does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Any

import pytest

from collect_ops.delivery import due, repair, run_notes
from collect_ops.delivery.intervene import cancel
from collect_ops.delivery.sweep import sweep
from collect_ops.execution.run_verdict import NOTE_CHARS, RunVerdict, deliver_verdict
from collect_ops.lanes.runs import RunState
from collect_ops.nodes.rules import placement_rules
from collect_ops.orchestrator.errors import AirflowRefused, AirflowUnavailable
from collect_ops.orchestrator.port import RunOutcome
from collect_ops.storage import Connection
from tests.factories import list_source
from tests.plugins.integration.broker.link import wait_until
from tests.plugins.integration.recorded_reports import RecordedReports
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer, Recorded, pages_only

Serve = Callable[..., PagedServer]
NO_RETRIES = {"http_attempts": 1, "http_backoff_s": 0.01, "max_retries": 0, "base_s": 0.2}
#: Four shards, one of which may fail.
LENIENT: dict[str, Any] = {"retries": NO_RETRIES, "max_failed_shards": 2}


@pytest.fixture
def airflow() -> RecordedReports:
    return RecordedReports()


def started(world: World, **fields: Any) -> tuple[int, str]:
    """A task, and the run that a claim has started for it."""
    task_id = world.submit(**fields).task_id
    return task_id, world.claim().runs[0].run_id


def verdict(world: World, run_id: str, airflow: RecordedReports) -> RunVerdict:
    """What the run's last task does after settling."""
    return deliver_verdict(run_id, world.backends, lambda: airflow)


def pending(world: World) -> int:
    return len(world.rows("SELECT FROM collect.run_note WHERE delivered_at IS NULL"))


def deliver(world: World, airflow: RecordedReports) -> run_notes.Delivered:
    return run_notes.run_once(world.backends, lambda: airflow, grace_s=0)


def let_time_pass(world: World) -> None:
    """What was put off is due."""
    world.rows("UPDATE collect.run_note SET next_at = now() WHERE next_at IS NOT NULL RETURNING task_id")


def wait_of(world: World, run_id: str) -> float:
    """Seconds until a run is tried again."""
    statement = (
        "SELECT extract(epoch FROM min(next_at) - now())::float8 AS s FROM collect.run_note WHERE run_id = %s"
    )
    return float(world.rows(statement, run_id)[0]["s"])


def noted(world: World, db: Connection, runs: int, *, age_s: float = 9.0) -> list[str]:
    """Runs of one task each whose notes wait, the oldest first."""
    world.add(source())
    run_ids = []
    for number in range(runs):
        task_id = world.submit(params={"day": str(number)}).task_id
        run_ids.append(f"run {number}")
        db.execute(
            "INSERT INTO collect.run_note (task_id, attempt, dag_id, run_id, status, reason, written_at) "
            "VALUES (%s, 1, 'collect_normal', %s, 'DEAD', 'x', now() - make_interval(secs => %s))",
            (task_id, run_ids[-1], age_s - number / 1000),
        )
    return run_ids


def are_due(world: World, db: Connection) -> bool:
    return "notes" in due.look(db, world.backends, world.rules, placement_rules())


def on_page(offset: int) -> Callable[[Recorded], bool]:
    return pages_only(lambda request: request.query.get("offset") == str(offset))


def test_dead_by_a_shard_group(world: World, serve: Serve, airflow: RecordedReports) -> None:
    server = serve(rows=120)
    world.add(source(retries=NO_RETRIES))
    world.serve_from(server.base_url)
    server.fail_where(on_page(0), Failure(status=500))
    task_id, run_id = started(world)
    world.plan(run_id)
    asyncio.run(world.group(run_id, 0))
    asyncio.run(world.group(run_id, 1))
    assert world.task(task_id)["status"] == "DEAD"
    assert world.finish(run_id) == [], "the group has settled it"
    said = verdict(world, run_id, airflow)
    assert [(end.task_id, end.source, end.letter_id) for end in said.dead] == [(task_id, "things", 1)]
    note = airflow.notes[run_id]
    assert f"task {task_id}" in note
    assert "collect-ops dead redrive 1" in note
    assert "500" in note
    assert pending(world) == 0
    assert airflow.outcomes == {}, "the run has not ended: its state is Airflow's"


def test_dead_by_settling_what_its_groups_left(world: World, serve: Serve, airflow: RecordedReports) -> None:
    """A process that is lost for the last time: nobody but the run's last task settles."""
    world.add(source(retries=NO_RETRIES))
    world.serve_from(serve(rows=120).base_url)
    task_id, run_id = started(world)
    world.plan(run_id)
    world.rows("UPDATE collect.task SET lost_count = 100 RETURNING id")
    (settled,) = world.finish(run_id)
    assert settled.status == "DEAD"
    assert [end.task_id for end in verdict(world, run_id, airflow).dead] == [task_id]


def test_dead_by_planning(world: World, serve: Serve, airflow: RecordedReports) -> None:
    server = serve(rows=120)
    world.add(source(retries=NO_RETRIES))
    world.serve_from(server.base_url)
    server.fail_next("/offset", Failure(status=404))
    task_id, run_id = started(world)
    assert world.plan(run_id).groups == ()
    world.finish(run_id)
    assert world.task(task_id)["status"] == "DEAD"
    assert verdict(world, run_id, airflow).dead
    assert "404" in airflow.notes[run_id]


@pytest.mark.parametrize("ended", [RunOutcome.SUCCESS, RunOutcome.FAILED])
def test_dead_by_repair_after_the_runs_end(
    world: World, serve: Serve, airflow: RecordedReports, db: Connection, ended: RunOutcome
) -> None:
    world.add(source(retries=NO_RETRIES))
    world.serve_from(serve(rows=120).base_url)
    task_id, run_id = started(world)
    world.plan(run_id)
    db.execute("UPDATE collect.task SET lost_count = 100, progress_at = progress_at - interval '1 hour'")
    world.runs.states[run_id] = RunState.ENDED
    airflow.outcomes[run_id] = ended
    repair.run_once(world.backends, world.rules, world.runs, actor="repair")
    assert world.task(task_id)["status"] == "DEAD"
    done = deliver(world, airflow)
    assert (done.notes, done.failed) == (1, int(ended is RunOutcome.SUCCESS))
    assert airflow.outcomes[run_id] is RunOutcome.FAILED
    assert f"task {task_id}" in airflow.notes[run_id]
    assert deliver(world, airflow) == run_notes.Delivered(), "once"


def test_a_run_that_goes_on_is_left_alone_until_it_has_ended(
    world: World, serve: Serve, airflow: RecordedReports
) -> None:
    server = serve(rows=120)
    world.add(source(retries=NO_RETRIES))
    world.serve_from(server.base_url)
    server.fail_where(on_page(0), Failure(status=500))
    _, run_id = started(world)
    world.run(run_id)
    assert deliver(world, airflow).active == 1
    assert airflow.notes == {}
    airflow.outcomes[run_id] = RunOutcome.SUCCESS
    assert deliver(world, airflow) == run_notes.Delivered(), "not looked at all the time"
    let_time_pass(world)
    assert deliver(world, airflow).failed == 1
    assert airflow.outcomes[run_id] is RunOutcome.FAILED


def test_a_note_that_airflow_does_not_take_is_delivered_by_the_sweep(
    world: World, serve: Serve, airflow: RecordedReports
) -> None:
    server = serve(rows=120)
    world.add(source(retries=NO_RETRIES))
    world.serve_from(server.base_url)
    server.fail_where(on_page(0), Failure(status=500))
    task_id, run_id = started(world)
    world.run(run_id)
    airflow.away = True
    assert verdict(world, run_id, airflow).dead, "the run's last task fails all the same"
    assert pending(world) == 1
    world.rows("UPDATE collect.run_note SET written_at = written_at - interval '1 minute' RETURNING task_id")
    with pytest.raises(ExceptionGroup):
        sweep(world.backends, world.rules, world.runs, actor="test", open_reports=lambda: airflow)
    airflow.away = False
    let_time_pass(world)
    airflow.outcomes[run_id] = RunOutcome.FAILED
    assert deliver(world, airflow).notes == 1
    assert f"task {task_id}" in airflow.notes[run_id]
    assert pending(world) == 0


def test_a_run_that_was_deleted_is_given_up(world: World, serve: Serve, airflow: RecordedReports) -> None:
    server = serve(rows=120)
    world.add(source(retries=NO_RETRIES))
    world.serve_from(server.base_url)
    server.fail_where(on_page(0), Failure(status=500))
    _, run_id = started(world)
    world.run(run_id)
    airflow.outcomes[run_id] = RunOutcome.MISSING
    assert deliver(world, airflow).missing == 1
    assert deliver(world, airflow) == run_notes.Delivered()


def test_partial_is_a_note_and_no_failure(world: World, serve: Serve, airflow: RecordedReports) -> None:
    server = serve(rows=400)
    world.add(source(**LENIENT))
    world.serve_from(server.base_url)
    server.fail_where(on_page(100), Failure(status=404))
    task_id, run_id = started(world)
    world.run(run_id)
    assert world.task(task_id)["status"] == "PARTIAL"
    said = verdict(world, run_id, airflow)
    assert said.dead == []
    assert f"collect-ops status {task_id}" in airflow.notes[run_id]
    airflow.outcomes[run_id] = RunOutcome.SUCCESS
    deliver(world, airflow)
    assert airflow.outcomes[run_id] is RunOutcome.SUCCESS


def test_a_withdrawn_survivor_whose_work_is_partial_is_a_note(
    world: World, serve: Serve, airflow: RecordedReports
) -> None:
    """Its own caller has cancelled; those that were merged into it got less than there is, in this run."""
    server = serve(rows=1000)
    world.add(list_source())
    world.serve_from(server.base_url)
    one, two = (world.submission(params={"ids": each}) for each in ("1,2", "3"))
    survivor, merged = (answer.task_id for answer in world.service().admit_batch([one, two]))  # type: ignore[union-attr]
    run_id = world.claim().runs[0].run_id
    counting, fetching = (server.hold_where(lambda request: request.path == "/select") for _ in range(2))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.run, run_id)
        counting.wait()
        cancel([survivor], world.backends, world.rules, actor="test", reason="enough")
        counting.release()
        fetching.wait()
        body = b'{"rows": [{"id": 1}, {"id": 2}, {"id": 3}], "matching": 99}'
        server.fail_where(lambda _request: True, Failure(status=200, body=body))
        fetching.release()
        running.result(20)
    assert [world.task(task_id)["status"] for task_id in (survivor, merged)] == ["CANCELLED", "PARTIAL"]
    said = verdict(world, run_id, airflow)
    assert [(end.task_id, end.status) for end in said.ends] == [(survivor, "PARTIAL")]
    assert "cancelled by its own caller" in said.ends[0].reason
    assert said.dead == []
    assert f"collect-ops status {survivor}" in airflow.notes[run_id]


def test_retrying_stays_green_and_says_nothing(world: World, serve: Serve, airflow: RecordedReports) -> None:
    server = serve(rows=120)
    world.add(source())
    world.serve_from(server.base_url)
    server.fail_where(on_page(0), Failure(status=500))
    task_id, run_id = started(world)
    world.run(run_id)
    assert world.task(task_id)["status"] == "RETRYING"
    assert verdict(world, run_id, airflow) == RunVerdict(run_id=run_id)
    assert (airflow.notes, deliver(world, airflow)) == ({}, run_notes.Delivered())


def test_held_stays_green_and_says_nothing(
    world: World, serve: Serve, airflow: RecordedReports, db: Connection
) -> None:
    """The host's circuit opens while the task runs: it is set aside, which is nobody's failure."""
    world.add(source())
    world.serve_from("http://127.0.0.1:9")
    statuses = set()
    for number in range(12):
        task_id = world.submit(params={"day": f"day {number}"}).task_id
        for run in world.claim().runs:
            world.run(run.run_id)
            assert verdict(world, run.run_id, airflow).ends == ()
        statuses.add(world.task(task_id)["status"])
    assert "HELD" in statuses
    assert airflow.notes == {}


@pytest.mark.parametrize("dies", ["while it is planned", "before the others", "after the others"])
def test_fifty_tasks_share_a_run_and_the_first_is_dead(
    world: World, serve: Serve, airflow: RecordedReports, dies: str
) -> None:
    """The others end in the same attempt, whenever it dies: none is asked for again, none waits for the verdict."""
    server = serve(rows=20)
    world.add(source(retries=NO_RETRIES))
    world.serve_from(server.base_url)
    alone = {"day": "so that the source is known to be small"}
    world.collect(params=alone)
    first, *later = tasks = [world.submit(params={"day": str(number)}).task_id for number in range(50)]
    planned = dies == "while it is planned"
    of_the_first = page_of(0)
    server.fail_where(
        lambda request: request.query.get("day") == "0" and (planned or of_the_first(request)),
        Failure(status=404),
    )
    (run,) = world.claim().runs
    assert [each["task_id"] for each in run.conf["tasks"]] == tasks
    if planned:
        world.run(run.run_id)
    else:
        waiting, awaited = (later, [first]) if dies == "before the others" else ([first], later)
        unfinished = "SELECT FROM collect.task WHERE id = ANY(%s) AND finished_at IS NULL"
        held = [server.hold_where(page_of(tasks.index(task_id))) for task_id in waiting]
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(world.run, run.run_id)
            try:
                wait_until(lambda: not world.rows(unfinished, awaited), within_s=30)
            finally:
                for each in held:
                    each.release()
            running.result(20)
    rows = world.rows(
        "SELECT status, attempt, finished_at FROM collect.task WHERE id = ANY(%s) ORDER BY id", tasks
    )
    assert [row["status"] for row in rows] == ["DEAD"] + 49 * ["COMPLETED"]
    assert {row["attempt"] for row in rows} == {1}
    dead_at, *ended_at = (row["finished_at"] for row in rows)
    if dies == "before the others":
        assert dead_at < min(ended_at)
    else:
        assert max(ended_at) < dead_at
    asked = Counter(request.query["day"] for request in server.requests)
    assert {asked[str(number)] for number in range(1, 50)} == {asked[alone["day"]]}, "as often as one alone"
    said = verdict(world, run.run_id, airflow)
    assert [end.task_id for end in said.dead] == [first]
    assert airflow.notes[run.run_id].startswith("collect-ops: 1 DEAD of 50 tasks")
    (note,) = world.rows("SELECT delivered_at FROM collect.run_note WHERE run_id = %s", run.run_id)
    assert max(dead_at, *ended_at) < note["delivered_at"]


def page_of(day: int) -> Callable[[Recorded], bool]:
    return pages_only(lambda request: request.query.get("day") == str(day))


def test_many_dead_tasks_fit_a_note(world: World, serve: Serve, airflow: RecordedReports) -> None:
    server = serve(rows=20)
    world.add(source(retries=NO_RETRIES))
    world.serve_from(server.base_url)
    world.collect(params={"day": "so that the source is known to be small"})
    server.fail_where(
        lambda request: True, Failure(status=404, body=b"![x](http://evil/`) <b>" + b"x" * 5000)
    )
    for number in range(50):
        world.submit(params={"day": str(number)})
    (run,) = world.claim().runs
    world.run(run.run_id)
    said = verdict(world, run.run_id, airflow)
    note = airflow.notes[run.run_id]
    assert len(said.dead) == 50
    assert len(note) <= NOTE_CHARS
    assert note.startswith("collect-ops: 50 DEAD of 50 tasks")
    assert note.count("`") % 2 == 0


def test_a_persons_note_is_kept(world: World, serve: Serve, airflow: RecordedReports) -> None:
    server = serve(rows=120)
    world.add(source(retries=NO_RETRIES))
    world.serve_from(server.base_url)
    server.fail_where(on_page(0), Failure(status=500))
    _, run_id = started(world)
    world.run(run_id)
    airflow.notes[run_id] = "I am looking at this. Ada"
    verdict(world, run_id, airflow)
    airflow.outcomes[run_id] = RunOutcome.FAILED
    world.rows("UPDATE collect.run_note SET delivered_at = NULL RETURNING task_id")
    deliver(world, airflow)
    note = airflow.notes[run_id]
    assert note.startswith("I am looking at this. Ada\n\ncollect-ops: 1 DEAD")
    assert note.count("collect-ops: ") == 1


def test_a_task_that_was_redriven_before_the_verdict_has_failed_this_run(
    world: World, serve: Serve, airflow: RecordedReports
) -> None:
    server = serve(rows=120)
    world.add(source(retries=NO_RETRIES))
    world.serve_from(server.base_url)
    server.fail_where(on_page(0), Failure(status=500))
    task_id, run_id = started(world)
    world.run(run_id)
    server.mend()
    world.rows("UPDATE collect.task SET status = 'QUEUED', generation = generation + 1 RETURNING id")
    assert [end.task_id for end in verdict(world, run_id, airflow).dead] == [task_id]


@pytest.mark.parametrize("kind", ["active", "refused", "unanswered"])
def test_what_is_tried_in_vain_keeps_no_other_note_waiting(
    world: World, airflow: RecordedReports, db: Connection, kind: str
) -> None:
    run_ids = noted(world, db, 4)
    for run_id in run_ids:
        airflow.outcomes[run_id] = RunOutcome.FAILED
    for run_id in run_ids[:3]:
        if kind == "active":
            airflow.outcomes[run_id] = RunOutcome.ACTIVE
        elif kind == "unanswered":
            airflow.failing[run_id] = AirflowUnavailable("no answer in time")
        else:
            airflow.failing[run_id] = AirflowRefused("write the note", 404, "no such DAG")
    for _ in range(4):
        with suppress(ExceptionGroup, AirflowUnavailable):
            run_notes.run_once(world.backends, lambda: airflow, most=3)
    assert list(airflow.notes) == run_ids[3:]
    assert airflow.asked == run_ids, "each once"
    assert not are_due(world, db)


@pytest.mark.parametrize(
    ("outcome", "longest_s"),
    [
        (RunOutcome.ACTIVE, run_notes.LONGEST_ACTIVE_WAIT_S),
        (RunOutcome.FAILED, run_notes.LONGEST_REFUSED_WAIT_S),
    ],
)
def test_each_wait_is_twice_as_long_up_to_a_limit(
    world: World, airflow: RecordedReports, db: Connection, outcome: RunOutcome, longest_s: float
) -> None:
    (run_id,) = noted(world, db, 1)
    airflow.outcomes[run_id] = outcome
    airflow.failing[run_id] = AirflowRefused("write the note", 409, "no")
    waits = []
    for _ in range(12):
        with suppress(ExceptionGroup):
            deliver(world, airflow)
        waits.append(wait_of(world, run_id))
        let_time_pass(world)
        assert are_due(world, db)
    assert waits[:3] == pytest.approx([15, 30, 60], abs=2)
    assert waits[-1] == pytest.approx(longest_s, abs=2)


@pytest.mark.parametrize(
    ("status", "hours", "given_up"), [(404, 25, 1), (409, 25, 1), (404, 23, 0), (401, 25, 0), (503, 25, 0)]
)
def test_a_note_that_is_refused_for_a_day_is_given_up(
    world: World, airflow: RecordedReports, db: Connection, status: int, hours: int, given_up: int
) -> None:
    """Unless the refusal is not about the run: somebody mends that."""
    (run_id,) = noted(world, db, 1, age_s=hours * 3600)
    airflow.outcomes[run_id] = RunOutcome.SUCCESS
    airflow.failing[run_id] = AirflowRefused("write the note", status, "no")
    with nullcontext() if given_up else pytest.raises(ExceptionGroup):
        assert deliver(world, airflow).given_up == 1
    assert pending(world) == 1 - given_up


@pytest.mark.parametrize(("days", "given_up"), [(6, 0), (8, 1)])
def test_a_run_that_never_ends_is_given_up(
    world: World, airflow: RecordedReports, db: Connection, days: int, given_up: int
) -> None:
    noted(world, db, 1, age_s=days * 86_400)
    done = deliver(world, airflow)
    assert (done.active, done.given_up, pending(world)) == (1 - given_up, given_up, 1 - given_up)


def test_a_later_note_of_a_run_that_was_put_off_is_due(
    world: World, airflow: RecordedReports, db: Connection
) -> None:
    (run_id,) = noted(world, db, 1)
    deliver(world, airflow)
    assert not are_due(world, db)
    db.execute(
        "INSERT INTO collect.run_note (task_id, attempt, dag_id, run_id, status, reason, written_at) "
        "SELECT task_id, 2, dag_id, run_id, 'DEAD', 'y', now() - interval '9 s' FROM collect.run_note"
    )
    assert are_due(world, db)
    airflow.outcomes[run_id] = RunOutcome.SUCCESS
    assert deliver(world, airflow).failed == 1
    assert pending(world) == 0

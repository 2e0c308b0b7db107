"""One admission behind every way in: what differs between them is who asked, and when for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from collect_ops.admission.model import Admission
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.load import UnknownSource
from collect_ops.storage import Connection, connect
from tests.plugins.integration.regressions.waiting import until
from tests.plugins.integration.world import World, source

WAYS = ("dag", "operator", "schedule", "cli", "amqp")


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source(), source("others", target={"table": "others", "disposition": "append"}))


def admitted(answers: list[Any]) -> list[Admission]:
    assert all(isinstance(answer, Admission) for answer in answers), answers
    return answers


def test_the_same_work_by_another_way_is_a_duplicate(world: World) -> None:
    first = world.submit(submitted_via="dag", params={"day": "monday"})
    for way in WAYS:
        again = world.submit(submitted_via=way, submitted_by=f"somebody by {way}", params={"day": "monday"})
        assert again.duplicate_of == first.task_id


def test_a_schedule_collects_each_interval_once(world: World) -> None:
    intervals = ["2024-01-01", "2024-01-02", "2024-01-01"]
    answers = [
        world.submit(submitted_via="schedule", identity={"data_interval_start": interval})
        for interval in intervals
    ]
    assert [answer.duplicate_of for answer in answers] == [None, None, answers[0].task_id]


def test_what_makes_work_another(world: World) -> None:
    world.submit(params={"day": "monday"})
    for fields in (
        {"params": {"day": "tuesday"}},
        {"params": {}},
        {"path": "/other", "params": {"day": "monday"}},
    ):
        assert world.submit(**fields).duplicate_of is None, fields
    assert world.submit("others", params={"day": "monday"}).duplicate_of is None
    assert world.submit(params={"day": "monday"}, priority=9).duplicate_of is not None, (
        "priority is not the work"
    )


def test_a_request_that_comes_twice_in_a_batch_is_answered_twice_and_admitted_once(world: World) -> None:
    submission = world.submission()
    first, again = admitted(world.service().admit_batch([submission, submission]))
    assert (first.task_id, first.known, again.known) == (again.task_id, False, True)
    assert world.rows("SELECT count(*) AS n FROM collect.task") == [{"n": 1}]


def test_force_in_a_batch_admits_each_and_the_last_holds_the_key(world: World) -> None:
    first = world.submit()
    batch = [world.submission(), world.submission(force=True), world.submission(force=True)]
    refused, one, two = admitted(world.service().admit_batch(batch))
    assert one.duplicate_of is None
    assert two.duplicate_of is None
    assert len({first.task_id, one.task_id, two.task_id}) == 3
    assert refused.duplicate_of in (first.task_id, two.task_id)
    assert world.submit().duplicate_of == two.task_id


def test_batches_that_cross_do_not_wait_for_each_other(world: World) -> None:
    """The same keys and request ids in opposite orders: a deadlock, unless both lock in one order."""
    batch = [world.submission(params={"day": str(number)}) for number in range(40)]
    fresh = [world.submission(params={"day": str(number)}) for number in range(40)]
    batches = [batch, batch[::-1], fresh, fresh[::-1]]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda each: world.service().admit_batch(each), batches))
    for each in answers:
        admitted(each)
    assert world.rows("SELECT count(*) AS n, count(DISTINCT dedup_key) AS keys FROM collect.task") == [
        {"n": 40, "keys": 40}
    ]
    by_request = {answer.request_id: answer.task_id for answer in admitted(answers[0])}
    assert by_request == {answer.request_id: answer.task_id for answer in admitted(answers[1])}


def test_a_submission_waits_for_the_one_that_is_being_stored(world: World, db: Connection) -> None:
    """The other is not committed: it may yet fail, and then this one is admitted."""
    submission = world.submission()
    with ThreadPoolExecutor(1) as pool, connect(world.backends.postgres_dsn) as other:
        with other.transaction(force_rollback=True):
            other.execute("INSERT INTO collect.submission (request_id) VALUES (%s)", (submission.request_id,))
            answer = pool.submit(world.service().admit, submission)
            until(lambda: waiting(db), "the submission waits")
        found = answer.result(timeout=30)
    assert (found.known, found.duplicate_of) == (False, None)


def waiting(db: Connection) -> bool:
    row = db.execute(
        "SELECT count(*) AS n FROM pg_stat_activity "
        "WHERE application_name = 'collect-ops admission' AND wait_event_type = 'Lock'"
    ).fetchone()
    return row is not None and row["n"] > 0


def test_an_unknown_source_is_told_which_was_meant(world: World) -> None:
    with pytest.raises(UnknownSource, match="did you mean 'things'") as unknown:
        world.submit("thigns")
    assert "others" in str(unknown.value), "all of them are named"


def test_every_fault_of_a_submission_is_named(world: World) -> None:
    with pytest.raises(ValidationFailed) as failed:
        world.submit(priority=11, params={"dya": "monday"}, request_id="a\x00b", identity={"x": 2**70})
    assert {fault.field for fault in failed.value.faults} == {
        "priority",
        "params.dya",
        "request_id",
        "identity",
    }
    assert "did you mean 'day'" in str(failed.value)
    assert world.rows("SELECT count(*) AS n FROM collect.task") == [{"n": 0}]

"""Admission on real services: one answer a request, one task a key, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from collect_ops.admission.model import Admission, Preview, Submission
from collect_ops.broker.publisher import Publisher
from collect_ops.delivery import outbox
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.sources.load import UnknownSource
from collect_ops.storage import Connection, Json
from tests.plugins.integration.execution.own_redis import OwnRedis
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


def tasks(world: World) -> int:
    return int(world.rows("SELECT count(*) AS n FROM collect.task")[0]["n"])


def test_the_same_request_gets_its_first_answer(world: World) -> None:
    submission = world.submission()
    first, again = world.service().admit(submission), world.service().admit(submission)
    assert (first.known, again.known) == (False, True)
    assert again.task_id == first.task_id
    assert again.duplicate_of is None
    assert tasks(world) == 1


def test_a_refused_duplicate_gets_its_refusal_again(world: World) -> None:
    first = world.submit()
    submission = world.submission()
    answers = [world.service().admit(submission) for _ in range(2)]
    assert [answer.duplicate_of for answer in answers] == [first.task_id, first.task_id]
    assert answers[1].sentence().startswith(f"duplicate of task {first.task_id}, now QUEUED")
    assert [answer.declaration_changed for answer in answers] == [False, False]


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({}, False),
        ({"description": "what it is"}, True),
        ({"target": {"table": "things", "columns": {"id": {"type": "text"}}}}, True),
    ],
)
def test_a_duplicate_says_whether_the_declaration_has_changed(
    world: World, fields: dict[str, Any], *, changed: bool
) -> None:
    first = world.service().admit(world.submission())
    world.add(source(**fields))
    answers = [
        world.service().admit(world.submission()),
        *world.service().admit_batch([world.submission(), world.submission()]),
        *world.service().preview([world.submission()]),
    ]
    for answer in answers:
        assert isinstance(answer, Admission | Preview)
        assert (answer.duplicate_of, answer.declaration_changed) == (first.task_id, changed)
        assert ("declaration has changed" in answer.sentence()) == changed
        assert "--force" in answer.sentence()
    forced = world.service().admit(world.submission(force=True))
    assert (forced.duplicate_of, forced.declaration_changed) == (None, False)


def test_a_declaration_that_is_only_written_otherwise_has_not_changed(world: World, db: Connection) -> None:
    """Another version wrote it with other defaults, in another order: it means the same."""
    first = world.service().admit(world.submission())
    row = db.execute("SELECT definition FROM collect.source_version").fetchone()
    assert row is not None
    written = {name: row["definition"][name] for name in sorted(row["definition"]) if name != "description"}
    values = (b"other", "things", Json(written))
    db.execute("INSERT INTO collect.source_version (hash, source, definition) VALUES (%s, %s, %s)", values)
    db.execute("UPDATE collect.task SET source_version = %s WHERE id = %s", (b"other", first.task_id))
    again = world.service().admit(world.submission())
    assert (again.duplicate_of, again.declaration_changed) == (first.task_id, False)


def test_a_duplicate_of_a_declaration_that_nobody_understands(world: World, db: Connection) -> None:
    first = world.service().admit(world.submission())
    values = (b"nonsense", "things", Json({"name": "things", "nonsense": 1}))
    db.execute("INSERT INTO collect.source_version (hash, source, definition) VALUES (%s, %s, %s)", values)
    db.execute("UPDATE collect.task SET source_version = %s WHERE id = %s", (b"nonsense", first.task_id))
    again = world.service().admit(world.submission())
    assert (again.duplicate_of, again.declaration_changed) == (first.task_id, True)


def test_equal_work_is_refused_and_other_work_admitted(world: World) -> None:
    first = world.submit(params={"day": "monday"})
    assert world.submit(params={"day": "monday"}).duplicate_of == first.task_id
    assert world.submit(params={"day": "tuesday"}).duplicate_of is None
    assert world.submit(params={"day": "monday"}, identity={"data_interval": "x"}).duplicate_of is None


def test_twenty_racing_submitters_make_one_task(world: World) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: world.submit(), range(20)))
    admitted = [answer for answer in answers if answer.duplicate_of is None]
    assert len(admitted) == 1
    assert {answer.task_id for answer in answers} == {admitted[0].task_id}
    assert tasks(world) == 1


def test_one_request_racing_with_itself_gets_one_answer(world: World) -> None:
    submission = world.submission()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: world.service().admit(submission), range(10)))
    assert len({answer.task_id for answer in answers}) == 1
    assert [answer.known for answer in answers].count(False) == 1
    assert all(answer.duplicate_of is None for answer in answers)


def test_equals_in_a_batch_make_one_task(world: World) -> None:
    answers = world.service().admit_batch([world.submission() for _ in range(5)])
    assert all(isinstance(answer, Admission) for answer in answers)
    assert [answer.duplicate_of is None for answer in answers] == [True, False, False, False, False]
    assert len({answer.task_id for answer in answers}) == 1


def test_a_faulty_submission_does_not_touch_the_others(world: World) -> None:
    batch = [world.submission(), world.submission(priority=11), world.submission("thing")]
    good, faulty, unknown = world.service().admit_batch(batch)
    assert isinstance(good, Admission)
    assert isinstance(faulty, ValidationFailed)
    assert "0 to 10" in str(faulty)
    assert "11" in str(faulty)
    assert isinstance(unknown, UnknownSource)
    assert "'things'" in str(unknown)


def test_all_faults_are_named_at_once(world: World) -> None:
    with pytest.raises(ValidationFailed) as failed:
        world.submit(priority=-1, params={"dya": "monday"})
    assert {fault.field for fault in failed.value.faults} == {"priority", "params.dya"}
    assert tasks(world) == 0


@pytest.mark.parametrize("end", ["DEAD", "CANCELLED"])
def test_an_end_that_did_not_work_frees_the_key(world: World, db: Connection, end: str) -> None:
    first = world.submit()
    db.execute("UPDATE collect.task SET status = %s WHERE id = %s", (end, first.task_id))
    assert world.submit().duplicate_of is None


def test_an_expired_key_is_free_once_its_task_has_ended(world: World, db: Connection) -> None:
    first = world.submit()
    db.execute("UPDATE collect.dedup SET expires_at = now()")
    assert world.submit().duplicate_of == first.task_id
    for status in ("CLAIMED", "DISPATCHED", "COMPLETED"):
        db.execute("UPDATE collect.task SET status = %s", (status,))
    assert world.submit().duplicate_of is None


def test_force_takes_the_key_over(world: World) -> None:
    first, forced = world.submit(), world.submit(force=True)
    assert forced.duplicate_of is None
    assert forced.task_id != first.task_id
    assert world.submit().duplicate_of == forced.task_id


def test_a_flushed_redis_admits_nothing_twice(world: World) -> None:
    first = world.submit()
    client = redis.Redis.from_url(world.backends.redis_url)
    client.flushdb()
    client.close()
    assert world.submit().duplicate_of == first.task_id


def test_a_lying_hint_is_not_believed(world: World, db: Connection) -> None:
    first = world.submit()
    db.execute("UPDATE collect.task SET status = 'CANCELLED' WHERE id = %s", (first.task_id,))
    assert world.submit().duplicate_of is None


def test_without_redis_admission_is_as_right(world: World) -> None:
    world.backends = replace(world.backends, redis_url="redis://127.0.0.1:1/0")
    first = world.submit()
    assert first.duplicate_of is None
    assert world.submit().duplicate_of == first.task_id


def test_without_the_broker_the_task_waits_in_the_outbox(world: World, db: Connection) -> None:
    away = replace(world.backends, amqp_url="amqp://guest:guest@127.0.0.1:1/none")
    admission = world.service(away).admit(world.submission())
    task = world.task(admission.task_id)
    assert (task["status"], task["confirmed_generation"]) == ("QUEUED", 0)
    assert world.claim().claimed == 0
    with Publisher(world.backends.amqp_url) as publisher:
        published = outbox.run_once(db, publisher, world.rules, older_than_s=0)
        assert (published.found, published.confirmed) == (1, 1)
        assert published.lanes == {"normal"}
        assert outbox.run_once(db, publisher, world.rules, older_than_s=0).found == 0
    assert world.claim().claimed == 1


def test_the_priority_decides_the_lane(world: World) -> None:
    lanes = {}
    for priority in (0, 3, 4, 7, 8, 10):
        admission = world.submit(priority=priority, params={"day": str(priority)})
        lanes[priority] = world.task(admission.task_id)["lane"]
    assert lanes == {0: "bulk", 3: "bulk", 4: "normal", 7: "normal", 8: "urgent", 10: "urgent"}
    assert set(world.runs.woken) == {"bulk", "normal", "urgent"}


def test_a_thousand_are_admitted_confirmed_in_one_batch(world: World) -> None:
    batch = [world.submission(params={"day": str(number)}) for number in range(1000)]
    answers = world.service().admit_batch(batch)
    assert len({answer.task_id for answer in answers if isinstance(answer, Admission)}) == 1000
    confirmed = "SELECT count(*) AS n FROM collect.task WHERE confirmed_generation = 1"
    assert world.rows(confirmed)[0]["n"] == 1000


def test_active_refuses_equals_only_until_the_task_has_ended(
    world: World, serve: Callable[..., PagedServer]
) -> None:
    world.add(source(dedup={"while": "active"}))
    world.serve_from(serve(rows=10).base_url)
    first = world.submit()
    assert world.submit().duplicate_of == first.task_id
    world.claim_and_run()
    again = world.submit()
    assert again.duplicate_of is None
    redis.Redis.from_url(world.backends.redis_url).flushdb()
    assert world.submit().duplicate_of == again.task_id


def test_force_says_who_and_over_what(world: World) -> None:
    first = world.submit()
    forced = world.submit(force=True, submitted_by="anna")
    assert (
        forced.sentence() == f"task {forced.task_id} admitted, now QUEUED; forced over task {first.task_id}"
    )
    (log,) = world.rows("SELECT reason, actor FROM collect.task_log WHERE task_id = %s", forced.task_id)
    assert log["actor"] == "anna"
    assert log["reason"] == f"forced by anna over task {first.task_id}, which holds the dedup key"


def test_a_batch_asks_redis_as_often_as_a_single_submission(world: World, tmp_path: Path) -> None:
    def reads_of(batch: list[Submission]) -> int:
        before = client.info("stats")["total_reads_processed"]
        service.admit_batch(batch)
        return int(client.info("stats")["total_reads_processed"] - before)

    with OwnRedis(tmp_path) as own:
        client = redis.Redis.from_url(own.url)
        service = world.service(replace(world.backends, redis_url=own.url))
        service.admit(world.submission(params={"day": "first"}))  # connects
        one = reads_of([world.submission(params={"day": "one"})])
        # Few enough to go out in one piece: the client cuts what it sends every 6,000 bytes.
        many = reads_of([world.submission(params={"day": str(number)}) for number in range(30)])
        client.close()
    assert many == one


def test_a_whole_batch_or_nothing(world: World) -> None:
    good, bad = world.submission(params={"day": "monday"}), world.submission(params={"dya": "x"}, priority=12)
    with pytest.raises(ValidationFailed) as refused:
        world.service().admit_all([good, bad])
    assert [fault.field for fault in refused.value.faults] == ["batch.1.params.dya", "batch.1.priority"]
    assert tasks(world) == 0
    assert [answer.known for answer in world.service().admit_all([good])] == [False]


def test_a_deadline_is_kept_and_needs_an_offset(world: World) -> None:
    answer = world.submit(deadline="2031-01-01T10:00:00+02:00")
    assert world.task(answer.task_id)["deadline"].isoformat() == "2031-01-01T08:00:00+00:00"
    with pytest.raises(ValueError, match="deadline"):
        world.submission(deadline="2031-01-01T10:00:00")


def test_a_batch_may_mix_declared_and_default_numbers(world: World) -> None:
    world.add(
        source("briefly", dedup={"ttl_h": 1}, merge_window_seconds=5),
        source("longer", dedup={"ttl_h": 1.5}),
        source("usual"),
    )
    names = ("briefly", "usual", "longer")
    answers = world.service().admit_batch([world.submission(name) for name in names])
    assert [getattr(answer, "status", answer) for answer in answers] == ["QUEUED"] * 3
    hours = world.rows(
        "SELECT t.source, round(extract(EPOCH FROM d.expires_at - t.created_at) / 3600, 1)::float8 AS hours"
        " FROM collect.dedup AS d JOIN collect.task AS t ON t.id = d.task_id"
    )
    assert {row["source"]: row["hours"] for row in hours} == {"briefly": 1.0, "longer": 1.5, "usual": 24.0}

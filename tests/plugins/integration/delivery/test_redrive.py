"""Sending dead letters again: each once, with its id, history and landed rows, at a rate, and back again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from collect_ops.admission.model import Admission
from collect_ops.broker.consumer import Consumer
from collect_ops.broker.message import OutgoingMessage
from collect_ops.broker.publisher import Publisher
from collect_ops.coordination.dedup_hints import DedupHints
from collect_ops.delivery import redrive
from collect_ops.delivery.dead_model import NoSuchRedrive, edit_of, selection_of
from collect_ops.delivery.sweep import sweep
from collect_ops.kernel.errors import ValidationFailed
from collect_ops.storage import connect, query
from tests.plugins.integration.delivery.letters import (
    ACTOR,
    dead_tasks,
    drained,
    kill,
    letters_of,
    published,
    run_all,
    sent_again,
    service,
    state_of,
)
from tests.plugins.integration.world import World, source
from tests.servers.paged import Failure, PagedServer

Serve = Callable[..., PagedServer]


@pytest.fixture(autouse=True)
def declared(world: World, serve: Serve) -> None:
    world.add(source())
    world.serve_from(serve(rows=250).base_url)


def moves(world: World, task_id: int) -> list[str]:
    return [
        row["to_status"]
        for row in world.rows(
            "SELECT to_status FROM collect.task_log WHERE task_id = %s ORDER BY id", task_id
        )
    ]


def statuses(world: World, ids: list[int]) -> set[str]:
    return {world.task(task_id)["status"] for task_id in ids}


def test_one_is_sent_again_with_its_id_and_history(world: World) -> None:
    (task_id,) = dead_tasks(world, 1)
    (letter,) = letters_of(world, [task_id])
    done = sent_again(world, ids=[letter])
    assert (done.total, done.done, done.skipped, done.finished) == (1, 1, 0, True)
    task = world.task(task_id)
    assert (task["status"], task["generation"], task["retry_count"], task["moved_by"]) == (
        "QUEUED",
        2,
        0,
        ACTOR,
    )
    assert "redrive" in task["reason"]
    assert state_of(world, letter) == "REDRIVEN"
    run_all(world)
    assert world.task(task_id)["status"] == "COMPLETED"
    assert world.task(task_id)["attempt"] == 2
    assert moves(world, task_id)[:4] == ["QUEUED", "CLAIMED", "DEAD", "QUEUED"]
    assert service(world).show(letter)["letter"]["state"] == "SETTLED"
    assert redrive.progress_of(done.id, world.backends).settled == 1


def test_retries_get_a_new_life_and_another_death_another_letter(world: World) -> None:
    (task_id,) = dead_tasks(world, 1)
    world.serve_from("http://127.0.0.1:9")
    sent_again(world, task_id=task_id)
    run_all(world)
    assert (world.task(task_id)["status"], world.task(task_id)["retry_count"]) == ("RETRYING", 1)
    deadline = time.monotonic() + 60
    while world.task(task_id)["status"] != "DEAD":
        assert time.monotonic() < deadline
        world.claim_and_run()
    first, second = service(world).search(selection_of({"task_id": task_id}))[::-1]
    assert (first["state"], second["state"]) == ("FAILED", "OPEN")
    assert sent_again(world, ids=[first["id"]]).skipped == 1
    newest = redrive.list_redrives(world.backends)[0]
    assert redrive.skipped_items(newest.id, world.backends)[0]["answer"] == "is FAILED"


def test_done_shards_stay_done(world: World, serve: Serve) -> None:
    server = serve(rows=300)
    world.serve_from(server.base_url)
    world.add(source(retries={"http_attempts": 1, "max_retries": 0, "base_s": 0.2, "http_backoff_s": 0.01}))
    server.fail_where(lambda asked: asked.query.get("offset") == "250", Failure(status=500))
    task_id = world.collect()
    task = world.task(task_id)
    assert task["status"] == "DEAD", task["reason"]
    before = {
        row["shard_no"]: row
        for row in world.rows("SELECT * FROM collect.shard WHERE task_id = %s AND status = 'DONE'", task_id)
    }
    assert len(before) == 2
    server.mend()
    asked = len(server.requests)
    assert sent_again(world, task_id=task_id).done == 1
    pending = world.rows("SELECT status FROM collect.shard WHERE task_id = %s AND status <> 'DONE'", task_id)
    assert {row["status"] for row in pending} == {"PENDING"}
    run_all(world)
    assert world.task(task_id)["status"] == "COMPLETED"
    assert world.rows("SELECT count(*) AS n FROM landing.things") == [{"n": 300}]
    for number, row in before.items():
        (after,) = world.rows(
            "SELECT * FROM collect.shard WHERE task_id = %s AND shard_no = %s", task_id, number
        )
        assert (after["attempt"], after["fencing_token"]) == (row["attempt"], row["fencing_token"])
    assert [request.query["offset"] for request in server.requests[asked:]] == ["250"], (
        "not even its first page again"
    )


def test_a_group_and_a_filter(world: World) -> None:
    ids = dead_tasks(world, 6)
    others = dead_tasks(
        world, 2, message="{url}?day={n}: answered 500", days=[f"other {n}" for n in range(2)]
    )
    groups = service(world).groups(selection_of({}))
    done = sent_again(world, fingerprint=groups[0].fingerprint)
    assert (done.total, done.done) == (6, 6)
    assert (statuses(world, ids), statuses(world, others)) == ({"QUEUED"}, {"DEAD"})
    assert sent_again(world, text="ANSWERED 500", source="things").done == 2
    run_all(world)
    assert statuses(world, [*ids, *others]) == {"COMPLETED"}
    assert service(world).groups(selection_of({})) == []


def test_a_holder_of_the_key_wins(world: World) -> None:
    ids = dead_tasks(world, 2, days=["a", "b"])
    newer = world.submit(params={"day": "a"}).task_id
    done = sent_again(world, ids=letters_of(world, ids))
    assert (done.done, done.skipped) == (1, 1)
    (skipped,) = redrive.skipped_items(done.id, world.backends)
    assert (skipped["task_id"], skipped["answer"]) == (ids[0], f"duplicate of task {newer}, now QUEUED")
    assert [world.task(task_id)["status"] for task_id in ids] == ["DEAD", "QUEUED"]
    assert state_of(world, letters_of(world, ids)[0]) == "OPEN"


def test_of_two_dead_equals_one_is_sent(world: World) -> None:
    (first,) = dead_tasks(world, 1, days=["a"])
    (second,) = dead_tasks(world, 1, days=["a"])
    done = sent_again(world, source="things")
    assert (done.done, done.skipped) == (1, 1)
    (skipped,) = redrive.skipped_items(done.id, world.backends)
    assert skipped["answer"] == f"duplicate of task {first}, now QUEUED"
    assert world.task(second)["status"] == "DEAD"


def test_what_was_sent_again_refuses_its_equals(world: World) -> None:
    (task_id,) = dead_tasks(world, 1, days=["a"])
    sent_again(world, task_id=task_id)
    assert world.submit(params={"day": "a"}).duplicate_of == task_id


def test_a_submission_that_saw_it_dead_does_not_take_its_key(world: World) -> None:
    """The admission's snapshot is older than the redrive that it waits for: it must not judge by it."""
    (task_id,) = dead_tasks(world, 1, days=["a"])
    DedupHints(world.backends.redis_url)  # no hint is left of it: PostgreSQL decides
    begun = service(world).begin_redrive(selection_of({"task_id": task_id}), actor=ACTOR, reason="mended")
    answers: list[Admission] = []
    submitting = threading.Thread(target=lambda: answers.append(world.submit(params={"day": "a"})))
    with connect(world.backends.postgres_dsn) as db, Publisher(world.backends.amqp_url) as publisher:
        with db.transaction():
            row = db.execute(query("delivery/lock_redrive"), {"redrive_id": begun.id}).fetchone()
            assert row is not None
            redrive._step(db, publisher, row, ACTOR)
            submitting.start()
            _wait_for_lock(world)
        submitting.join(30)
    assert answers[0].duplicate_of == task_id
    assert len(world.rows("SELECT id FROM collect.task WHERE status = 'QUEUED'")) == 1


def _wait_for_lock(world: World) -> None:
    deadline = time.monotonic() + 20
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while not world.rows(waiting):
        assert time.monotonic() < deadline, "nobody waits"


def test_redrives_at_once_send_each_once(world: World) -> None:
    ids = dead_tasks(world, 200)
    threads = [
        threading.Thread(target=sent_again, args=(world,), kwargs={"source": "things"}) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {world.task(task_id)["generation"] for task_id in ids} == {2}
    totals = redrive.list_redrives(world.backends)
    assert sum(each.done for each in totals) == 200
    assert all(each.finished for each in totals)
    with Consumer(world.backends.amqp_url) as consumer:
        # The old messages, which are stale, and one of each.
        assert consumer.depth(world.rules.queue("normal")) == 400


def test_two_drivers_of_one_redrive_send_each_once(world: World) -> None:
    ids = dead_tasks(world, 700)
    begun = service(world).begin_redrive(selection_of({"source": "things"}), actor=ACTOR, reason="mended")
    threads = [
        threading.Thread(
            target=redrive.drive,
            args=(begun.id, world.backends, world.rules),
            kwargs={"actor": ACTOR, "time_limit_s": 60},
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redrive.progress_of(begun.id, world.backends).done == 700
    rows = world.rows("SELECT DISTINCT generation, status FROM collect.task WHERE id = ANY(%s)", ids)
    assert rows == [{"generation": 2, "status": "QUEUED"}]


def test_a_rate_holds_and_a_cancel_stops_the_rest(world: World) -> None:
    ids = dead_tasks(world, 40)
    begun = service(world).begin_redrive(
        selection_of({"source": "things"}), actor=ACTOR, reason="gently", rate_per_s=20
    )
    began = time.monotonic()
    told = []
    redrive.drive(
        begun.id,
        world.backends,
        world.rules,
        actor=ACTOR,
        time_limit_s=0.8,
        tell=lambda each: told.append(each.done),
    )
    assert told == sorted(told)
    progress = redrive.progress_of(begun.id, world.backends)
    assert 5 <= progress.done <= 1 + 20 * (time.monotonic() - began)
    assert not progress.finished
    cancelled = redrive.cancel(begun.id, world.backends, actor="boss")
    assert (cancelled.done + cancelled.cancelled, cancelled.pending, cancelled.cancelled_by) == (
        40,
        0,
        "boss",
    )
    assert redrive.step(begun.id, world.backends, world.rules, actor=ACTOR) == frozenset()
    assert sum(world.task(task_id)["status"] == "QUEUED" for task_id in ids) == cancelled.done
    assert redrive.cancel(begun.id, world.backends, actor="late").cancelled_by == "boss"
    with pytest.raises(NoSuchRedrive):
        redrive.cancel(10**9, world.backends, actor=ACTOR)


def test_the_sweep_goes_on_when_the_driver_has_died(world: World) -> None:
    ids = dead_tasks(world, 10)
    mine = {"actor": ACTOR, "reason": "mended"}
    whole = service(world).begin_redrive(selection_of({"ids": letters_of(world, ids[:5])}), **mine)
    rated = service(world).begin_redrive(
        selection_of({"ids": letters_of(world, ids[5:])}), rate_per_s=2, **mine
    )
    assert redrive.continue_all(world.backends, world.rules, actor="sweep") == {"normal"}
    assert redrive.progress_of(whole.id, world.backends).done == 5
    assert redrive.progress_of(rated.id, world.backends).done == 1
    with connect(world.backends.postgres_dsn) as db:
        db.execute("UPDATE collect.redrive SET stepped_at = stepped_at - interval '1 minute'")
    redrive.continue_all(world.backends, world.rules, actor="sweep")
    assert redrive.progress_of(rated.id, world.backends).finished
    assert statuses(world, ids) == {"QUEUED"}


def test_the_sweep_drains_and_goes_on_with_redrives(world: World) -> None:
    sent, waiting = dead_tasks(world, 2)
    service(world).begin_redrive(selection_of({"task_id": sent}), actor=ACTOR, reason="mended")
    done = sweep(world.backends, world.rules, world.runs, actor="sweep")
    assert (done.outbox.dead_letters, done.dead_letters.letters) == (2, 2)
    assert done.as_counts()["dead_letters"]["messages"] == 2
    assert [world.task(task_id)["status"] for task_id in (sent, waiting)] == ["QUEUED", "DEAD"]


def test_what_nobody_has_claimed_is_taken_back(world: World) -> None:
    ids = dead_tasks(world, 3, days=["a", "b", "c"])
    letters = letters_of(world, ids)
    reason = world.task(ids[0])["reason"]
    done = sent_again(world, ids=letters)
    with connect(world.backends.postgres_dsn) as db:
        db.execute("UPDATE collect.task SET status = 'HELD', moved_by = 'test' WHERE id = %s", (ids[1],))
        db.execute(
            "UPDATE collect.task SET status = 'CLAIMED', attempt = attempt + 1, moved_by = 'test' WHERE id = %s",
            (ids[2],),
        )
    back = service(world).take_back(selection_of({"redrive_id": done.id}), actor=ACTOR, reason="too early")
    assert back.moved == (letters[0], letters[1])
    assert back.left == {letters[2]: f"is REDRIVEN, task {ids[2]} is CLAIMED"}
    task = world.task(ids[0])
    assert (task["status"], task["reason"], task["retry_count"]) == ("DEAD", reason, 3)
    assert [state_of(world, letter) for letter in letters] == ["OPEN", "OPEN", "REDRIVEN"]
    assert redrive.progress_of(done.id, world.backends).taken_back == 2
    assert world.claim().claimed == 0, "its message is stale"
    assert world.submit(params={"day": "a"}).duplicate_of is None, "its key is free again"
    assert sent_again(world, ids=[letters[1]]).done == 1


def test_nothing_is_claimed_and_taken_back(world: World) -> None:
    """A claim and a take-back at once: one of them has the task."""
    for round_ in range(5):
        ids = dead_tasks(world, 20, days=[f"{round_} {n}" for n in range(20)])
        done = sent_again(world, ids=letters_of(world, ids))
        claiming = threading.Thread(target=world.claim)
        claiming.start()
        back = service(world).take_back(selection_of({"redrive_id": done.id}), actor=ACTOR, reason="race")
        claiming.join()
        rows = world.rows("SELECT id, status FROM collect.task WHERE id = ANY(%s)", ids)
        dead = {row["id"] for row in rows if row["status"] == "DEAD"}
        assert len(dead) == len(back.moved)
        assert {row["status"] for row in rows if row["id"] not in dead} <= {"CLAIMED", "QUEUED"}


def test_those_that_were_merged_go_and_come_with_their_survivor(world: World) -> None:
    survivor, member = dead_tasks(world, 2, days=["a", "b"])
    with connect(world.backends.postgres_dsn) as db:
        db.execute("DELETE FROM collect.dead_letter WHERE task_id = %s", (member,))
        db.execute("UPDATE collect.task SET merged_into = %s WHERE id = %s", (survivor, member))
        db.execute(
            "UPDATE collect.task SET merged_task_ids = ARRAY[%s::bigint] WHERE id = %s", (member, survivor)
        )
    done = sent_again(world, task_id=survivor)
    assert (world.task(survivor)["status"], world.task(member)["status"]) == ("QUEUED", "MERGED")
    service(world).take_back(selection_of({"redrive_id": done.id}), actor=ACTOR, reason="too early")
    assert statuses(world, [survivor, member]) == {"DEAD"}
    sent_again(world, task_id=survivor)
    run_all(world)
    assert statuses(world, [survivor, member]) == {"COMPLETED"}


def test_without_a_broker_it_is_stored_and_the_outbox_publishes_it(world: World) -> None:
    (task_id,) = dead_tasks(world, 1)
    away = world.backends.__class__(
        postgres_dsn=world.backends.postgres_dsn,
        redis_url=world.backends.redis_url,
        amqp_url="amqp://guest:guest@127.0.0.1:1/none",
    )
    begun = service(world).begin_redrive(selection_of({"task_id": task_id}), actor=ACTOR, reason="mended")
    redrive.step(begun.id, away, world.rules, actor=ACTOR)
    task = world.task(task_id)
    assert (task["status"], task["confirmed_generation"], task["generation"]) == ("QUEUED", 1, 2)
    with connect(world.backends.postgres_dsn) as db:
        db.execute("UPDATE collect.task SET queued_at = now() - interval '1 minute'")
    published(world)
    run_all(world)
    assert world.task(task_id)["status"] == "COMPLETED"


@pytest.mark.parametrize(
    ("selected", "options", "words"),
    [
        ({}, {}, "nothing given would mean all"),
        ({"source": "things"}, {"rate_per_s": 0}, "rate_per_s: must be above 0"),
        ({"source": "things"}, {"rate_per_s": float("nan")}, "rate_per_s: must be above 0"),
        ({"source": "things"}, {"reason": " "}, "reason: must say why"),
        ({"ids": [10**9]}, {}, "ids: does not exist"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    world: World, selected: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    dead_tasks(world, 1)
    with pytest.raises(ValidationFailed, match=words):
        service(world).begin_redrive(
            selection_of(selected), **{"actor": ACTOR, "reason": "mended", **options}
        )


def lane_message(world: World, body: bytes) -> int:
    """A malformed message to a lane, claimed and drained; returns its dead letter."""
    with Publisher(world.backends.amqp_url) as publisher:
        publisher.publish([OutgoingMessage(exchange="collect.tasks", routing_key="lane.normal", body=body)])
    world.claim()
    drained(world)
    return int(world.rows("SELECT max(id) AS id FROM collect.dead_letter")[0]["id"])


def test_a_message_is_mended_and_sent_again(world: World) -> None:
    task_id = world.submit().task_id
    with Consumer(
        world.backends.amqp_url
    ) as consumer:  # its message is lost, and somebody's attempt to help is wrong
        consumer.ack([each.tag for each in consumer.take(world.rules.queue("normal"), 10)])
    letter = lane_message(world, b'{"schema": 1, "task_id": "one"}')
    done = sent_again(world, ids=[letter])
    assert (done.done, state_of(world, letter)) == (1, "REDRIVEN")
    assert world.claim().malformed == 1, "as it was"
    drained(world)
    (again,) = service(world).search(selection_of({"state": "OPEN"}))
    body = f'{{"schema": 1, "task_id": {task_id}, "generation": 1}}'
    service(world).edit(again["id"], edit_of({"body": body}), actor=ACTOR, reason="a number")
    assert sent_again(world, ids=[again["id"]]).done == 1
    run_all(world)
    assert world.task(task_id)["status"] == "COMPLETED"


def test_a_message_that_nobody_takes_stays(world: World) -> None:
    letter, other = lane_message(world, b"a"), lane_message(world, b"b")
    service(world).edit(letter, edit_of({"exchange": "nowhere"}), actor=ACTOR, reason="try")
    done = sent_again(world, ids=[letter, other])
    assert (done.done, done.skipped) == (1, 1)
    (skipped,) = redrive.skipped_items(done.id, world.backends)
    assert "not published to exchange 'nowhere'" in skipped["answer"]
    assert (state_of(world, letter), state_of(world, other)) == ("OPEN", "REDRIVEN")
    service(world).edit(
        letter, edit_of({"exchange": "collect.tasks", "routing_key": "lane.none"}), actor=ACTOR, reason="try"
    )
    done = sent_again(world, ids=[letter])
    assert "no queue takes it" in redrive.skipped_items(done.id, world.backends)[0]["answer"]


def test_ten_times_as_many_take_about_ten_times_as_long(world: World) -> None:
    def took_s(ids: list[int]) -> float:
        began = time.monotonic()
        assert sent_again(world, ids=letters_of(world, ids)).done == len(ids)
        return time.monotonic() - began

    few_s = took_s(dead_tasks(world, 300))
    ids = dead_tasks(world, 3000, days=[f"another day {n}" for n in range(3000)])
    many_s = took_s(ids)
    assert many_s < 50 * few_s, "that would be a loop within a loop"
    kill(world, ids, "again {n}")
    assert service(world).groups(selection_of({}))[0].letters == 3000

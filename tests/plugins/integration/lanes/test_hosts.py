"""A host that does not answer holds its own tasks and nobody else's, and they go on by themselves."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from collect_ops.collectors.endpoint import Endpoint
from collect_ops.delivery import repair
from collect_ops.execution.plan import plan
from collect_ops.lanes.why import UnknownTask, why
from collect_ops.storage import Connection
from tests.factories import list_source, source
from tests.plugins.integration.world import World
from tests.servers.paged import Failure, PagedServer


@pytest.fixture
def down(world: World) -> World:
    """A source whose host does not answer, and one whose host does."""
    world.add(source(retries={"http_attempts": 1, "max_retries": 9, "base_s": 0.01}))
    world.add(source("healthy", connection="other_api"))
    return world


def submit(world: World, name: str = "things", count: int = 1) -> list[int]:
    batch = [world.submission(name, params={"day": uuid.uuid4().hex}) for _ in range(count)]
    return [answer.task_id for answer in world.service().admit_all(batch)]


def host(world: World) -> dict[str, object]:
    (row,) = world.rows("SELECT *, held_until > now() AS held FROM collect.host")
    return row


def endpoint(world: World) -> dict[str, object]:
    (row,) = world.rows("SELECT *, held_until > now() AS held FROM collect.endpoint")
    return row


def due_now(world: World) -> None:
    world.rows(
        "UPDATE collect.task SET due_at = now() - interval '2 minutes', queued_at = now() - interval '3 minutes' "
        "WHERE status = 'RETRYING' RETURNING id"
    )
    repair.run_once(world.backends, world.rules, world.runs, actor="test")


def let_pass(world: World) -> None:
    """The hold's time has passed."""
    for circuits in ("host", "endpoint"):
        world.rows(
            f"UPDATE collect.{circuits} SET held_until = now() - interval '1 second' "
            "WHERE held_until IS NOT NULL RETURNING connection"
        )


def fail_until_held(world: World) -> None:
    for _ in range(10):
        if world.rows("SELECT 1 AS held FROM collect.host WHERE held_until IS NOT NULL"):
            return
        due_now(world)
        world.claim_and_run()
    raise AssertionError("not held after ten rounds")


def states(world: World, ids: list[int]) -> list[str]:
    return [world.task(task_id)["status"] for task_id in ids]


def test_five_failures_in_a_row_hold_what_waits_and_nothing_else(down: World) -> None:
    first = submit(down, count=2)
    fail_until_held(down)
    row = host(down)
    assert row["failures"] == 5, "requests, two tasks"
    assert (row["connection"], row["held"], row["holds"]) == ("things_api", True, 1)
    assert "127.0.0.1:9" in str(row["last_error"])
    late = submit(down, count=3)
    (healthy,) = submit(down, "healthy")
    due_now(down)
    claimed = down.claim()
    assert states(down, [*first, *late]) == ["HELD"] * 5
    assert states(down, [healthy]) == ["CLAIMED"]
    assert claimed.held == 3, "the others were when their attempts ended"
    reason = down.task(late[0])["reason"]
    assert "circuit of the host of connection things_api is open (" in reason
    assert "held until 20" in reason
    assert all(task["retry_count"] <= 2 for task in map(down.task, first)), "the last attempt was not counted"


def test_one_is_let_through_and_a_failure_holds_for_twice_as_long(down: World) -> None:
    ids = submit(down, count=4)
    fail_until_held(down)
    due_now(down)
    down.claim()
    assert set(states(down, ids)) == {"HELD"}
    assert repair.run_once(down.backends, down.rules, down.runs, actor="test").released == 0
    let_pass(down)
    assert repair.run_once(down.backends, down.rules, down.runs, actor="test").released == 1
    down.claim_and_run()
    row = host(down)
    assert (row["holds"], row["held"], row["probing"]) == (2, True, False)
    assert {down.task(task_id)["retry_count"] for task_id in ids} <= {0, 1}, "a dead host costs no retries"
    (left,) = down.rows("SELECT extract(epoch FROM held_until - now()) AS s FROM collect.host")
    assert 50 < left["s"] <= 60


def test_an_answer_lets_all_go_on(down: World, serve: Callable[..., PagedServer]) -> None:
    ids = submit(down, count=4)
    fail_until_held(down)
    due_now(down)
    down.claim()
    down.serve_from(serve(rows=10).base_url)
    let_pass(down)
    repair.run_once(down.backends, down.rules, down.runs, actor="test")
    down.claim_and_run()
    row = host(down)
    assert (row["failures"], row["holds"], row["held_until"]) == (0, 0, None)
    assert "HELD" not in states(down, ids), "whoever was answered has released the others"
    down.claim_and_run()
    assert states(down, ids) == ["COMPLETED"] * 4


def test_errors_hold_an_endpoint_by_their_rate(down: World, serve: Callable[..., PagedServer]) -> None:
    """Answers that say "I cannot" hold their endpoint, when they are half of at least `min_requests` in the window."""
    server = serve(rows=10)
    server.fail_where(lambda _: True, Failure(status=500))
    down.serve_from(server.base_url)
    ids = submit(down, count=3)
    for _ in range(6):
        due_now(down)
        down.claim_and_run()
    assert (endpoint(down)["errors"], endpoint(down)["held"]) == (18, None)
    assert {down.task(task_id)["retry_count"] for task_id in ids} == {6}
    due_now(down)
    down.claim_and_run()
    assert endpoint(down)["held"], "twenty of twenty"
    assert not host(down)["held"], "it answers"
    server.mend()
    let_pass(down)
    due_now(down)
    repair.run_once(down.backends, down.rules, down.runs, actor="test")
    for _ in range(3):
        down.claim_and_run()
    assert states(down, ids) == ["COMPLETED"] * 3


def test_answers_that_refuse_hold_no_host(down: World, serve: Callable[..., PagedServer]) -> None:
    """4xx is the request's fault, or ours."""
    server = serve(rows=10)
    down.serve_from(server.base_url)
    for status in (400, 404, 429):
        server.fail_where(lambda _: True, Failure(status=status))
        submit(down, count=8)
        down.claim_and_run()
        server.mend()
    assert down.rows("SELECT 1 FROM collect.host") == []


def test_a_probe_that_always_fails_by_itself_has_an_end(
    down: World, serve: Callable[..., PagedServer]
) -> None:
    """A request that the server cannot answer, whatever its state, ends DEAD, though each time it holds the host."""
    server = serve(rows=10)
    down.add(source(retries={"http_attempts": 1, "max_retries": 2, "base_s": 0.01}))
    ids = submit(down, count=2)
    fail_until_held(down)
    down.serve_from(server.base_url)
    server.fail_where(lambda _: True, Failure(status=500))
    for _ in range(8):
        let_pass(down)
        due_now(down)
        repair.run_once(down.backends, down.rules, down.runs, actor="test")
        down.claim_and_run()
    assert states(down, ids) == ["DEAD"] * 2


def test_probes_take_turns(down: World) -> None:
    """A task that was tried goes behind those that were not: it does not stand for all others of its host."""
    submit(down, count=4)
    fail_until_held(down)
    due_now(down)
    down.claim()
    probed = []
    for _ in range(3):
        let_pass(down)
        repair.run_once(down.backends, down.rules, down.runs, actor="test")
        before = set(down.runs.started)
        down.claim_and_run()
        (run,) = set(down.runs.started) - before
        probed += [attempt.task_id for attempt in down.attempts(run)]
    assert len(set(probed)) == 3
    assert host(down)["holds"] == 4


def test_an_answer_in_between_starts_the_count_anew(down: World, serve: Callable[..., PagedServer]) -> None:
    submit(down, count=4)
    down.claim_and_run()
    assert host(down)["failures"] == 4
    closed = down.endpoint
    down.serve_from(serve(rows=10).base_url)
    down.rows("UPDATE collect.task SET status = 'CANCELLED' WHERE status = 'RETRYING' RETURNING id")
    submit_one = down.submit(params={"day": "good"})
    down.claim_and_run()
    assert down.task(submit_one.task_id)["status"] == "COMPLETED"
    assert host(down)["failures"] == 0
    down.endpoint = closed
    down.submit(params={"day": "bad"})
    down.claim_and_run()
    row = host(down)
    assert (row["failures"], row["held_until"]) == (1, None)


def said(db: Connection, world: World, task_id: int) -> str:
    return " ".join(why(db, world.rules, task_id).sentences)


def test_why_says_what_a_task_waits_for(down: World, db: Connection) -> None:
    first, second = submit(down, count=2)
    told = why(db, down.rules, second)
    assert told.ahead == 1
    assert "1 task before it" in " ".join(told.sentences)
    assert "4 of 4 slots are free" in " ".join(told.sentences)
    down.claim_and_run()
    assert "attempt 1 failed" in said(db, down, first)
    assert "retry 1 of 9 is due" in said(db, down, first)
    fail_until_held(down)
    due_now(down)
    down.claim()
    assert "the circuit of the host of connection things_api is open" in said(db, down, first)
    assert "it is tried again in" in said(db, down, first)
    with pytest.raises(UnknownTask):
        why(db, down.rules, 10**9)


def test_why_of_limits_merges_runs_and_ends(
    world: World, db: Connection, serve: Callable[..., PagedServer]
) -> None:
    world.add(source(max_active_tasks=1), list_source("lists"))
    world.serve_from(serve(rows=10).base_url)
    running, held = submit(world, count=2)
    world.claim()
    assert "was claimed" in said(db, world, running)
    assert "max_active_tasks is 1: it goes on when one of them ends" in said(db, world, held)
    (run_id,) = world.runs.started
    world.plan(run_id)
    assert f"it runs in {run_id}" in said(db, world, running)
    survivor, member = (
        answer.task_id
        for answer in world.service().admit_all(
            [world.submission("lists", params={"ids": one}) for one in ("1", "2")]
        )
    )
    assert f"merged into task {survivor}" in said(db, world, member)
    assert f"it collects for tasks {member} as well" in said(db, world, survivor)
    db.execute("UPDATE collect.task SET status = 'CANCELLED', moved_by = 'anna' WHERE id = %s", (survivor,))
    assert "cancelled by anna" in said(db, world, survivor)


def test_an_unreadable_connection_is_not_a_host_that_is_down(world: World) -> None:
    """What fails before anybody is asked says nothing about the host."""
    world.add(source())
    world.submit()
    world.claim()

    def refuse(_: str) -> Endpoint:
        raise ValueError("no such connection")

    (run_id,) = world.runs.started
    plan(world.attempts(run_id), run_id, world.backends, world.rules, refuse, actor="test")
    world.finish(run_id)
    assert world.rows("SELECT 1 FROM collect.host WHERE failures > 0") == []

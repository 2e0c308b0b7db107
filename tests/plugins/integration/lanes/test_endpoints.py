"""An endpoint that fails holds its own tasks and no others of its host; what was held goes on in order."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from collect_ops.broker.connection import BrokerUnavailable
from collect_ops.delivery import due, repair
from collect_ops.lanes import held
from collect_ops.lanes.claim import Claimed
from collect_ops.lanes.why import why
from collect_ops.nodes.rules import placement_rules
from collect_ops.sources.model import Source
from collect_ops.storage import Connection, connect
from tests.factories import source
from tests.plugins.integration.world import World
from tests.servers.paged import Failure, PagedServer

Serve = Callable[..., PagedServer]

#: How an endpoint may never answer.
WAYS = {
    "504": Failure(status=504),
    "time-out": Failure(status=200, delay_s=5),
    "broken off": Failure(status=0),
}


def one_of(name: str, **fields: Any) -> Source:
    """A source whose requests say that they are its own."""
    request = {
        "path": "/offset",
        "params": {"day": {"type": "string"}},
        "query": {"day": "{day}", "of": name},
    }
    declared: dict[str, Any] = {
        "request": request,
        "retries": {"http_attempts": 1, "max_retries": 3, "base_s": 0.01},
    }
    return source(name, **{**declared, **fields})


@pytest.fixture(autouse=True)
def wide(world: World) -> None:
    """A lane with room for all that a test submits."""
    lane = world.rules.lanes["normal"].model_copy(update={"slots": 20})
    world.rules = world.rules.model_copy(update={"lanes": {**world.rules.lanes, "normal": lane}})


def submit(world: World, name: str, count: int = 1, **fields: Any) -> list[int]:
    batch = [world.submission(name, params={"day": uuid.uuid4().hex}, **fields) for _ in range(count)]
    return [answer.task_id for answer in world.service().admit_all(batch)]


def break_off(server: PagedServer, *names: str, way: str = "504") -> None:
    server.fail_where(lambda request: request.query.get("of") in names, WAYS[way])


def due_now(world: World) -> None:
    """What is to be tried again is due: retries."""
    world.rows(
        "UPDATE collect.task SET due_at = now() - interval '2 minutes', queued_at = now() - interval '3 minutes' "
        "WHERE status = 'RETRYING' RETURNING id"
    )
    sweep(world)


def sweep(world: World) -> int:
    return repair.run_once(world.backends, world.rules, world.runs, actor="test").released


def let_pass(world: World, *circuits: str) -> None:
    """The time for which circuits are open has passed."""
    for table in circuits or ("host", "endpoint"):
        world.rows(
            f"UPDATE collect.{table} SET held_until = now() - interval '1 second' "
            "WHERE held_until IS NOT NULL RETURNING connection"
        )


def open_circuit(world: World, name: str, *, for_s: float = 3600, since_s: float = 0) -> None:
    world.rows(
        "INSERT INTO collect.endpoint (connection, source, holds, since, held_until, last_error, unanswered_at) "
        "VALUES ('things_api', %s, 1, now() - make_interval(secs => %s), now() + make_interval(secs => %s), "
        "'answered 504', now()) RETURNING source",
        name,
        since_s,
        for_s,
    )


def close_circuits(world: World) -> None:
    world.rows("DELETE FROM collect.endpoint RETURNING source")


def states(world: World, ids: list[int]) -> list[str]:
    return [world.task(task_id)["status"] for task_id in ids]


def holds(world: World) -> dict[str, int]:
    rows = world.rows("SELECT source, holds FROM collect.endpoint WHERE held_until IS NOT NULL")
    return {row["source"]: row["holds"] for row in rows}


def host_is_open(world: World) -> bool:
    return bool(world.rows("SELECT 1 AS x FROM collect.host WHERE held_until IS NOT NULL"))


@pytest.mark.parametrize("way", list(WAYS))
def test_a_bad_endpoint_holds_its_own_tasks_and_a_healthy_one_runs_all_along(
    world: World, serve: Serve, db: Connection, way: str
) -> None:
    server = serve(rows=60)
    impatient = {"read_s": 0.3, "request_s": 20} if way == "time-out" else {}
    world.add(one_of("bad", timeouts=impatient), one_of("good"))
    world.serve_from(server.base_url)
    break_off(server, "bad", way=way)
    bad = submit(world, "bad", 5)
    good: list[int] = []
    for _ in range(5):
        good += submit(world, "good")
        due_now(world)
        claimed = world.claim()
        assert not [run for run in claimed.runs if "bad" in run.conf["sources"] and holds(world)]
        for run in claimed.runs:
            world.run(run.run_id)
        assert set(states(world, good)) == {"COMPLETED"}, "none has waited, not even for one claim"
    assert set(states(world, bad)) == {"HELD"}
    assert holds(world) == {"bad": 1}
    assert not host_is_open(world)
    told = " ".join(why(db, world.rules, bad[0]).sentences)
    assert "the circuit of source bad at connection things_api is open" in told
    assert "it is tried again in" in told
    # It is tried again by one, again and again; nothing of the healthy one is touched by that.
    for number in range(2, 5):
        let_pass(world, "endpoint")
        assert sweep(world) == 1
        good += submit(world, "good")
        world.claim_and_run()
        assert holds(world) == {"bad": number}
    assert set(states(world, bad)) == {"HELD"}
    assert set(states(world, good)) == {"COMPLETED"}
    # Mended, all of them go on.
    server.mend()
    let_pass(world, "endpoint")
    sweep(world)
    world.claim_and_run()
    world.claim_and_run()
    assert set(states(world, bad)) == {"COMPLETED"}
    assert holds(world) == {}


def test_a_long_request_of_a_healthy_endpoint_is_not_cut_off_by_a_bad_one(world: World, serve: Serve) -> None:
    """It is under way while the other circuit opens, on the same host."""
    server = serve(rows=10)
    world.add(one_of("bad"), one_of("good"))
    world.serve_from(server.base_url)
    break_off(server, "bad", way="broken off")
    (good,) = submit(world, "good")
    (run,) = world.claim().runs
    world.plan(run.run_id)
    slow = server.hold_where(lambda request: request.query.get("of") == "good")
    thread = threading.Thread(target=world.run_planned, args=(run.run_id,))
    thread.start()
    slow.wait()
    submit(world, "bad", 6)
    world.claim_and_run()
    assert holds(world) == {"bad": 1}
    time.sleep(1.5)  # longer than a gate needs to see that a circuit has opened
    slow.release()
    thread.join(30)
    assert world.task(good)["status"] == "COMPLETED"
    assert world.task(good)["attempt"] == 1


def test_three_silent_endpoints_open_their_host_and_one_answer_closes_it(world: World, serve: Serve) -> None:
    server = serve(rows=10)
    names = ("a", "b", "c")
    world.add(*(one_of(name) for name in (*names, "d")))
    world.serve_from(server.base_url)
    break_off(server, *names, way="broken off")
    waiting = []
    for number, name in enumerate(names):
        assert not host_is_open(world), number
        waiting += submit(world, name, 5)
        world.claim_and_run()
        due_now(world)
        world.claim()
    assert host_is_open(world)
    assert set(states(world, waiting)) == {"HELD"}
    (late,) = submit(world, "d")
    world.claim()
    assert world.task(late)["status"] == "HELD", "nobody asks a host that is held"
    let_pass(world, "host")
    assert sweep(world) == 1, "one alone tries it, though there are four endpoints"
    server.mend()
    world.claim_and_run()
    assert world.task(late)["status"] == "COMPLETED", "the endpoints that are held do not try for their host"
    assert not host_is_open(world)
    for _ in range(3):  # each endpoint is tried by one of its own, at once
        sweep(world)
        world.claim_and_run()
    assert set(states(world, waiting)) == {"COMPLETED"}


def test_three_of_five_endpoints_open_nothing_but_their_own(world: World, serve: Serve) -> None:
    server = serve(rows=10)
    names = ("a", "b", "c")
    world.add(*(one_of(name) for name in (*names, "d", "e")))
    world.serve_from(server.base_url)
    break_off(server, *names)
    bad = submit(world, "a", 2) + submit(world, "b", 2)
    world.claim_and_run()
    # Somebody has seen errors, so what is answered is told as well.
    good = submit(world, "d") + submit(world, "e")
    world.claim_and_run()
    for _ in range(6):
        bad += submit(world, "a") + submit(world, "b") + submit(world, "c")
        due_now(world)
        world.claim_and_run()
    assert holds(world) == dict.fromkeys(names, 1)
    assert not host_is_open(world)
    assert set(states(world, good)) == {"COMPLETED"}


def test_patience_ends_the_task_that_tries_an_endpoint_and_no_other(world: World, serve: Serve) -> None:
    server = serve(rows=10)
    world.add(one_of("bad"))
    world.serve_from(server.base_url)
    break_off(server, "bad")
    waiting = submit(world, "bad", 3)
    open_circuit(world, "bad", since_s=5 * 3600)
    world.claim()
    assert states(world, waiting) == ["HELD"] * 3
    let_pass(world)
    sweep(world)
    world.claim_and_run()
    assert states(world, waiting) == ["HELD"] * 3, "five hours are not six"
    world.rows("UPDATE collect.endpoint SET since = since - interval '1 hour' RETURNING source")
    for ended in range(1, 4):
        let_pass(world)
        assert sweep(world) == 1
        world.claim_and_run()
        expected = ["DEAD"] * ended + ["HELD"] * (3 - ended)
        assert states(world, waiting) == expected, "the oldest of those that wait"
    task = world.task(waiting[0])
    assert "host.patience_s" in task["reason"]
    assert "answered 504" in task["reason"]
    assert task["retry_count"] == 0
    letters = world.rows("SELECT error_message FROM collect.dead_letter ORDER BY id")
    assert len(letters) == 3


def test_a_host_s_circuit_ends_no_task_however_long_it_is_open(world: World) -> None:
    world.add(one_of("things"))  # nobody listens there
    waiting = submit(world, "things", 2)
    open_circuit(world, "things", since_s=86_400)
    world.rows(
        "INSERT INTO collect.host (connection, holds, since, held_until) "
        "VALUES ('things_api', 9, now() - interval '1 day', now()) RETURNING connection"
    )
    world.claim()
    for _ in range(3):
        let_pass(world)
        sweep(world)
        world.claim_and_run()
        assert states(world, waiting) == ["HELD"] * 2
    assert sum(world.task(task_id)["attempt"] for task_id in waiting) >= 3
    assert sum(world.task(task_id)["retry_count"] for task_id in waiting) == 0


def claimed_ids(world: World, claimed: Claimed) -> list[int]:
    return [attempt.task_id for run in claimed.runs for attempt in world.attempts(run.run_id)]


def end(world: World, ids: list[int]) -> None:
    """Those tasks have ended; what they did does not matter here."""
    world.rows(
        "UPDATE collect.task SET status = 'CANCELLED', groups_reserved = 0 WHERE id = ANY(%s) RETURNING id",
        ids,
    )


def test_a_thousand_held_tasks_go_on_by_priority_and_age_and_newcomers_behind_them(
    world: World, db: Connection
) -> None:
    world.add(one_of("many"))
    open_circuit(world, "many")
    low = submit(world, "many", 500, priority=4)
    high = submit(world, "many", 500, priority=6)
    for _ in range(4):
        world.claim()
    assert set(states(world, low[:3] + high[:3])) == {"HELD"}
    assert world.rows("SELECT count(*) AS n FROM collect.task WHERE status = 'HELD'")[0]["n"] == 1000
    wanted = high + low
    began = time.monotonic()
    assert sweep(world) == 0
    close_circuits(world)
    newcomers = submit(world, "many", 2, priority=6)
    claimed = world.claim()
    assert claimed.claimed == 0, "they came first, and wait"
    assert (claimed.held, claimed.released) == (2, held.AT_ONCE)
    assert states(world, newcomers) == ["HELD"] * 2
    assert "which comes before it (priority 6)" in world.task(newcomers[0])["reason"]
    told = " ".join(why(db, world.rules, newcomers[0]).sentences)
    assert "goes on before it: collect-ops why" in told
    (urgent,) = submit(world, "many", 1, priority=7)
    order: list[int] = []
    for _ in range(600):
        found = claimed_ids(world, world.claim())
        order += found
        end(world, found)
        if not found and not sweep(world):
            break
    assert order[0] == urgent, "held ones of lower priority hold up nobody"
    assert order[1:] == [*high, *newcomers, *low]
    assert len(wanted) == 1000
    assert time.monotonic() - began < 120


def test_what_was_held_when_it_failed_is_found_by_the_sweep_when_its_release_was_killed(
    world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever closes a circuit lets go of what waits; a process that dies before that leaves it to the sweep."""
    server = serve(rows=10)
    world.add(one_of("many"))
    world.serve_from(server.base_url)
    open_circuit(world, "many")
    waiting = submit(world, "many", 3)
    world.claim()
    assert states(world, waiting) == ["HELD"] * 3

    def away(*_: Any, **__: Any) -> None:
        raise BrokerUnavailable("killed")

    let_pass(world)
    with connect(world.backends.postgres_dsn) as connection:
        assert "held" in due.look(connection, world.backends, world.rules, placement_rules())
        assert sweep(world) == 1
        claimed = world.claim()
        assert claimed.claimed == 1
        (run,) = claimed.runs
        monkeypatch.setattr(held, "publish", away)
        world.plan(run.run_id)  # its count closes the circuit
        monkeypatch.undo()
        assert holds(world) == {}
        # Released and not published: the outbox has them.
        left = [state for state in states(world, waiting) if state in ("HELD", "QUEUED")]
        assert len(left) == 2
        world.rows("UPDATE collect.task SET queued_at = now() - interval '1 minute' RETURNING id")
        looked = due.look(connection, world.backends, world.rules, placement_rules())
        assert {"outbox", "held"} & set(looked)


def test_whoever_closes_a_circuit_lets_go_of_what_waits(world: World, serve: Serve) -> None:
    server = serve(rows=10)
    world.add(one_of("many"))
    world.serve_from(server.base_url)
    open_circuit(world, "many", for_s=-1)
    waiting = submit(world, "many", 3)
    (run,) = world.claim().runs
    assert sorted(states(world, waiting)) == ["CLAIMED", "HELD", "HELD"]
    world.plan(run.run_id)  # its count is answered
    assert sorted(states(world, waiting)) == ["DISPATCHED", "QUEUED", "QUEUED"], "before it has ended"


def test_held_tasks_of_a_connection_that_a_source_has_left_hold_up_nobody(world: World) -> None:
    world.add(one_of("moved"))
    open_circuit(world, "moved")
    (old,) = submit(world, "moved")
    world.claim()
    world.add(one_of("moved", connection="new_api"))
    (new,) = submit(world, "moved")
    claimed = world.claim()
    assert claimed_ids(world, claimed) == [new]
    assert world.task(old)["status"] == "HELD"


def test_a_limited_source_releases_as_many_as_it_has_room_for(world: World) -> None:
    world.add(one_of("few", max_active_tasks=2))
    ids = submit(world, "few", 6)
    assert world.claim().claimed == 2
    assert states(world, ids) == ["CLAIMED"] * 2 + ["HELD"] * 4
    end(world, ids[:1])
    assert sweep(world) == 1
    assert states(world, ids)[2] == "QUEUED"
    (urgent,) = submit(world, "few", priority=7)
    (late,) = submit(world, "few")
    claimed = world.claim()
    assert claimed_ids(world, claimed) == [urgent], "the more urgent one takes the room"
    assert world.task(late)["status"] == "HELD"
    end(world, [*ids[:2], urgent])
    order = []
    for _ in range(8):
        sweep(world)
        found = claimed_ids(world, world.claim())
        order += found
        end(world, found)
    assert order == [*ids[2:], late]


def test_a_probe_that_nobody_ran_is_followed_by_another(world: World, serve: Serve) -> None:
    server = serve(rows=10)
    world.add(one_of("many"))
    world.serve_from(server.base_url)
    open_circuit(world, "many", for_s=-1)
    first, second = submit(world, "many", 2)
    claimed = world.claim()
    assert claimed_ids(world, claimed) == [first]
    # It is killed: nobody runs what was claimed.
    assert sweep(world) == 0
    world.rows("UPDATE collect.endpoint SET held_until = now() RETURNING source")
    assert sweep(world) == 1
    world.claim_and_run()
    assert states(world, [first, second]) == ["CLAIMED", "COMPLETED"]

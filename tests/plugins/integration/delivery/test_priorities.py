"""Priorities that live: set, raised, aged; in the log, in the right lane, in Redis."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from collect_ops.coordination.priorities import Priorities
from collect_ops.delivery import ageing
from collect_ops.delivery.intervene import Intervened, cancel
from collect_ops.delivery.priorities import adjust, batch_adjust, emergency_promote
from collect_ops.delivery.selection import find, selection_of
from collect_ops.kernel.errors import ValidationFailed
from tests.factories import list_source, source
from tests.plugins.integration.world import World
from tests.servers.paged import Failure, PagedServer


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.add(source())


def submit(world: World, count: int = 1, **fields: object) -> list[int]:
    batch = [world.submission(params={"day": f"day {number}"}, **fields) for number in range(count)]
    return [answer.task_id for answer in world.service().admit_all(batch)]


def set_to(world: World, ids: list[int], priority: int) -> Intervened:
    return adjust(ids, priority, world.backends, world.rules, actor="anna", reason="the boss wants it")


def promote(world: World, ids: list[int]) -> Intervened:
    return emergency_promote(ids, world.backends, world.rules, actor="anna", reason="it burns")


def age(world: World, hours: float) -> int:
    world.rows(
        "UPDATE collect.task SET aged_from = aged_from - make_interval(secs => %s) RETURNING id", hours * 3600
    )
    return ageing.run_once(world.backends, world.rules).raised


def test_an_emergency_is_admitted_as_one(world: World) -> None:
    (task_id,) = submit(world, emergency=True)
    row = world.task(task_id)
    assert (row["base_priority"], row["priority"], row["lane"], row["emergency"]) == (5, 8, "urgent", True)
    assert world.claim("urgent").claimed == 1


def test_the_rules_base_counts_where_nobody_says_another(world: World) -> None:
    world.add(source("quiet", priority=2))
    assert world.task(world.submit("quiet").task_id)["priority"] == 2
    assert world.task(world.submit("things").task_id)["priority"] == 5


def test_who_when_why_from_to(world: World) -> None:
    (task_id,) = submit(world)
    set_to(world, [task_id], 9)
    log = world.rows("SELECT * FROM collect.task_log WHERE task_id = %s ORDER BY id", task_id)[-1]
    assert (log["from_priority"], log["priority"], log["generation"]) == (5, 9, 2)
    assert (log["actor"], log["reason"]) == ("anna", "the boss wants it")
    assert log["at"] is not None


def test_a_promotion_moves_lanes_and_the_stale_message_is_dropped(world: World) -> None:
    first, second = submit(world, 2)
    done = promote(world, [first])
    assert (done.moved, done.left, done.lanes) == ((first,), (), {"urgent"})
    assert promote(world, [first]).left == (first,), "it is one already"
    assert world.claim("urgent").claimed == 1
    claimed = world.claim("normal")
    assert (claimed.claimed, claimed.stale) == (1, 1)
    assert world.task(second)["status"] == "CLAIMED"


def test_what_was_set_by_hand_stays_but_ages(world: World, serve: Callable[..., PagedServer]) -> None:
    server = serve(rows=10)
    world.serve_from(server.base_url)
    (task_id,) = submit(world)
    set_to(world, [task_id], 2)
    server.fail_next("/offset", Failure(status=503))
    world.claim_and_run("bulk")
    row = world.task(task_id)
    assert (row["status"], row["retry_count"], row["priority"]) == ("RETRYING", 1, 2)
    assert age(world, 2.5) == 1
    assert world.task(task_id)["priority"] == 4


def test_retries_raise_by_two_at_most_and_change_lanes(
    world: World, serve: Callable[..., PagedServer]
) -> None:
    world.add(source(priority=7))
    server = serve(rows=10)
    world.serve_from(server.base_url)
    (task_id,) = submit(world)
    server.fail_where(lambda _: True, Failure(status=503))
    seen = []
    for lane in ("normal", "urgent", "urgent"):
        world.rows("UPDATE collect.task SET due_at = NULL, status = status RETURNING id")
        adjusted = world.rows("SELECT generation, lane FROM collect.task")[0]
        assert adjusted["lane"] == lane
        publish_now(world, task_id)
        world.claim_and_run(lane)
        seen.append(world.task(task_id)["priority"])
    assert seen == [8, 9, 9]


def publish_now(world: World, task_id: int) -> None:
    """The retry's message, without its way up and down the ladder."""
    from collect_ops.broker.publisher import Publisher
    from collect_ops.lanes.publication import publication_of, publish
    from collect_ops.storage import connect

    row = dict(world.task(task_id))
    with connect(world.backends.postgres_dsn) as connection, Publisher(world.backends.amqp_url) as publisher:
        publish(connection, publisher, world.rules, [publication_of(row, delay_s=0)])


def test_ageing_raises_step_by_step_up_to_the_top_and_only_what_waits(world: World) -> None:
    waiting, claimed = submit(world, 2, priority=1)
    set_to(world, [claimed], 3)
    world.claim("bulk")
    world.rows(
        "UPDATE collect.task SET status = 'QUEUED', generation = generation + 1 WHERE id = %s RETURNING id",
        waiting,
    )
    assert age(world, 0.99) == 0
    assert age(world, 0.02) == 1
    row = world.task(waiting)
    assert (row["priority"], row["base_priority"], row["lane"], row["reason"]) == (
        2,
        1,
        "bulk",
        "has waited long",
    )
    assert age(world, 3) == 1
    assert (world.task(waiting)["priority"], world.task(waiting)["lane"]) == (5, "normal")
    assert age(world, 100) == 1
    assert age(world, 100) == 0, "it is at the top"
    assert world.task(claimed)["priority"] == 3
    assert world.claim("urgent").claimed == 1


def test_a_sources_own_ageing(world: World) -> None:
    world.add(source("fast", priority_formula={"ageing": {"first_after_s": 60, "every_s": 60, "boost": 2}}))
    world.submit("fast")
    assert age(world, 61 / 3600) == 1
    assert world.rows("SELECT priority FROM collect.task")[0]["priority"] == 7


def test_two_passes_at_once_raise_each_task_once(world: World) -> None:
    submit(world, 40, priority=1)
    world.rows("UPDATE collect.task SET aged_from = aged_from - interval '61 minutes' RETURNING id")
    with ThreadPoolExecutor(4) as pool:
        passes = list(pool.map(lambda _: ageing.run_once(world.backends, world.rules).raised, range(4)))
    assert sum(passes) == 40
    assert {row["generation"] for row in world.rows("SELECT generation FROM collect.task")} == {2}


def test_held_tasks_change_without_a_message_and_say_on_why_they_are_held(world: World) -> None:
    world.add(source(max_active_tasks=1))
    submit(world, 2)
    world.claim()
    (held,) = world.rows("SELECT * FROM collect.task WHERE status = 'HELD'")
    done = set_to(world, [held["id"]], 6)
    assert done.moved == (held["id"],)
    reason = world.task(held["id"])["reason"]
    assert reason.startswith("source things has 1 active tasks, max_active_tasks is 1")
    assert reason.endswith(" | priority set to 6: the boss wants it")
    set_to(world, [held["id"]], 7)
    assert world.task(held["id"])["reason"] == reason.replace("set to 6", "set to 7")
    assert world.claim().claimed == 0


def test_a_retry_says_on_why_it_failed(world: World) -> None:
    """However often its priority changes, and whatever its error holds."""
    failed = "1 of 1 shards failed; shard 0: http://host/a: answered 500; it begins 'a | b'"
    (task_id,) = submit(world)
    for status in ("CLAIMED", "RETRYING"):
        world.rows(
            "UPDATE collect.task SET status = %s, reason = %s, due_at = now() + interval '1 hour' RETURNING id",
            status,
            failed,
        )
    set_to(world, [task_id], 6)
    promote(world, [task_id])
    assert age(world, 3) == 1
    row = world.task(task_id)
    assert row["status"] == "RETRYING"
    assert row["reason"] == f"{failed} | priority set to {row['priority']}: has waited long"


def test_what_is_under_way_ended_or_unknown_is_left(world: World) -> None:
    (task_id,) = submit(world)
    world.claim()
    done = set_to(world, [task_id, 10**9], 9)
    assert (done.moved, done.left) == ((), (task_id, 10**9))


@pytest.mark.parametrize("priority", [-1, 11, 5.0, True, "9"])
def test_a_priority_outside_the_range_is_refused(world: World, priority: object) -> None:
    with pytest.raises(ValidationFailed, match="priority: must be a whole number from 0 to 10"):
        set_to(world, [1], priority)  # type: ignore[arg-type]


def test_many_by_what_they_have_in_common(world: World) -> None:
    world.add(source("others"))
    ours = submit(world, 5)
    world.submit("others")
    chosen = selection_of({"source": "things", "params": {"day": "day 3"}})
    assert find(chosen, world.backends) == [ours[3]]
    done = batch_adjust(
        selection_of({"source": "things", "status": ["QUEUED"]}),
        1, world.backends, world.rules, actor="anna", reason="later",
    )  # fmt: skip
    assert done.moved == tuple(ours)
    assert find(selection_of({"lane": "bulk", "priority_max": 1}), world.backends) == ours
    assert find(selection_of({"source": "things", "limit": 2}), world.backends) == ours[:2]
    cancel(
        find(selection_of({"lane": "bulk"}), world.backends),
        world.backends,
        world.rules,
        actor="a",
        reason="r",
    )
    assert find(selection_of({"source": "things"}), world.backends) == [], "what has ended is not meant"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "must say which tasks are meant"),
        ({"limit": 3}, "must say which tasks are meant"),
        ({"sorce": "things"}, "did you mean 'source'?"),
        ({"status": ["QUEUD"]}, "status.0"),
        ({"ids": [0]}, "ids.0"),
        ({"priority_min": 11}, "priority_min"),
        ({"older_than_s": "long"}, "older_than_s"),
    ],
)
def test_a_selection_that_says_nothing_or_nonsense_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        selection_of(given)
    assert words in str(refused.value)


def test_ten_thousand_at_once(world: World) -> None:
    """A few statements and one stream of confirms: not a round trip a task."""
    for start in range(0, 10_000, 1000):
        world.service().admit_batch(
            [world.submission(params={"day": f"{start + number}"}, priority=1) for number in range(1000)]
        )
    ids = find(selection_of({"source": "things"}), world.backends)
    done = set_to(world, ids, 4)
    assert len(done.moved) == 10_000
    rows = world.rows("SELECT DISTINCT generation, confirmed_generation, lane, priority FROM collect.task")
    assert rows == [{"generation": 2, "confirmed_generation": 2, "lane": "normal", "priority": 4}]


def test_redis_has_the_current_priority_for_a_day(world: World) -> None:
    (task_id,) = submit(world)
    mirror = Priorities(world.backends.redis_url)
    client = redis.Redis.from_url(world.backends.redis_url)
    assert mirror.read([task_id, 10**9]) == {task_id: 5}
    set_to(world, [task_id], 9)
    assert mirror.read([task_id]) == {task_id: 9}
    assert 86_300 < client.ttl(f"collect:priority:{task_id}") <= 86_400
    client.close()
    assert Priorities("redis://127.0.0.1:1/0").read([task_id]) == {}


def test_a_merged_task_raises_the_one_that_collects_for_it_and_never_lowers_it(world: World) -> None:
    world.add(list_source("lists"))
    answers = world.service().admit_all(
        [world.submission("lists", params={"ids": one}) for one in ("1", "2")]
    )
    survivor, member = (answer.task_id for answer in answers)
    assert set_to(world, [member], 2).left == (member,)
    assert set_to(world, [member], 9).moved == (member,)
    assert (world.task(survivor)["priority"], world.task(member)["status"]) == (9, "MERGED")


def test_a_cancelled_running_task_stops_at_its_next_page_and_tells_what_has_landed(
    world: World, serve: Callable[..., PagedServer]
) -> None:
    server = serve(rows=100)
    world.serve_from(server.base_url)
    (task_id,) = submit(world)
    held = server.hold_where(
        lambda request: request.query.get("offset") == "50" and request.query.get("limit") == "50"
    )
    client = redis.Redis.from_url(world.backends.redis_url)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.claim_and_run)
        held.wait()
        assert client.keys("collect:lease:*") != []
        done = cancel([task_id], world.backends, world.rules, actor="anna", reason="enough")
        asked = len(server.requests)
        held.release()
        running.result(20)
    assert done.landed == {task_id: 50}
    assert len(world.rows("SELECT * FROM landing.things")) == 50
    assert len(server.requests) == asked
    assert client.keys("collect:lease:*") == []
    assert world.task(task_id)["status"] == "CANCELLED"
    client.close()

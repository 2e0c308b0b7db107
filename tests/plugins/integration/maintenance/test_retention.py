"""What retention deletes, and what it leaves alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from collect_ops.delivery.dead_model import LetterState, selection_of
from collect_ops.kernel.backends import Backends
from collect_ops.landing.layout import ASIDE_SCHEMA
from collect_ops.lanes.rules import LaneRules
from collect_ops.maintenance.retention import IN_USE, Retained, run_once
from collect_ops.maintenance.retention_rules import Pace, RetentionRules
from collect_ops.storage import Connection, connect
from tests.factories import source
from tests.plugins.integration.delivery import letters
from tests.plugins.integration.maintenance.filled import TABLES, add_tasks, add_version, contents, remaining
from tests.plugins.integration.world import World

RULES = RetentionRules(pace=Pace(batch=7, pause_s=0))
CONDITIONS = {
    "a task waits for it",
    "its survivor is kept",
    "its dead letter is open",
    "its dead letter was dealt with lately",
    "a redrive is under way",
    "its run note is not delivered",
    "its dedup key holds",
    "it answers a request id",
}


@pytest.fixture
def own(postgres_dsn: str) -> Backends:
    """A database; the other services are not needed."""
    return Backends(postgres_dsn=postgres_dsn, redis_url="redis://127.0.0.1:9", amqp_url="amqp://127.0.0.1:9")


@pytest.fixture
def db(own: Backends) -> Iterator[Connection]:
    with connect(own.postgres_dsn, application_name="test") as connection:
        yield connection


def count(db: Connection, table: str) -> int:
    row = db.execute(f"SELECT count(*) AS n FROM collect.{table}".encode()).fetchone()
    assert row is not None
    return int(row["n"])


@pytest.mark.parametrize(
    ("status", "letter"),
    [
        ("COMPLETED", None),
        ("PARTIAL", None),
        ("CANCELLED", None),
        ("DEAD", "DISCARDED"),
        ("COMPLETED", "SETTLED"),
    ],
)
def test_what_ended_long_ago_goes_with_all_that_is_about_it(
    own: Backends, db: Connection, status: str, letter: str | None
) -> None:
    old = add_tasks(db, 20, status=status, letter=letter, shards=2)
    young = add_tasks(db, 3, status=status, letter=letter, age_days=89)
    kept = contents(db, young)
    done = run_once(own, RULES)
    assert done.complete
    assert done.deleted["tasks"] == 20
    assert done.deleted["shards"] == 40
    assert done.deleted["shard_groups"] == 20
    assert done.deleted["submissions"] == done.deleted["dedup_keys"] == 20
    assert done.deleted["task_log"] == 80
    assert remaining(db, old) == set()
    assert all(not rows for rows in contents(db, old).values())
    after = contents(db, young)
    assert {**after, "trace": []} == {**kept, "trace": []}
    assert count(db, "shard_group") == 3


@pytest.mark.parametrize(
    "status",
    [
        "QUEUED",
        "HELD",
        "CLAIMED",
        "DISPATCHED",
        "RUNNING",
        "RETRYING",
        "DISPATCH_FAILED",
        "MERGED",
        "CREATED",
    ],
)
def test_what_is_open_stays_whatever_its_age(own: Backends, db: Connection, status: str) -> None:
    ids = add_tasks(db, 3, status=status, age_days=2000)
    before = contents(db, ids)
    done = run_once(own, RULES)
    assert sum(done.deleted.values()) == 0
    assert contents(db, ids) == before
    assert count(db, "shard_group") == 3


@pytest.mark.parametrize("state", ["OPEN", "REDRIVEN"])
def test_a_dead_task_stays_until_it_is_dealt_with(own: Backends, db: Connection, state: str) -> None:
    ids = add_tasks(db, 3, status="DEAD", letter=state, age_days=2000)
    before = contents(db, ids)
    done = run_once(own, RULES)
    assert done.kept == {"its dead letter is open": 3}
    assert contents(db, ids) == before  # with its traces: whoever redrives it reads them


def _survivor(db: Connection, ids: list[int]) -> None:
    (member,) = add_tasks(db, status="MERGED", age_days=2000)
    db.execute("UPDATE collect.task SET merged_into = %s WHERE id = %s", (ids[0], member))


def _member(db: Connection, ids: list[int]) -> None:
    (survivor,) = add_tasks(db, status="QUEUED", age_days=2000)
    db.execute("UPDATE collect.task SET merged_into = %s WHERE id = %s", (survivor, ids[0]))


def _dealt_with_lately(db: Connection, ids: list[int]) -> None:
    db.execute("UPDATE collect.dead_letter SET state_at = now() WHERE task_id = %s", (ids[0],))


def _open_letter(db: Connection, ids: list[int]) -> None:
    db.execute("UPDATE collect.dead_letter SET state = 'OPEN' WHERE task_id = %s", (ids[0],))


def _redrive(db: Connection, ids: list[int]) -> None:
    db.execute(
        "WITH r AS (INSERT INTO collect.redrive (asked, reason, requested_by, total) VALUES ('{}', 'x', 'test', 1) "
        "RETURNING id) INSERT INTO collect.redrive_item (redrive_id, dead_letter_id) "
        "SELECT r.id, d.id FROM r, collect.dead_letter AS d WHERE d.task_id = %s",
        (ids[0],),
    )


def _run_note(db: Connection, ids: list[int]) -> None:
    db.execute("UPDATE collect.run_note SET delivered_at = NULL WHERE task_id = %s", (ids[0],))


def _key(db: Connection, ids: list[int]) -> None:
    db.execute(
        "UPDATE collect.dedup SET expires_at = now() - interval '5 minutes' WHERE task_id = %s", (ids[0],)
    )


def _request(db: Connection, ids: list[int]) -> None:
    db.execute(
        "INSERT INTO collect.submission (request_id, task_id, duplicate, submitted_at) "
        "VALUES ('late', %s, true, now() - interval '89 days')",
        (ids[0],),
    )


HOLDERS: dict[str, tuple[Callable[[Connection, list[int]], None], str]] = {
    "a task waits for it": (_survivor, "COMPLETED"),
    "its survivor is kept": (_member, "COMPLETED"),
    "its dead letter is open": (_open_letter, "DEAD"),
    "its dead letter was dealt with lately": (_dealt_with_lately, "DEAD"),
    "a redrive is under way": (_redrive, "DEAD"),
    "its run note is not delivered": (_run_note, "PARTIAL"),
    "its dedup key holds": (_key, "COMPLETED"),
    "it answers a request id": (_request, "COMPLETED"),
}


def test_every_condition_is_tried() -> None:
    assert set(HOLDERS) == CONDITIONS


@pytest.mark.parametrize("reason", HOLDERS)
def test_what_something_refers_to_stays(own: Backends, db: Connection, reason: str) -> None:
    hold, status = HOLDERS[reason]
    ids = add_tasks(db, 3, status=status, letter="DISCARDED" if status == "DEAD" else None)
    hold(db, ids)
    done = run_once(own, RULES)
    assert done.kept == {reason: 1}
    assert remaining(db, ids) == {ids[0]}


def test_a_merged_task_goes_after_its_survivor(own: Backends, db: Connection) -> None:
    ids = add_tasks(db, 2)
    db.execute("UPDATE collect.task SET merged_into = %s WHERE id = %s", (ids[1], ids[0]))
    run_once(own, RULES)
    run_once(own, RULES)
    assert remaining(db, ids) == set()


def test_each_end_has_its_age(own: Backends, db: Connection) -> None:
    rules = RetentionRules.model_validate(
        {"tasks": {"completed": 10, "cancelled": 20, "dead": 30}, "requests_days": 1, "pace": {"pause_s": 0}}
    )
    for age, left in ((15, 2), (25, 1), (35, 0)):
        ids = [
            *add_tasks(db, status="COMPLETED", age_days=age),
            *add_tasks(db, status="CANCELLED", age_days=age),
            *add_tasks(db, status="DEAD", letter="DISCARDED", age_days=age),
        ]
        run_once(own, rules)
        assert len(remaining(db, ids)) == left


def test_traces_and_bad_rows_go_before_their_tasks_and_are_not_looked_for_again(
    own: Backends, db: Connection
) -> None:
    ids = add_tasks(db, 40, age_days=60)
    dead = add_tasks(db, 3, status="DEAD", letter="OPEN", age_days=60)
    rules = RetentionRules(traces_days=30, bad_rows_days=50, pace=Pace(batch=7, pause_s=0))
    done = run_once(own, rules)
    assert done.deleted["traces"] == 7 * 40
    assert done.deleted["bad_rows"] == 4
    assert remaining(db, ids) == set(ids)
    assert contents(db, ids)["trace"] == []
    assert len(contents(db, dead)["trace"]) == 21
    mark = db.execute(
        "SELECT max(task_id) AS id FROM collect.retention_mark WHERE kind = 'traces'"
    ).fetchone()
    assert mark is not None
    assert mark["id"] in (*ids, *dead)
    assert run_once(own, rules).deleted["traces"] == 0


def test_a_dry_run_says_what_the_pass_then_deletes(own: Backends, db: Connection) -> None:
    add_tasks(db, 20)
    add_tasks(db, 5, status="DEAD", letter="DISCARDED")
    dead = add_tasks(db, 2, status="DEAD", letter="OPEN")
    add_tasks(db, 5, age_days=40)
    db.execute(f"CREATE TABLE {ASIDE_SCHEMA}.things__{dead[0] - 1} (id int)".encode())
    db.execute("INSERT INTO collect.event (at, kind, severity, subject, message) "
               "VALUES (now() - interval '1 year', 'x', 'info', 'x', 'x')")  # fmt: skip
    add_version(db, "unused", version=b"unused")
    tables = [*TABLES, "shard_group", "event", "source_version"]
    before = {table: count(db, table) for table in tables}
    dry = run_once(own, RULES, dry_run=True)
    assert dry.dry_run
    assert {table: count(db, table) for table in tables} == before
    done = run_once(own, RULES)
    assert dry.kept == done.kept == {"its dead letter is open": 2}
    # Groups go when their tasks have gone, and declarations: a dry run sees those that are orphaned now.
    for kind in set(done.deleted) - {"shard_groups", "source_versions"}:
        assert dry.deleted[kind] == done.deleted[kind], kind
    assert done.deleted["tasks"] == 25
    assert done.deleted["tables_aside"] == done.deleted["events"] == 1
    assert done.deleted["source_versions"] >= 1


def test_a_pass_ends_with_its_time_and_the_next_goes_on(own: Backends, db: Connection) -> None:
    ids = add_tasks(db, 30)
    slow = RetentionRules(pace=Pace(batch=5, pause_s=0.6, time_limit_s=1))
    done = run_once(own, slow)
    assert not done.complete
    assert 5 <= done.deleted["tasks"] < 30
    assert len(remaining(db, ids)) == 30 - done.deleted["tasks"]
    assert run_once(own, RULES).complete
    assert remaining(db, ids) == set()


def test_two_passes_at_once_share_the_work(own: Backends, db: Connection) -> None:
    ids = add_tasks(db, 300)
    with ThreadPoolExecutor(4) as pool:
        done = [each.result() for each in [pool.submit(run_once, own, RULES) for _ in range(4)]]
    assert sum(each.deleted["tasks"] for each in done) == 300
    assert remaining(db, ids) == set()


def test_a_task_that_somebody_holds_is_left_to_the_next_pass(own: Backends, db: Connection) -> None:
    ids = add_tasks(db, 10)
    with connect(own.postgres_dsn) as other, other.transaction():
        other.execute("SELECT 1 FROM collect.task WHERE id = %s FOR NO KEY UPDATE", (ids[3],))
        run_once(own, RULES)
        assert remaining(db, ids) == {ids[3]}
    run_once(own, RULES)
    assert remaining(db, ids) == set()


def test_a_letter_that_is_opened_again_while_a_pass_looks_keeps_its_task(
    own: Backends, db: Connection
) -> None:
    """Taking back holds the task's lock: a pass that has seen the letter discarded looks again under it."""
    (task_id,) = add_tasks(db, status="DEAD", letter="DISCARDED")
    with ThreadPoolExecutor(1) as pool, connect(own.postgres_dsn) as other:
        with other.transaction():
            other.execute("SELECT 1 FROM collect.task WHERE id = %s FOR NO KEY UPDATE", (task_id,))
            other.execute("UPDATE collect.dead_letter SET state = 'OPEN' WHERE task_id = %s", (task_id,))
            pool.submit(run_once, own, RULES).result()
        assert remaining(db, [task_id]) == {task_id}
        assert run_once(own, RULES).kept == {"its dead letter is open": 1}


def test_tables_aside_go_with_their_tasks_unless_somebody_reads_them(own: Backends, db: Connection) -> None:
    ids = add_tasks(db, 4, status="DEAD", letter="DISCARDED")
    opened = add_tasks(db, 1, status="DEAD", letter="OPEN")
    for task_id in (*ids[:2], *opened):
        db.execute(f"CREATE TABLE {ASIDE_SCHEMA}.things__{task_id} (id int)".encode())
    with connect(own.postgres_dsn) as reader, reader.transaction():
        reader.execute(f"SELECT FROM {ASIDE_SCHEMA}.things__{ids[0]}".encode())
        done = run_once(own, RULES)
    assert done.kept[IN_USE] == 1
    assert done.deleted["tables_aside"] == 1
    assert remaining(db, ids) == {ids[0]}
    run_once(own, RULES)
    assert _asides(db) == {f"things__{opened[0]}"}


def _asides(db: Connection) -> set[str]:
    rows = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (ASIDE_SCHEMA,)).fetchall()
    return {row["tablename"] for row in rows}


def test_rows_that_landed_are_never_touched(own: Backends, db: Connection) -> None:
    (task_id,) = add_tasks(db)
    db.execute("CREATE TABLE landing.things (id int, _task_id bigint)")
    db.execute("INSERT INTO landing.things VALUES (1, %s)", (task_id,))
    run_once(own, RULES)
    assert remaining(db, [task_id]) == set()
    assert db.execute("SELECT * FROM landing.things").fetchall() == [{"id": 1, "_task_id": task_id}]


@pytest.mark.parametrize(
    ("table", "kind", "columns", "values"),
    [
        ("event", "events", "kind, severity, subject, message, at", "'x', 'info', 'x', 'x', {at}"),
        ("node_log", "node_log", "node_id, to_status, reason, at", "'n', 'LOST', 'x', {at}"),
        (
            "backlog_action", "backlog_actions",
            "rule, kind, scope, action, value_before, value_after, reason, actor, asked_at, ending_at, undone_at",
            "'r', 'lane', 'bulk', 'shed', '1', '2', 'x', 'x', {at}, {at}, {at}",
        ),
        ("redrive", "redrives", "asked, reason, requested_by, total, finished_at", "'{{}}', 'x', 'x', 0, {at}"),
        (
            "dead_letter", "message_letters",
            "error_message, retry_count, message_key, state, failed_at, state_at",
            "'x', 0, sha256(random()::text::bytea), 'DISCARDED', {at}, {at}",
        ),
    ],
)  # fmt: skip
def test_journals_are_kept_for_their_days(
    own: Backends, db: Connection, table: str, kind: str, columns: str, values: str
) -> None:
    for age, number in ((200, 20), (80, 4)):
        row = values.format(at=f"now() - interval '{age} days'")
        for _ in range(number):
            db.execute(f"INSERT INTO collect.{table} ({columns}) VALUES ({row})".encode())
    assert run_once(own, RULES, dry_run=True).deleted[kind] == 20
    assert run_once(own, RULES).deleted[kind] == 20
    assert count(db, table) == 4


def test_what_is_open_of_the_journals_stays(own: Backends, db: Connection) -> None:
    db.execute(
        "INSERT INTO collect.backlog_action "
        "(rule, kind, scope, action, value_before, value_after, reason, actor, asked_at) "
        "VALUES ('r', 'lane', 'bulk', 'shed', '1', '2', 'x', 'x', now() - interval '1 year')"
    )
    db.execute(
        "INSERT INTO collect.redrive (asked, reason, requested_by, total, started_at) "
        "VALUES ('{}', 'x', 'x', 1, now() - interval '1 year')"
    )
    db.execute(
        "INSERT INTO collect.dead_letter (error_message, retry_count, message_key, failed_at, state_at) "
        "VALUES ('x', 0, 'k', now() - interval '1 year', now() - interval '1 year')"
    )
    assert sum(run_once(own, RULES).deleted.values()) == 0
    assert [count(db, table) for table in ("backlog_action", "redrive", "dead_letter")] == [1, 1, 1]


def test_a_declaration_goes_when_nothing_refers_to_it(own: Backends, db: Connection) -> None:
    add_tasks(db, source="used", age_days=1)
    add_version(db, "unused", version=b"old")
    add_version(db, "unused", version=b"new", age_days=10)
    add_version(db, "landed", version=b"landed")
    db.execute("INSERT INTO collect.landing_target (table_name, version) VALUES ('landed', 'landed')")
    run_once(own, RULES)
    hashes = {bytes(row["hash"]) for row in db.execute("SELECT hash FROM collect.source_version").fetchall()}
    assert hashes == {b"used", b"new", b"landed"}


def test_what_is_admitted_while_declarations_go_keeps_its_own(
    backends: Backends, rules: LaneRules, db: Connection
) -> None:
    """Admissions of a declaration that nothing has referred to for long, beside passes that delete it: none fails."""
    world = World(backends, rules)
    world.add(source())
    over = threading.Event()

    def delete() -> int:
        passes = 0
        with connect(backends.postgres_dsn) as other:
            while not over.is_set():
                other.execute("UPDATE collect.source_version SET seen_at = now() - interval '1 year'")
                run_once(backends, RULES)
                passes += 1
        return passes

    with ThreadPoolExecutor(1) as pool:
        passes = pool.submit(delete)
        try:
            for n in range(40):
                assert world.submit(params={"day": str(n)}).task_id
                db.execute("DELETE FROM collect.task")
        finally:
            over.set()
        assert passes.result() > 0


def test_admissions_answer_the_same_for_what_is_younger(
    backends: Backends, rules: LaneRules, db: Connection
) -> None:
    world = World(backends, rules)
    world.add(source(dedup={"ttl_h": 24 * 60}))
    asked = [world.submission(params={"day": str(n)}) for n in range(12)]
    first = world.service().admit_batch(asked)
    db.execute(
        "UPDATE collect.task SET status = 'CLAIMED', moved_by = 'test', confirmed_generation = generation"
    )
    db.execute("UPDATE collect.task SET status = 'DISPATCHED', moved_by = 'test'")
    db.execute(
        "UPDATE collect.task SET status = 'COMPLETED', moved_by = 'test', finished_at = now() - interval '95 days'"
    )
    # Half of them were asked for 95 days ago, with a key that holds for 60; the others' requests are younger.
    db.execute(
        "UPDATE collect.submission SET submitted_at = now() - make_interval(days => CASE WHEN task_id %% 2 = 0 THEN 95 "
        "ELSE 85 END)".replace("%%", "%").encode()
    )
    db.execute("UPDATE collect.dedup SET expires_at = now() - interval '35 days' WHERE task_id % 2 = 0")
    done = run_once(backends, RULES)
    assert done.deleted["tasks"] == 6
    again = world.service().admit_batch(asked)
    for before, after in zip(first, again, strict=True):
        assert not isinstance(before, Exception)
        assert not isinstance(after, Exception)
        if before.task_id % 2 == 0:
            assert after.task_id not in {each.task_id for each in first}  # type: ignore[union-attr]
        else:
            assert after.task_id == before.task_id
            equal = world.submit(params=dict(asked[first.index(before)].params))
            assert equal.task_id == before.task_id
            assert equal.duplicate_of == before.task_id


def test_a_dedup_window_beyond_the_days_of_request_ids_keeps_its_own_tasks_only(
    backends: Backends, rules: LaneRules, db: Connection
) -> None:
    world = World(backends, rules)
    world.add(source(dedup={"ttl_h": 24 * 365}))
    asked = world.submission()
    first = world.service().admit(asked)
    for status in ("CLAIMED", "DISPATCHED", "COMPLETED"):
        db.execute(
            "UPDATE collect.task SET status = %s, moved_by = 'test', confirmed_generation = generation",
            (status,),
        )
    db.execute("UPDATE collect.task SET finished_at = now() - interval '95 days'")
    db.execute("UPDATE collect.submission SET submitted_at = now() - interval '95 days'")
    others = add_tasks(db, 3, age_days=95)
    done = run_once(backends, RULES)
    assert done.kept == {"its dedup key holds": 1}
    assert remaining(db, others) == set()
    again = world.service().admit(asked)
    assert (again.task_id, again.duplicate_of) == (first.task_id, first.duplicate_of)


def test_a_redriven_task_outlives_passes_and_what_was_discarded_goes(
    backends: Backends, rules: LaneRules, db: Connection
) -> None:
    world = World(backends, rules)
    world.add(source())
    ids = letters.dead_tasks(world, 6)
    numbers = letters.letters_of(world, ids)
    service = letters.service(world)
    service.discard(selection_of({"ids": numbers[:2]}), actor="test", reason="no")
    letters.sent_again(world, ids=numbers[2:4])
    db.execute(
        "UPDATE collect.task SET finished_at = finished_at - interval '1 year' WHERE finished_at IS NOT NULL"
    )
    db.execute("UPDATE collect.submission SET submitted_at = now() - interval '1 year'")
    db.execute("UPDATE collect.dead_letter SET state_at = now() - interval '1 year', confirmed_at = now()")
    run_once(backends, RULES)
    assert remaining(db, ids) == set(ids[2:])
    assert {row["state"] for row in service.search(selection_of({}))} == {
        LetterState.REDRIVEN,
        LetterState.OPEN,
    }
    left = sum(group.letters for group in service.groups(selection_of({})))
    assert left == 2


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_open_survives(own: Backends, db: Connection, seed: int) -> None:
    """Tasks of every state and age, held by everything that can hold one: who must stay, stays as it was."""
    dice = random.Random(seed)
    must_stay: set[int] = set()
    others: set[int] = set()
    for _ in range(25):
        age = dice.choice([5, 80, 89.5, 91, 200, 1500])
        status = dice.choice(
            ["COMPLETED", "PARTIAL", "CANCELLED", "DEAD", "QUEUED", "RUNNING", "RETRYING", "HELD"]
        )
        letter = dice.choice(["OPEN", "REDRIVEN", "DISCARDED", "FAILED"]) if status == "DEAD" else None
        (task_id,) = add_tasks(
            db, status=status, age_days=age, letter=letter, source=f"s{seed}_{dice.random()}"
        )
        ended = status in ("COMPLETED", "PARTIAL", "CANCELLED", "DEAD")
        if not ended or age < 90 or letter in ("OPEN", "REDRIVEN"):
            must_stay.add(task_id)
            continue
        fitting = [name for name, (_, wanted) in HOLDERS.items() if wanted == status]
        if fitting and dice.random() < 0.5:
            HOLDERS[dice.choice(fitting)][0](db, [task_id])
            must_stay.add(task_id)
        else:
            others.add(task_id)
    before = {table: rows for table, rows in contents(db, sorted(must_stay)).items() if table != "trace"}
    done: list[Retained] = []
    stepwise = RetentionRules(bad_rows_days=36_500, pace=Pace(batch=dice.choice([1, 3, 100]), pause_s=0))
    done.append(run_once(own, stepwise))
    done.append(run_once(own, stepwise))
    assert remaining(db, sorted(must_stay)) == must_stay
    after = {table: rows for table, rows in contents(db, sorted(must_stay)).items() if table != "trace"}
    assert after == before
    assert remaining(db, sorted(others)) == set()
    assert all(each.complete for each in done)


def test_nothing_of_a_task_is_left_out(db: Connection) -> None:
    """Every table that refers to tasks is deleted by name, so that reports count it; a new one is a line here."""
    rows: list[dict[str, Any]] = db.execute(
        "SELECT DISTINCT conrelid::regclass::text AS name FROM pg_constraint "
        "WHERE confrelid = 'collect.task'::regclass AND contype = 'f'"
    ).fetchall()
    assert {row["name"].removeprefix("collect.") for row in rows} == set(TABLES)


def test_a_pass_that_fails_keeps_what_it_has_done(own: Backends, db: Connection) -> None:
    ids = add_tasks(db, 20)

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_once(own, replace_pace(RULES, batch=5), sleep=stop)
    assert len(remaining(db, ids)) == 15


def replace_pace(rules: RetentionRules, **fields: Any) -> RetentionRules:
    return rules.model_copy(update={"pace": rules.pace.model_copy(update=fields)})

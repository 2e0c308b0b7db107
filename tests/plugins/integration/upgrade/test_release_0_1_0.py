"""What release 0.1.0 has stored is planned, resumed, redriven and settled by today's code: exact, and nothing lost."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from collect_ops.delivery import merging, repair
from collect_ops.delivery.dead_letters import DeadLetters
from collect_ops.delivery.dead_model import Edit
from collect_ops.delivery.intervene import cancel
from collect_ops.storage import connect
from tests.plugins.integration.delivery.letters import sent_again
from tests.plugins.integration.storage.test_hot_tables import (
    assert_early_vacuum,
    assert_no_index_that_nobody_reads,
)
from tests.plugins.integration.upgrade.release import RELEASE, ROWS, Upgraded, definitions, upgrade
from tests.servers.paged import row

KINDS = ("by_count", "by_keys", "by_windows", "by_values")
ALL_IDS = list(range(ROWS))
EVERY_STATUS = {
    "QUEUED", "HELD", "CLAIMED", "DISPATCHED", "RUNNING", "COMPLETED", "PARTIAL", "RETRYING", "DEAD", "MERGED",
    "CANCELLED",
}  # fmt: skip


def ids(world: Upgraded, table: str) -> list[int]:
    return sorted(each["id"] for each in world.rows(f"SELECT id FROM landing.{table}"))


def assert_exact(world: Upgraded, table: str, wanted: list[int] | None = None) -> None:
    """Each row of the server once, with its values in the columns of their names."""
    wanted = ALL_IDS if wanted is None else wanted
    assert ids(world, table) == wanted
    found = world.rows(f"SELECT id, name, even, _extra FROM landing.{table} ORDER BY id")
    for each in found:
        assert (each["name"], each["even"]) == (row(each["id"])["name"], row(each["id"])["even"])
        assert each["_extra"]["value"] == row(each["id"])["value"]


def go_on(world: Upgraded) -> None:
    """What sweep, lane DAGs and collect runs do, until nothing waits that can go on."""
    world.rows("UPDATE collect.host SET held_until = NULL, paused_until = NULL RETURNING connection")
    world.rows("DELETE FROM collect.host_quota RETURNING 1 AS x")
    age(world)
    repair.run_once(world.backends, world.rules, world.runs, actor="test")
    for _ in range(6):
        world.publish_waiting()
        claimed = world.claim()
        # Those that the repair pass has started, too.
        for run_id in [run for run in world.runs.started if run not in world.done]:
            world.done.add(run_id)
            world.run(run_id)
        if not claimed.runs:
            return


def age(world: Upgraded) -> None:
    world.rows("UPDATE collect.task SET progress_at = progress_at - interval '5 minutes' RETURNING id")
    world.rows("UPDATE collect.shard SET progress_at = progress_at - interval '5 minutes' RETURNING task_id")


def only(world: Upgraded, *sources: str) -> None:
    """Cancel what a test is not about."""
    others = world.rows(
        "SELECT id FROM collect.task WHERE source <> ALL(%s) AND status NOT IN"
        " ('COMPLETED', 'PARTIAL', 'DEAD', 'CANCELLED')",
        list(sources),
    )
    cancel([each["id"] for each in others], world.backends, world.rules, actor="test", reason="not this one")


def statuses(world: Upgraded, source: str) -> list[str]:
    return [task["status"] for task in world.tasks(source)]


def test_the_fixture_holds_every_state_and_no_path_or_secret(upgraded: Upgraded) -> None:
    found = {each["status"] for each in upgraded.rows("SELECT DISTINCT status FROM collect.task")}
    assert found == EVERY_STATUS
    text = (RELEASE / "database.sql").read_text()
    assert re.findall(r"/(?:tmp|home|root|work|usr|var)/\w+", text) == []


def test_every_stored_definition_is_read(upgraded: Upgraded) -> None:
    with connect(upgraded.backends.postgres_dsn) as connection:
        found = definitions(connection)
    everything = found["everything"]
    param = everything.request.params["region"]
    assert (everything.dedup.ttl_h, everything.dedup.while_, everything.batch_size) == (2, "active", 500)
    assert (param.pattern, everything.target.columns["price"].type) == ("(?=eu|us)[a-z]+", "numeric(12,2)")
    assert found["completed"].retries.http_attempts == 1
    assert {each["format"] for each in upgraded.rows("SELECT format FROM collect.source_version")} == {0}


def test_an_old_process_may_still_store_what_it_stores(release_dsn: str) -> None:
    upgrade(release_dsn)
    with connect(release_dsn) as connection:
        connection.execute(
            "INSERT INTO collect.source_version (hash, source, definition) VALUES ('\\x0e0f', 'things', %s)",
            ('{"name": "things", "connection": "a", "target": {"table": "things"}}',),
        )
        assert definitions(connection)["things"].batch_size == 1000


def test_everything_goes_on(upgraded: Upgraded) -> None:
    go_on(upgraded)
    ended = Counter(
        (each["status"], each["source"] == "dead" or each["source"].startswith("dead_"))
        for each in upgraded.rows("SELECT source, status FROM collect.task WHERE status <> 'CANCELLED'")
    )
    assert {status for status, _ in ended} <= {"COMPLETED", "PARTIAL", "DEAD"}, ended
    assert {dead for status, dead in ended if status == "DEAD"} == {True}, upgraded.rows(
        "SELECT source, status, reason FROM collect.task WHERE status = 'DEAD'"
    )
    for table in (
        "half_merge",
        "half_replace",
        "retrying",
        "dispatched",
        "claimed",
        "limited",
        "out_of_quota",
    ):
        assert_exact(upgraded, table)
    # Two tasks each, the one that was under way and the one that waited, of disposition append.
    for table in ("by_count", "by_keys", "by_values"):
        assert_exact(upgraded, table, sorted(ALL_IDS * 2))
    assert ids(upgraded, "by_windows") == sorted([*range(ROWS), *range(ROWS)])
    assert ids(upgraded, "by_entry_point") == sorted([*range(100), *range(100)])


def test_a_half_done_task_resumes(upgraded: Upgraded) -> None:
    only(upgraded, "half_merge")
    half, _ = upgraded.tasks("half_merge")
    done = upgraded.rows(
        "SELECT shard_no, finished_at FROM collect.shard WHERE task_id = %s AND status = 'DONE'", half["id"]
    )
    assert len(done) in (1, 2)
    go_on(upgraded)
    task = upgraded.task(half["id"])
    assert (task["status"], task["attempt"], task["retry_count"], task["lost_count"]) == (
        "COMPLETED",
        2,
        0,
        1,
    )
    again = upgraded.rows(
        "SELECT shard_no, finished_at FROM collect.shard WHERE task_id = %s AND shard_no = ANY(%s)",
        half["id"],
        [each["shard_no"] for each in done],
    )
    assert again == done


def test_the_retried_task_resumes_at_its_page(upgraded: Upgraded) -> None:
    only(upgraded, "retrying")
    go_on(upgraded)
    (task,) = upgraded.tasks("retrying")
    assert (task["status"], task["attempt"], task["retry_count"]) == ("COMPLETED", 2, 1)
    pages = upgraded.rows("SELECT pages FROM collect.shard WHERE task_id = %s ORDER BY shard_no", task["id"])
    assert [each["pages"] for each in pages] == [2, 2, 2]
    assert_exact(upgraded, "retrying")


def test_its_hot_tables_are_kept_as_those_of_a_new_database(upgraded: Upgraded) -> None:
    with connect(upgraded.backends.postgres_dsn) as db:
        assert_no_index_that_nobody_reads(db)
        assert_early_vacuum(db)


def test_a_planned_run_goes_on_where_its_process_was_replaced(upgraded: Upgraded) -> None:
    """Not after a repair: the run's groups start on the new code."""
    (task,) = upgraded.tasks("dispatched")
    groups = upgraded.rows(
        "SELECT group_no FROM collect.shard_group WHERE run_id = %s AND status = 'OPEN'", task["run_id"]
    )
    for group in groups:
        asyncio.run(upgraded.group(task["run_id"], group["group_no"]))
    task = upgraded.task(task["id"])
    assert (task["status"], task["attempt"], task["lost_count"]) == ("COMPLETED", 1, 0)
    assert_exact(upgraded, "dispatched")


def test_survivors_settle_with_their_members(upgraded: Upgraded) -> None:
    only(upgraded, "planned_survivor", "waiting_survivor", "left_apart")
    with connect(upgraded.backends.postgres_dsn):
        done = merging.run_once(upgraded.backends, upgraded.rules, actor="test")
    assert done.merged == 1
    go_on(upgraded)
    shares = {"planned_survivor": [3, 3, 1], "waiting_survivor": [2, 2, 2], "left_apart": [2, 2]}
    for source, wanted in shares.items():
        tasks = upgraded.tasks(source)
        assert [task["status"] for task in tasks] == ["COMPLETED"] * len(wanted)
        own = [tasks[0]["result"]["own_rows"], *(task["result"]["rows_landed"] for task in tasks[1:])]
        assert own == wanted


@pytest.mark.parametrize("source", ["dead", "dead_replace", "dead_survivor"])
def test_dead_letters_are_redriven(upgraded: Upgraded, source: str) -> None:
    only(upgraded, source)
    first = upgraded.tasks(source)[0]
    progress = sent_again(upgraded, ids=[letter_of(upgraded, first)])
    assert (progress.done, progress.skipped) == (1, 0)
    go_on(upgraded)
    assert set(statuses(upgraded, source)) == {"COMPLETED"}
    if source != "dead_survivor":
        assert_exact(upgraded, source)
    else:
        assert ids(upgraded, source) == [1, 2, 3, 4, 5]


def test_a_dead_letter_takes_the_declaration_of_today(upgraded: Upgraded) -> None:
    (task,) = upgraded.tasks("dead")
    letters = DeadLetters(upgraded.backends, upgraded.rules, sources=upgraded.find)
    letter = letter_of(upgraded, task)
    same = letters.edit(letter, Edit(redeclare=True), actor="someone", reason="nothing has changed")
    assert not same.request_changed
    upgraded.add(upgraded.find("dead").model_copy(update={"page_size": 25}))
    other = letters.edit(letter, Edit(redeclare=True), actor="someone", reason="smaller pages")
    assert other.request_changed
    (stored,) = upgraded.rows(
        "SELECT v.format, v.declared ->> 'page_size' AS size FROM collect.task AS t"
        " JOIN collect.source_version AS v ON v.hash = t.source_version WHERE t.id = %s",
        task["id"],
    )
    assert stored == {"format": 1, "size": "25"}


def letter_of(world: Upgraded, task: Mapping[str, Any]) -> int:
    (letter,) = world.rows("SELECT id FROM collect.dead_letter WHERE task_id = %s", task["id"])
    return int(letter["id"])


def test_cancelling_leaves_nothing_aside(upgraded: Upgraded) -> None:
    (task,) = upgraded.tasks("half_replace")
    cancel([task["id"]], upgraded.backends, upgraded.rules, actor="test", reason="not wanted")
    asides = upgraded.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'landing_aside'")
    assert [each["tablename"] for each in asides] == [
        f"dead_replace__{upgraded.tasks('dead_replace')[0]['id']}"
    ]

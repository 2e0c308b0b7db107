"""`collect-ops source migrate`: what it says, what it alters, and how it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from collect_ops.landing.table import ensure_target
from collect_ops.storage import Connection, connect
from tests.plugins.integration.delivery.letters import letters_of, sent_again
from tests.plugins.integration.execution.checks import claim_next, start
from tests.plugins.integration.world import World, source
from tests.servers.paged import PagedServer

Run = Callable[..., tuple[int, str, str]]

OLD: dict[str, Any] = {
    "id": {"type": "bigint"},
    "name": {"type": "text"},
    "value": {"type": "double precision"},
}
#: One renamed, one of another type, two more.
NEW: dict[str, Any] = {
    "id": {"type": "bigint"},
    "title": {"type": "text", "path": "name"},
    "value": {"type": "numeric"},
    "even": {"type": "boolean"},
    "at": {"type": "timestamptz"},
}


def target(columns: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"table": "things", "disposition": "merge", "key": ["id"], "columns": columns, **fields}


@pytest.fixture
def declare(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Writes the source's file, and gives the world the same source."""
    monkeypatch.setattr("collect_ops.sources.load.sources_dir", lambda: tmp_path)

    def write(columns: dict[str, Any], **fields: Any) -> None:
        declared = source(target=target(columns, **fields))
        world.add(declared)
        text = yaml.safe_dump(declared.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
        (tmp_path / "things.yaml").write_text(text)

    return write


@pytest.fixture
def landed(world: World, declare: Callable[..., None], serve: Callable[..., PagedServer]) -> PagedServer:
    """150 rows have landed by the old declaration."""
    server = serve(rows=150)
    world.serve_from(server.base_url)
    declare(OLD)
    assert world.task(world.collect())["status"] == "COMPLETED"
    return server


def actions(statements: list[str]) -> list[str]:
    """What statements consist of: a stored declaration may have its columns in another order."""
    return re.findall(r"(?:ADD|ALTER|RENAME) COLUMN [^,;]+", ", ".join(statements))


def columns(world: World) -> dict[str, str]:
    rows = world.rows(
        "SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute "
        "WHERE attrelid = 'landing.things'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    return {row["attname"]: row["type"] for row in rows if not row["attname"].startswith("_")}


def test_there_is_nothing_to_do(world: World, declare: Callable[..., None], collect_ops: Run) -> None:
    declare(OLD)
    code, out, _ = collect_ops("source", "migrate", "things", "--json")
    told = json.loads(out)
    assert (code, told["exists"], told["fits"], told["statements"]) == (0, False, True, [])
    with connect(world.backends.postgres_dsn) as db:
        ensure_target(db, world.find("things").target)
    code, out, _ = collect_ops("source", "migrate", "things", "--json")
    told = json.loads(out)
    assert (code, told["exists"], told["fits"], told["applied"]) == (0, True, True, False)


def test_from_a_dead_task_over_a_dry_run_to_exact_rows(
    world: World, landed: PagedServer, declare: Callable[..., None], collect_ops: Run
) -> None:
    declare(NEW)
    task_id = world.collect(force=True)
    task = world.task(task_id)
    assert task["status"] == "DEAD"

    code, out, _ = collect_ops("source", "migrate", "things", "--dry-run", "--json")
    planned = json.loads(out)
    assert (code, planned["applied"], planned["rewrites"], planned["refusal"]) == (0, False, True, None)
    assert len(planned["statements"]) == 2
    assert "RENAME COLUMN" in planned["statements"][0]
    assert columns(world) == {"id": "bigint", "name": "text", "value": "double precision"}

    (error,) = world.rows("SELECT error_message FROM collect.dead_letter")
    (letter,) = letters_of(world, [task_id])
    status = json.loads(collect_ops("status", task_id, "--json")[1])
    shown = json.loads(collect_ops("dead", "show", letter, "--json")[1])
    for text in (
        task["reason"],
        task["error"]["remedy"],
        error["error_message"],
        status["reason"],
        status["log"][-1]["reason"],
        shown["letter"]["error_message"],
        collect_ops("status", task_id)[1],
        "".join(collect_ops("dead", "show", letter)[1].split()),
    ):
        for action in actions(planned["statements"]):
            assert "".join(action.split()) in "".join(text.split()), text

    code, out, _ = collect_ops("source", "migrate", "things", "--json")
    done = json.loads(out)
    assert (code, done["applied"], done["fits"], done["statements"]) == (0, True, True, planned["statements"])
    assert columns(world) == {
        "id": "bigint", "title": "text", "value": "numeric", "even": "boolean", "at": "timestamp with time zone",
    }  # fmt: skip
    assert sent_again(world, ids=[letter]).done == 1
    world.run(claim_next(world))
    assert world.task(task_id)["status"] == "COMPLETED"
    found = world.rows(
        "SELECT count(*) AS rows, count(title) AS titles, count(at) AS moments FROM landing.things"
    )
    assert found == [{"rows": 150, "titles": 150, "moments": 150}]


def test_without_renames_the_old_column_stays(
    world: World, landed: PagedServer, declare: Callable[..., None], collect_ops: Run
) -> None:
    declare({**OLD, "title": {"type": "text", "path": "name"}})
    assert collect_ops("source", "migrate", "things")[0] == 0
    assert list(columns(world)) == ["id", "name", "value", "title"]
    declare({name: NEW[name] for name in ("id", "title")})
    assert collect_ops("source", "migrate", "things")[0] == 0
    assert list(columns(world)) == ["id", "name", "value", "title"], "what is not declared any more stays"


def test_what_postgresql_refuses_leaves_everything_as_it_was(
    world: World, landed: PagedServer, declare: Callable[..., None], collect_ops: Run
) -> None:
    declare({**OLD, "name": {"type": "integer"}, "more": {"type": "text"}})
    code, out, _ = collect_ops("source", "migrate", "things", "--json")
    told = json.loads(out)
    assert (code, told["applied"], told["fits"]) == (1, False, False)
    assert 'integer: "row ' in told["refusal"]
    code, _, err = collect_ops("source", "migrate", "things")
    assert (code, "invalid input" in err) == (1, True)
    assert columns(world) == {"id": "bigint", "name": "text", "value": "double precision"}


def test_a_table_in_use_is_waited_for_no_longer_than_said(
    world: World, landed: PagedServer, declare: Callable[..., None], collect_ops: Run, db: Connection
) -> None:
    declare(NEW)
    with db.transaction():
        db.execute("SELECT FROM landing.things LIMIT 1")
        code, _, err = collect_ops("source", "migrate", "things", "--lock-timeout", "0.3")
        assert (code, "0.3 s" in err) == (1, True)
        code, out, _ = collect_ops("source", "migrate", "things", "--lock-timeout", "0.3", "--json")
        assert (code, json.loads(out)["applied"]) == (1, False)
    assert "title" not in columns(world)
    assert collect_ops("source", "migrate", "things")[0] == 0
    assert "title" in columns(world)


def test_tasks_under_way_are_not_left_without_their_columns(
    world: World, landed: PagedServer, declare: Callable[..., None], collect_ops: Run
) -> None:
    task_id, run_id = start(world, force=True)
    declare({**OLD, "more": {"type": "text", "path": "name"}})
    assert collect_ops("source", "migrate", "things")[0] == 0, "one column more is no harm to them"
    declare(NEW)
    world.submit(force=True)
    for more in ((), ("--dry-run",)):
        code, out, _ = collect_ops("source", "migrate", "things", "--json", *more)
        told = json.loads(out)
        assert (code, told["applied"], told["bound_tasks"]) == (1, False, [task_id])
        assert str(task_id) in told["refusal"]
    assert collect_ops("source", "migrate", "things", "--force")[0] == 0
    world.run(run_id)
    task = world.task(task_id)
    assert task["status"] == "DEAD"
    assert "--redeclare" in task["reason"], "the table is right, and the task's declaration is not"


def test_a_view_is_nothing_that_can_be_altered(
    world: World, declare: Callable[..., None], collect_ops: Run, db: Connection
) -> None:
    declare(OLD)
    db.execute("CREATE VIEW landing.things AS SELECT 1 AS id")
    code, out, _ = collect_ops("source", "migrate", "things", "--json")
    told = json.loads(out)
    assert (code, told["statements"], "view" in told["refusal"]) == (1, [], True)


def test_names_that_people_gave_are_quoted(
    world: World, landed: PagedServer, declare: Callable[..., None], collect_ops: Run, db: Connection
) -> None:
    db.execute('ALTER TABLE landing.things ADD COLUMN "a"";--b" text NOT NULL DEFAULT \'\'')
    db.execute('ALTER TABLE landing.things ALTER COLUMN "a"";--b" DROP DEFAULT')
    db.execute('ALTER TABLE landing.things RENAME CONSTRAINT things_pkey TO "the ""key"""')
    declare({**OLD, "name": {"type": "text"}}, key=["id", "name"])
    assert collect_ops("source", "migrate", "things")[0] == 0
    world.claim_and_run()
    assert world.task(world.collect(force=True))["status"] == "COMPLETED"


@pytest.mark.parametrize(("answer", "changed"), [("n", False), ("y", True)])
def test_on_a_terminal_it_asks(
    world: World,
    landed: PagedServer,
    declare: Callable[..., None],
    collect_ops: Run,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    *,
    changed: bool,
) -> None:
    declare(NEW)
    monkeypatch.setattr("collect_ops.cli.source._on_a_terminal", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: answer == "y")
    assert collect_ops("source", "migrate", "things")[0] == (0 if changed else 1)
    assert ("title" in columns(world)) == changed
    monkeypatch.setattr("typer.confirm", lambda *_, **__: pytest.fail("it was told not to ask"))
    assert collect_ops("source", "migrate", "things", "--yes")[0] == 0


def test_a_source_that_is_not_declared(declare: Callable[..., None], collect_ops: Run) -> None:
    declare(OLD)
    code, _, err = collect_ops("source", "migrate", "thing")
    assert (code, "did you mean 'things'" in err) == (2, True)

"""The services of a running stack of release 0.1.0 are upgraded; with Airflow and tasks: tests/e2e/test_upgrade.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stack.code import Code
from tests.e2e.installation import Installation

pytestmark = pytest.mark.timeout(900)
SERVICES = ("postgres", "redis", "epmd", "rabbitmq")
ONLY = ("--only", "postgres,redis,rabbitmq")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation.of_release(tmp_path)
    try:
        made.start_release(*ONLY)
        yield made
    finally:
        made.remove()


def status(installation: Installation) -> dict[str, dict[str, Any]]:
    told = json.loads(installation.run("stack", "status", "--json"))
    return {line["service"]: line for line in told["services"] if line["service"] in SERVICES}


def test_services_of_a_release_that_noted_nothing_are_restarted_once(installation: Installation) -> None:
    dsn = installation.exports()["COLLECT_POSTGRES_DSN"]
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE public.kept AS SELECT 7 AS n")
    installation.pull()
    before = status(installation)
    assert {line["state"] for line in before.values()} == {"healthy"}
    assert {line["code"] for line in before.values()} == {Code.OTHER}
    installation.run("stack", "up", *ONLY)
    after = status(installation)
    assert {line["code"] for line in after.values()} == {Code.CURRENT}
    assert all(after[name]["pid"] != before[name]["pid"] for name in SERVICES)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT n FROM public.kept").fetchone() == (7,)
        rows = connection.execute("SELECT name FROM public.schema_migration").fetchall()
    files = (installation.folder / "include" / "sql" / "migrations").glob("*.sql")
    assert {name for (name,) in rows} == {file.stem for file in files}
    installation.run("stack", "up", *ONLY)
    assert status(installation) == after, "what runs this code is left alone"

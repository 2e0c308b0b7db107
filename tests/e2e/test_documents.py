"""What README and docs show, run on the running stack beside the demo's server, as somebody who reads them does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from demo.run import prepare_connections, submit, unpause_needed
from demo.server import ensure_running
from tests.documents.blocks import Block, DocumentFault, blocks_in
from tests.documents.checks import CHECKOUT, Runner
from tests.documents.commands import sentences_code
from tests.documents.session import Session, lay_out
from tests.e2e.kills import empty_table
from tests.e2e.running_stack import RunningStack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]
DOCUMENTS = {path.name: path for path in [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]}
BLOCKS = {name: blocks_in(path, CHECKOUT) for name, path in DOCUMENTS.items()}
RUN = [name for name, blocks in BLOCKS.items() if any("not run here" not in block.marks for block in blocks)]
#: What README says once and the other documents take for granted.
SETTINGS = 'eval "$(make -s env)"; export PATH="$PWD/.stack/venv/bin:$PATH"'
SELECT = re.compile(r"psql -c \"(SELECT [^\"]+)\"|^(SELECT .+)$")


@pytest.fixture(scope="module")
def demo_stack(running_stack: RunningStack) -> Iterator[RunningStack]:
    """The running stack after `make demo`, and the sources that documents declare in their place.

    Earlier runs of these tests are forgotten: what they submitted is no duplicate of what is submitted now.
    """
    server = ensure_running(running_stack.settings.home)
    prepare_connections(running_stack.airflow, server)
    for circuits in ("host", "endpoint"):  # that other tests have left open
        running_stack.execute(f"DELETE FROM collect.{circuits}")
    files = dict(declared_files())
    declared = [yaml.safe_load(text)["name"] for text in files.values()]
    empty_table(running_stack, "landing.example_offset")  # other tests land other rows there
    for connection in ("partner_api", "weather_api"):
        running_stack.airflow.delete_connection(connection)
    running_stack.rest("DELETE", "/dags/collect_submit/dagRuns/my-request-1")
    forget(running_stack, [*declared, "flights", "example_offset", "example_merge"])
    if not running_stack.rows(
        "SELECT 1 FROM pg_tables WHERE (schemaname, tablename) = ('landing', 'flights')"
    ):
        running_stack.task_ended(submit(running_stack.airflow, force=True).task_id, 300)
    for path, text in files.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            pytest.fail(f"{path} is somebody's, and a document writes it")
        path.write_text(text, encoding="utf-8")
    yield running_stack
    try:
        for name in declared:
            running_stack.rest("PATCH", f"/dags/source_{name}", body={"is_paused": True})
        wait_for(
            "the end of what the examples submitted", lambda: not open_tasks(running_stack), 120, poll_s=1
        )
    finally:
        for path in files:
            path.unlink(missing_ok=True)
    for name in declared:
        wait_for(f"source_{name} to be forgotten", partial(forget_dag, running_stack, name), 60, poll_s=1)


def forget_dag(stack: RunningStack, source: str) -> bool:
    """Whether Airflow knows nothing of the source's DAG any more: its last runs would wait for ever."""
    status = stack.rest("DELETE", f"/dags/source_{source}").status_code
    return status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND)


def open_tasks(stack: RunningStack) -> list[dict[str, Any]]:
    """Tasks that have not ended."""
    return stack.rows("SELECT id, source, status, reason FROM collect.task WHERE finished_at IS NULL")


def declared_files() -> Iterator[tuple[Path, str]]:
    """What blocks are the content of."""
    for blocks in BLOCKS.values():
        for block in blocks:
            if name := block.marks.get("file"):
                yield CHECKOUT / name, block.body


def forget(stack: RunningStack, sources: list[str]) -> None:
    """Have nothing be a duplicate of an earlier task of the sources, and no letter of theirs be open."""
    for table in ("dedup", "submission", "dead_letter"):
        stack.execute(
            f"DELETE FROM collect.{table} WHERE task_id IN (SELECT id FROM collect.task WHERE source = ANY(%s))",
            sources,
        )


@pytest.fixture
def runner(demo_stack: RunningStack, tmp_path: Path) -> Iterator[Runner]:
    desk = lay_out(tmp_path, CHECKOUT)
    home = demo_stack.settings.home.resolve()
    with Session(desk, home) as session:
        yield Runner(session=session, desk=desk, home=home)
    unpause_needed(demo_stack.airflow)  # examples of waiting tasks pause the lanes


@pytest.mark.parametrize("name", RUN)
def test_the_examples_of_a_document_hold(name: str, runner: Runner) -> None:
    if name != "README.md":
        assert runner.session.run(SETTINGS) == (0, "")
    faults = [fault for block in BLOCKS[name] if (fault := fault_of(runner, block))]
    assert not faults, "\n\n".join(faults)


def test_statements_are_explained_as_a_person(runner: Runner) -> None:
    assert runner.session.run(SETTINGS) == (0, "")

    def sql(body: str) -> Block:
        return Block(document="x.md", line=1, language="sql", body=body)

    assert (
        fault_of(runner, sql("SELECT id FROM collect.task;\nSELECT count(*)\nFROM landing.flights;\n"))
        is None
    )
    for wrong, reason in (
        ("SELECT id FROM collect.task;\nSELECT no_such_column FROM collect.task;\n", "no_such_column"),
        ("SELEC 1;\n", "syntax error"),
        ("DELETE FROM collect.task_log;\n", "permission denied"),
    ):
        assert reason in (fault_of(runner, sql(wrong)) or "no fault"), wrong


def fault_of(runner: Runner, block: Block) -> str | None:
    """What is wrong with a block, if anything."""
    try:
        runner.run(block)
    except DocumentFault as fault:
        return str(fault)
    return None


@pytest.fixture(scope="module")
def person_dsn(demo_stack: RunningStack) -> str:
    """PostgreSQL as `make env` gives it."""
    exported = demo_stack.command("stack", "env").stdout
    (value,) = re.findall(r"^export COLLECT_POSTGRES_DSN=(.+)$", exported, re.MULTILINE)
    return str(shlex.split(value)[0])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_statements_in_sentences_can_be_run(name: str, person_dsn: str) -> None:
    """By somebody who reads them: with the rights of the shell's settings."""
    code = sentences_code(DOCUMENTS[name].read_text(encoding="utf-8"))
    statements = [found[1] or found[2] for text in code if (found := SELECT.match(text))]
    with psycopg.connect(person_dsn, autocommit=True) as connection:
        for statement in statements:
            if "…" not in statement:
                connection.execute(re.sub(r"\bT\b", "1", f"EXPLAIN {statement}").encode())

"""`collect-ops bad-rows`: what did not fit its columns, and why."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from collect_ops.cli.task import AsJson

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collect_ops.landing.bad_rows import BadRowFilter, BadRows
    from collect_ops.storage import Connection
    from collect_ops.tasks.progress import Progress

FIELDS = ("task_id", "source", "shard_no", "page", "ordinal", "at", "reason", "row_text")


def bad_rows(
    whose: Annotated[
        str, typer.Argument(metavar="TASK|SOURCE", help="Number or request id of a task; or a source's name.")
    ],
    since: Annotated[
        str | None,
        typer.Option(help="Met at this time or later: 2026-01-31T08:00:00Z, or how long ago: 30m, 2h, 7d."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", help="How many reasons at most.", min=1, max=1_000)
    ] = 20,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Write all rows into this file instead, a line each; `-` is stdout.", dir_okay=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the rows that did not fit their columns: by reason, with examples. Exit status 2 for bad input.

    Examples: collect-ops bad-rows flights --since 1d · collect-ops bad-rows 4711 --csv bad.csv
    """
    from dataclasses import asdict

    from collect_ops.cli.output import print_json
    from collect_ops.cli.params import parse_since
    from collect_ops.kernel.backends import Backends
    from collect_ops.kernel.errors import Fault, ValidationFailed
    from collect_ops.landing.bad_rows import group_bad_rows
    from collect_ops.storage import connect
    from collect_ops.tasks.progress import read_progress

    if csv is not None and as_json:
        raise ValidationFailed(
            "command line", [Fault(field="--json", value=None, problem="does not go with --csv")]
        )
    moment = parse_since("--since", since, now=datetime.now(UTC))
    with connect(Backends.from_environment().postgres_dsn, application_name="collect-ops cli") as connection:
        wanted = _filter(connection, whose, moment)
        if csv is not None:
            _export(connection, wanted, csv)
            return
        found = group_bad_rows(connection, wanted, limit=limit)
        progress = None if wanted.task_id is None else read_progress(connection, wanted.task_id)
    if as_json:
        print_json(asdict(found))
    else:
        _print(found, whose, moment, progress)


def _filter(connection: Connection, whose: str, since: datetime | None) -> BadRowFilter:
    """Whose rows are meant.

    Raises:
        ValidationFailed: Nobody has that name.
    """
    from collect_ops.cli.task import find_task
    from collect_ops.kernel.errors import Fault, ValidationFailed
    from collect_ops.landing.bad_rows import BadRowFilter
    from collect_ops.sources.load import load_sources
    from collect_ops.tasks.search import TaskFilter, find_tasks

    loaded = load_sources()
    declared = {*loaded.sources, *(path.stem for path in loaded.faults)}
    if whose in declared or find_tasks(connection, TaskFilter(source=whose, limit=1)):
        return BadRowFilter(source=whose, since=since)
    task_id = find_task(connection, whose)
    if task_id is not None:
        return BadRowFilter(task_id=task_id, since=since)
    problem = "is neither a task's number or request id, nor a source"
    fault = Fault(field="TASK|SOURCE", value=whose, problem=problem, allowed=tuple(sorted(declared)))
    raise ValidationFailed("command line", [fault])


def _print(found: BadRows, whose: str, since: datetime | None, progress: Progress | None) -> None:
    from collect_ops.cli.output import printable

    subject = f"task {whose}" if whose.isdigit() else whose
    if not found.row_count:
        typer.echo(f"{subject}: {_none_stored(since, progress)}")
        return
    gone = ""
    if since is None and progress is not None and progress.bad_rows > found.row_count:
        gone = f"; {progress.bad_rows:,} were met, the others are not kept any longer"
    typer.echo(f"{subject}: {found.row_count:,} bad rows, {found.reason_count:,} reasons{gone}")
    for group in found.groups:
        tasks = "" if group.task_count == 1 else f" of {group.task_count:,} tasks"
        typer.echo(f"\n{group.row_count:,} rows{tasks}: {printable(group.pattern, 300)}")
        for each in group.examples:
            place = f"task {each.task_id}, shard {each.shard_no}, page {each.page}, row {each.ordinal}"
            typer.echo(f"  {place}, {each.at:%m-%d %H:%M:%S}")
            typer.echo(f"    {printable(each.reason, 300)}")
            typer.echo(f"    {printable(each.row_text, 300)}")
    if found.reason_count > len(found.groups):
        typer.echo(
            f"\n{found.reason_count - len(found.groups):,} more reasons: --limit, or all rows with --csv FILE"
        )


def _none_stored(since: datetime | None, progress: Progress | None) -> str:
    """What it means that there is no bad row; of a task, its own counts say more.

    Args:
        since: Rows that were met before are not looked for.
        progress: Of the task; None for a source.
    """
    if since is not None:
        return f"no bad rows stored since {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if progress is None:
        return "no bad rows stored"
    if progress.bad_rows:
        return (
            f"{progress.bad_rows:,} bad rows were met; none is kept any longer (include/rules/retention.yaml)"
        )
    if not progress.rows_fetched:
        return f"no rows were fetched; it is {progress.status}"
    return f"every row fits: {progress.rows_fetched:,} fetched" + ("" if progress.status.final else " so far")


def _export(connection: Connection, wanted: BadRowFilter, path: Path) -> None:
    import csv

    from collect_ops.cli.output import print_error
    from collect_ops.landing.bad_rows import read_bad_rows

    count = 0
    with _opened(path) as file:
        lines = csv.DictWriter(file, FIELDS)
        lines.writeheader()
        for row in read_bad_rows(connection, wanted):
            lines.writerow({**row, "at": row["at"].isoformat()})
            count += 1
    print_error(f"{count:,} rows written to {'stdout' if str(path) == '-' else path}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The file to write.

    Raises:
        ValidationFailed: It cannot be written.
    """
    import sys

    from collect_ops.kernel.errors import Fault, ValidationFailed

    if str(path) == "-":
        yield sys.stdout
        return
    try:
        file = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        fault = Fault(field="--csv", value=str(path), problem=f"cannot be written: {error.strerror}")
        raise ValidationFailed("command line", [fault]) from error
    with file:
        yield file

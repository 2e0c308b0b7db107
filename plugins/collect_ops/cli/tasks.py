"""`collect-ops tasks`: tasks found by what they have in common."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from collect_ops.cli.completion import complete_source
from collect_ops.cli.task import AsJson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collect_ops.tasks.search import TaskSummary

HEADINGS = ("task", "status", "source", "lane", "prio", "rows", "admitted", "took", "reason")


def tasks(
    status: Annotated[
        list[str] | None, typer.Option("--status", "-s", help="In this state; may be repeated.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Of this source.", autocompletion=complete_source)
    ] = None,
    lane: Annotated[str | None, typer.Option(help="In this lane.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Admitted at this time or later: 2026-01-31T08:00:00Z, or how long ago: 30m, 2h, 7d."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Admitted before this time; the same forms.")] = None,
    priority: Annotated[str | None, typer.Option(help="Of this priority: 8, or 8-10.")] = None,
    text: Annotated[
        str | None, typer.Option("--text", "-t", help="Holding this in the reason or the error.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many at most.", min=1, max=10_000)] = 50,
    before: Annotated[int | None, typer.Option(help="Only lower numbers: the next page.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """List tasks, newest first; all of them unless options say which. Exit status 2 for bad input.

    Example: collect-ops tasks --status dead --status partial --since 2h --source flights
    """
    from dataclasses import asdict

    from collect_ops.cli.output import print_json, print_table
    from collect_ops.cli.params import parse_since
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules
    from collect_ops.storage import connect
    from collect_ops.tasks.search import filter_of, find_tasks

    now = datetime.now(UTC)
    wanted = filter_of(
        lanes=tuple(lane_rules().lanes),
        status=status or (),
        source=source,
        lane=lane,
        priority=priority,
        since=parse_since("--since", since, now=now),
        until=parse_since("--until", until, now=now),
        text=text,
        before=before,
        limit=limit,
    )
    with connect(Backends.from_environment().postgres_dsn, application_name="collect-ops cli") as connection:
        found = find_tasks(connection, wanted)
    if not found and source is not None:
        _demand_known(source)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    print_table("", HEADINGS, map(_row, found), spare=("took", "prio", "lane", "admitted"))
    if len(found) == limit:
        typer.echo(f"more: --before {found[-1].task_id}")


def _demand_known(source: str) -> None:
    """A name that has no tasks and no file is a slip.

    Raises:
        UnknownSource: It is not declared.
    """
    from collect_ops.sources.load import UnknownSource, load_sources

    loaded = load_sources()
    declared = {*loaded.sources, *(path.stem for path in loaded.faults)}
    if source not in declared:
        raise UnknownSource(source, sorted(declared))


def _row(task: TaskSummary) -> Sequence[object]:
    # Rows that landed; of a replacement those that its table has got.
    rows = f"{task.rows_in_target:,}"
    if task.total_rows is not None and task.total_rows != task.rows_in_target:
        rows += f" of {task.total_rows:,}"
    ended = task.finished_at
    took = (
        ""
        if task.started_at is None
        else brief_seconds(((ended or datetime.now(UTC)) - task.started_at).total_seconds())
    )
    return (
        task.task_id,
        task.status,
        task.source,
        task.lane,
        task.priority,
        rows,
        f"{task.created_at:%m-%d %H:%M:%S}",
        took,
        task.reason,
    )


def brief_seconds(seconds: float) -> str:
    """A duration in a word or two: `0.4 s`, `50 s`, `3 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

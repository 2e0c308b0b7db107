"""`collect-ops submit | status | watch | trace`: tasks from the shell."""

from __future__ import annotations

import getpass
import time
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import RenderableType

    from collect_ops.storage import Connection
    from collect_ops.tasks.progress import Progress

#: Ends that `watch` and `submit --wait` report as success.
GOOD_ENDS = frozenset({"COMPLETED"})

TaskId = Annotated[int, typer.Argument(help="Number of the collect task.", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of text.")]


def submit(
    source: Annotated[str, typer.Argument(help="Name of a source (`collect-ops source list`).")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="A parameter, NAME=VALUE; may be repeated.")
    ] = None,
    path: Annotated[str | None, typer.Option(help="Instead of the source's path.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 10; else the source's.")] = None,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="Raise the priority, by 3 as shipped.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Admit even when an equal task is known.")] = False,
    request_id: Annotated[
        str | None, typer.Option(help="The same request id gets the first answer again; else a new one.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Follow the task to its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a collect task. Exit status 2 for bad input, 3 for a duplicate."""
    from collect_ops.admission.model import Submission
    from collect_ops.admission.service import AdmissionService
    from collect_ops.cli.output import print_json
    from collect_ops.cli.params import parse_params
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rest_runs import RestRuns
    from collect_ops.lanes.rules import lane_rules

    given = parse_params(param or [])
    service = AdmissionService(Backends.from_environment(), lane_rules(), RestRuns.from_environment())
    admission = service.admit(
        Submission(
            source=source,
            params=given,
            path=path,
            priority=priority,
            emergency=emergency,
            force=force,
            request_id=request_id or f"cli:{uuid.uuid4()}",
            submitted_by=f"cli:{getpass.getuser()}",
            submitted_via="cli",
        )
    )
    if as_json:
        print_json(admission.model_dump(mode="json"))
    else:
        typer.echo(admission.sentence())
    if wait and admission.duplicate_of is None:
        watch(admission.task_id)
    if admission.duplicate_of is not None:
        raise typer.Exit(3)


def status(task: TaskId, as_json: AsJson = False) -> None:
    """Show where a task stands: progress, result, and how it came there."""
    from dataclasses import asdict

    from collect_ops.cli.output import print_json, print_table
    from collect_ops.storage import query

    with _database() as connection:
        progress = _progress(connection, task)
        log = connection.execute(query("tasks/select_log"), {"task_id": task}).fetchall()
        result = connection.execute(query("tasks/select_result"), {"task_id": task}).fetchone() or {}
    if as_json:
        print_json({**asdict(progress), **result, "log": log})
        return
    typer.echo(line(progress))
    for name in ("result", "error"):
        if result.get(name):
            typer.echo(f"{name}: {_brief(result[name])}")
    moves = [
        (_clock(row["at"]), row["from_status"], row["to_status"], row["attempt"], row["reason"], row["actor"])
        for row in log
    ]
    print_table("", ("at", "from", "to", "attempt", "reason", "actor"), moves)


def trace(
    task: TaskId,
    stage: Annotated[str | None, typer.Option(help="Only this stage (fetch, land, settle, …).")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a task's trace: a row a stage, with sizes, durations and errors."""
    from collect_ops.cli.output import print_json, print_table
    from collect_ops.storage import query

    with _database() as connection:
        _progress(connection, task)
        rows = connection.execute(query("journal/select_trace"), {"task_id": task, "stage": stage}).fetchall()
    if as_json:
        print_json(rows)
        return
    cells = [
        (
            _clock(row["at"]),
            row["stage"],
            row["attempt"],
            row["shard_no"],
            f"{row['duration_s']:.3f}",
            row["rows"],
            row["bytes"],
            (row["error"] or {}).get("message") or _brief(row["response"]),
        )
        for row in rows
    ]
    print_table("", ("at", "stage", "attempt", "shard", "seconds", "rows", "bytes", "what"), cells)


def watch(
    task: TaskId,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 0.5,
) -> None:
    """Follow a task to its end. Exit status 0 when it is COMPLETED, else 1."""
    import sys

    with _database() as connection:
        progress = _progress(connection, task)
        show = _Bar(progress) if sys.stdout.isatty() else _Lines()
        with show:
            while True:
                show(progress)
                if progress.status.final:
                    break
                time.sleep(interval)
                progress = _progress(connection, task)
    if str(progress.status) not in GOOD_ENDS:
        raise typer.Exit(1)


class _Lines:
    """For pipes and logs: a line whenever something has changed."""

    def __init__(self) -> None:
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, progress: Progress) -> None:
        text = line(progress)
        changed = f"{progress.status} {progress.rows_fetched} {progress.shards_done}"
        if changed != self._last:
            typer.echo(text)
            self._last = changed


class _Bar:
    """For a screen: a bar, and under it the line."""

    def __init__(self, progress: Progress) -> None:
        from rich.live import Live

        self._live = Live(self._drawn(progress), auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, progress: Progress) -> None:
        self._live.update(self._drawn(progress), refresh=True)

    @staticmethod
    def _drawn(progress: Progress) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        bar = ProgressBar(total=progress.total_rows, completed=progress.rows_fetched, width=60)
        return Group(bar, Text(line(progress)))


def line(progress: Progress) -> str:
    """A task's progress in a line."""
    total = "?" if progress.total_rows is None else f"{progress.total_rows:,}"
    parts = [
        f"task {progress.task_id} {progress.source}: {progress.status}",
        f"{progress.rows_fetched:,} of {total} rows",
        f"shards {progress.shards_done}/{progress.shards_total if progress.shards_total is not None else '?'}",
    ]
    if progress.rows_per_s is not None:
        parts.append(f"{progress.rows_per_s:,.0f} rows/s")
    if progress.elapsed_s is not None:
        parts.append(f"{progress.elapsed_s:.1f} s")
    if progress.remaining_s:
        parts.append(f"{progress.remaining_s:.0f} s to go")
    if progress.bad_rows:
        parts.append(f"{progress.bad_rows:,} bad rows")
    if progress.reason:
        parts.append(progress.reason)
    return " · ".join(parts)


def _database() -> Connection:
    from collect_ops.kernel.backends import Backends
    from collect_ops.storage import connect

    return connect(Backends.from_environment().postgres_dsn, application_name="collect-ops cli")


def _progress(connection: Connection, task_id: int) -> Progress:
    from collect_ops.cli.output import BAD_INPUT, print_error
    from collect_ops.tasks.progress import read_progress

    progress = read_progress(connection, task_id)
    if progress is None:
        print_error(f"task {task_id} does not exist")
        raise typer.Exit(BAD_INPUT)
    return progress


def _clock(at: datetime) -> str:
    return f"{at:%H:%M:%S.%f}"[:-3]


def _brief(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value or "")
    return ", ".join(f"{key}={item}" for key, item in value.items() if key != "stack" and item is not None)

"""`collect-ops submit | status | watch | trace`: tasks from the shell."""

from __future__ import annotations

import getpass
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from collect_ops.cli.completion import complete_source

if TYPE_CHECKING:
    from datetime import datetime

    from collect_ops.admission.service import AdmissionService
    from collect_ops.storage import Connection
    from collect_ops.tasks.progress import Progress

#: Ends that `watch` and `submit --wait` report as success.
GOOD_ENDS = frozenset({"COMPLETED"})

_MANY = "Many from a file"

TaskId = Annotated[int, typer.Argument(help="Number of the collect task.", min=1)]
AnyTaskId = Annotated[
    str, typer.Argument(help="Number of the collect task, or the request id that it was submitted with.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of text.")]


def submit(
    source: Annotated[
        str,
        typer.Argument(help="Name of a source (`collect-ops source list`).", autocompletion=complete_source),
    ],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="A parameter, NAME=VALUE; may be repeated.")
    ] = None,
    path: Annotated[str | None, typer.Option(help="Instead of the source's path.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 10; else the source's.")] = None,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="Raise the priority, by 3 as shipped.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Admit even when an equal task is known.")] = False,
    deadline: Annotated[
        str | None, typer.Option(help="When the rows are needed at the latest: 2026-01-31T08:00:00Z.")
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="The same request id gets the first answer again; else a new one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be admitted, merged, refused.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Follow the task to its end.")] = False,
    params_file: Annotated[
        str | None,
        typer.Option(
            help="A task for each line of a CSV or NDJSON file of parameters; `-` is stdin.",
            rich_help_panel=_MANY,
        ),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="csv or ndjson; else by name.", rich_help_panel=_MANY)
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Admit the good lines though others are bad.", rich_help_panel=_MANY),
    ] = False,
    errors: Annotated[
        Path | None,
        typer.Option(
            help="Where bad lines are written, with their faults [FILE.errors.ndjson].", rich_help_panel=_MANY
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="Where each line's answer is written, with its task.", rich_help_panel=_MANY),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Submit a file once more that was submitted before.", rich_help_panel=_MANY
        ),
    ] = False,
    patience: Annotated[
        float,
        typer.Option(
            help="Seconds that services may be away, or the source slowed.", min=0, rich_help_panel=_MANY
        ),
    ] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Submit a collect task, or one for each line of a file.

    Exit status 2 for bad input, 3 for a duplicate; with --wait 1 unless it ends COMPLETED. Of a file every line is
    checked before the first is admitted; one that was cut off is gone on with by submitting it again.

    Examples: collect-ops submit flights -p carrier=AA --priority 9 --wait ·
    collect-ops submit flights --params-file days.csv
    """
    from collect_ops.admission.service import AdmissionService
    from collect_ops.cli.bulk import Options, job_of, submit_file
    from collect_ops.cli.output import print_error, print_json
    from collect_ops.cli.params import parse_params, parse_time
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rest_runs import RestRuns
    from collect_ops.lanes.rules import lane_rules

    common = {
        "source": source,
        "params": parse_params(param or []),
        "path": path,
        "priority": priority,
        "emergency": emergency,
        "force": force,
        "deadline": parse_time("--deadline", deadline),
        "submitted_by": f"cli:{getpass.getuser()}",
        "submitted_via": "cli",
    }
    of_files = {
        "--format": format_,
        "--errors": errors,
        "--answers": answers,
        "--skip-bad": skip_bad,
        "--again": again,
    }
    _refuse_mixed(params_file, of_files, {"--wait": wait, "--request-id": request_id and again})
    runs = None if dry_run else RestRuns.from_environment()
    service = AdmissionService(Backends.from_environment(), lane_rules(), runs)
    if params_file is not None:
        name = str(uuid.uuid4()) if again else request_id
        if again:
            print_error(f"should this be cut off, go on with: --request-id {name} (instead of --again)")
        options = Options(
            path=params_file,
            errors=errors,
            answers=answers,
            skip_bad=skip_bad,
            dry_run=dry_run,
            patience_s=patience,
            as_json=as_json,
        )
        submit_file(service, job_of(common, params_file, format_, name), options)
        return
    answer = _submit_one(
        service, {**common, "request_id": request_id or f"cli:{uuid.uuid4()}"}, dry_run=dry_run
    )
    if as_json:
        print_json(answer.model_dump(mode="json"))
    else:
        typer.echo(answer.sentence())
    if wait and not dry_run and answer.duplicate_of is None:
        watch(answer.task_id, as_json=as_json)
    if answer.duplicate_of is not None:
        raise typer.Exit(3)


def _submit_one(service: AdmissionService, fields: Mapping[str, Any], *, dry_run: bool) -> Any:
    from collect_ops.admission.model import Submission
    from collect_ops.kernel.errors import CollectOpsError

    submission = Submission(**fields)
    if not dry_run:
        return service.admit(submission)
    (answer,) = service.preview([submission])
    if isinstance(answer, CollectOpsError):
        raise answer
    return answer


def _refuse_mixed(
    params_file: str | None, of_files: Mapping[str, object], of_one: Mapping[str, object]
) -> None:
    from collect_ops.kernel.errors import Fault, ValidationFailed

    wrong, problem = (
        (of_files, "needs --params-file") if params_file is None else (of_one, "does not go with this")
    )
    faults = [Fault(field=name, value=None, problem=problem) for name, given in wrong.items() if given]
    if faults:
        raise ValidationFailed("command line", faults)


def status(task: AnyTaskId, as_json: AsJson = False) -> None:
    """Show where a task stands: progress, result, and how it came there."""
    from dataclasses import asdict

    from collect_ops.cli.output import print_json, print_table
    from collect_ops.storage import query

    with _database() as connection:
        task_id = _task_of(connection, task)
        progress = _progress(connection, task_id)
        log = connection.execute(query("tasks/select_log"), {"task_id": task_id}).fetchall()
        result = connection.execute(query("tasks/select_result"), {"task_id": task_id}).fetchone() or {}
    if as_json:
        print_json({**asdict(progress), "rows_in_target": progress.rows_in_target, **result, "log": log})
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
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object a line whenever something has changed.")
    ] = False,
) -> None:
    """Follow a task to its end. Exit status 0 when it is COMPLETED, else 1."""
    import sys

    with _database() as connection:
        progress = _progress(connection, task)
        drawn = sys.stdout.isatty() and not as_json
        show = _OneLine() if drawn else _lines(as_json=as_json)
        with show:
            while True:
                show(progress)
                if progress.status.final:
                    break
                time.sleep(interval)
                progress = _progress(connection, task)
    if str(progress.status) not in GOOD_ENDS:
        raise typer.Exit(1)


def _lines(*, as_json: bool) -> _Lines:
    return _Lines(_as_json_line, rows_every_s=0) if as_json else _Lines(line, rows_every_s=5)


class _Lines:
    """For pipes and logs: a line whenever something has changed.

    Args:
        text_of: What a line holds.
        rows_every_s: Seconds between two lines that tell of more rows alone; a log of a long task stays short.
    """

    def __init__(self, text_of: Callable[[Progress], str], *, rows_every_s: float) -> None:
        self._text_of, self._rows_every_s = text_of, rows_every_s
        self._state: tuple[object, ...] = ()
        self._rows, self._printed_at = -1, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, progress: Progress) -> None:
        state = (progress.status, progress.attempt, progress.shards_total, progress.shards_failed)
        rows = progress.rows_landed + progress.bad_rows + progress.rows_fetched
        quiet = time.monotonic() - self._printed_at < self._rows_every_s
        if state == self._state and (rows == self._rows or quiet):
            return
        typer.echo(self._text_of(progress))
        self._state, self._rows, self._printed_at = state, rows, time.monotonic()


class _OneLine:
    """For a screen: one line with a bar, drawn anew at each look; at the end the whole of it."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(auto_refresh=False, transient=True)
        self._last: Progress | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._last is not None:
            typer.echo(line(self._last))

    def __call__(self, progress: Progress) -> None:
        from rich.text import Text

        self._last = progress
        self._live.update(
            Text(f"{_bar(progress)}{line(progress)}", no_wrap=True, overflow="ellipsis"), refresh=True
        )


def _bar(progress: Progress) -> str:
    """Ten cells, as many of them full as there are tenths of the rows; nothing while the total is not known."""
    if not progress.total_rows:
        return ""
    full = min(10, 10 * (progress.rows_landed + progress.bad_rows) // progress.total_rows)
    return f"[{'#' * full}{'.' * (10 - full)}] "


def _as_json_line(progress: Progress) -> str:
    import json
    from dataclasses import asdict

    return json.dumps(asdict(progress), ensure_ascii=False, default=str)


def line(progress: Progress) -> str:
    """A task's progress in a line."""
    total = "?" if progress.total_rows is None else f"{progress.total_rows:,}"
    parts = [
        f"task {progress.task_id} {progress.source}: {progress.status}",
        f"{progress.rows_landed:,} of {total} rows landed{_where(progress)}",
        f"shards {progress.shards_done}/{progress.shards_total if progress.shards_total is not None else '?'}",
    ]
    if progress.rows_per_s is not None:
        parts.append(f"{progress.rows_per_s:,.0f} rows/s")
    if progress.elapsed_s is not None:
        parts.append(f"{progress.elapsed_s:.1f} s")
    if progress.remaining_s:
        parts.append(f"{progress.remaining_s:.0f} s to go")
    if progress.rows_fetched > progress.rows_landed + progress.bad_rows + progress.unchanged_rows:
        parts.append(f"{progress.rows_fetched:,} fetched")
    if progress.unchanged_pages:
        parts.append(f"{progress.unchanged_rows:,} rows unchanged ({progress.unchanged_pages:,} pages)")
    if progress.bad_rows:
        parts.append(f"{progress.bad_rows:,} bad rows")
    if progress.repeated_rows:
        parts.append(f"{progress.repeated_rows:,} rows fetched twice")
    elif progress.repeated_unknown and progress.rows_landed:
        parts.append("rows fetched twice: not counted")
    if progress.reason:
        parts.append(progress.reason)
    return " · ".join(parts)


def _where(progress: Progress) -> str:
    """Where the rows of a replacement stand; nothing for rows that stand in the target."""
    if not progress.replaces or not progress.rows_landed or progress.swap == "SWAPPED":
        return ""
    dropped = {
        "KEPT": " and dropped: the table keeps its old rows",
        "SUPERSEDED": " and dropped: a newer task has replaced the table",
    }
    if progress.swap in dropped:
        return dropped[progress.swap]
    return " aside, none of them in the table" + ("" if progress.status.final else " yet")


def _database() -> Connection:
    from collect_ops.kernel.backends import Backends
    from collect_ops.storage import connect

    return connect(Backends.from_environment().postgres_dsn, application_name="collect-ops cli")


def _task_of(connection: Connection, named: str) -> int:
    """The task that a number or a request id means."""
    from collect_ops.cli.output import BAD_INPUT, print_error

    if named.isascii() and named.isdigit() and len(named) < 19:
        return int(named)
    task_id = find_task(connection, named)
    if task_id is None:
        print_error(f"{named!r} is neither the number of a task nor a request id that is known")
        raise typer.Exit(BAD_INPUT)
    return task_id


def find_task(connection: Connection, named: str) -> int | None:
    """The task that a number or a request id means; None when there is none."""
    from collect_ops.storage import query
    from collect_ops.tasks.progress import read_progress

    if named.isascii() and named.isdigit() and len(named) < 19:
        return None if read_progress(connection, int(named)) is None else int(named)
    row = connection.execute(query("admission/select_answers"), {"request_ids": [named]}).fetchone()
    return None if row is None else row["task_id"]


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

"""`collect-ops dead …`: dead letters from the shell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from collect_ops.cli.completion import complete_source

if TYPE_CHECKING:
    from collect_ops.delivery.dead_letters import DeadLetters
    from collect_ops.delivery.dead_model import Done, RedriveProgress, Selection

app = typer.Typer(
    help="Dead letters: what failed for good, why, and what to do about it.", no_args_is_help=True
)

LetterIds = Annotated[
    list[int] | None,
    typer.Argument(metavar="[LETTER]…", help="Numbers of dead letters; none: those that the options choose."),
]
Group = Annotated[str | None, typer.Option("--group", "-g", help="Fingerprint of a group (`dead groups`).")]
Source = Annotated[str | None, typer.Option(help="Of this source.", autocompletion=complete_source)]
Task = Annotated[int | None, typer.Option(help="Of this collect task.")]
Text = Annotated[str | None, typer.Option(help="Holding this in the error or in a message's body.")]
Since = Annotated[str | None, typer.Option(help="Failed at this time or later: 2026-01-31T08:00:00Z.")]
Until = Annotated[str | None, typer.Option(help="Failed before this time.")]
State = Annotated[
    str | None, typer.Option(help="OPEN, REDRIVEN, SETTLED, FAILED or DISCARDED.", case_sensitive=False)
]
OfRedrive = Annotated[int | None, typer.Option("--redrive", help="Part of this redrive.")]
Limit = Annotated[int, typer.Option(help="How many at most.", min=1, max=10_000)]
Reason = Annotated[
    str, typer.Option("--reason", "-r", help="Why; kept with the letter and in the task's log.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of text.")]


@app.command("list")
def list_letters(
    letters: LetterIds = None,
    group: Group = None,
    source: Source = None,
    task: Task = None,
    text: Text = None,
    since: Since = None,
    until: Until = None,
    state: State = None,
    redrive: OfRedrive = None,
    limit: Limit = 50,
    before: Annotated[int | None, typer.Option(help="Only lower numbers: the next page.")] = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first; of every state unless one is named."""
    from collect_ops.cli.output import print_json, print_table

    selection = _selection(letters, group, source, task, text, since, until, state, redrive)
    rows = _service().search(selection, limit=limit, before=before)
    if as_json:
        print_json(rows)
        return
    cells = [
        (
            row["id"], row["state"], f"{row['failed_at']:%m-%d %H:%M:%S}", row["task_id"] or "message", row["source"],
            row["fingerprint"], row["error_message"],
        )
        for row in rows
    ]  # fmt: skip
    print_table("", ("letter", "state", "failed", "task", "source", "group", "error"), cells)
    if len(rows) == limit:
        typer.echo(f"more: --before {rows[-1]['id']}")


@app.command("groups")
def groups(
    group: Group = None,
    source: Source = None,
    task: Task = None,
    text: Text = None,
    since: Since = None,
    until: Until = None,
    state: State = None,
    redrive: OfRedrive = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """The same fault in a line: how often, since when, in which sources. Open letters unless a state is named."""
    from dataclasses import asdict

    from collect_ops.cli.output import print_json, print_table

    found = _service().groups(
        _selection(None, group, source, task, text, since, until, state, redrive), limit=limit
    )
    if as_json:
        print_json([asdict(each) for each in found])
        return
    cells = [
        (
            each.fingerprint, each.letters, f"{each.first_at:%m-%d %H:%M:%S}", f"{each.last_at:%m-%d %H:%M:%S}",
            ", ".join(each.sources), each.example_id, f"{each.error_class or ''} {each.pattern}".strip(),
        )
        for each in found
    ]  # fmt: skip
    print_table("", ("group", "letters", "first", "last", "sources", "newest", "fault"), cells)


@app.command("show")
def show(
    letter: Annotated[int, typer.Argument(help="Number of the dead letter.", min=1)], as_json: AsJson = False
) -> None:
    """Show one: the error, the message with headers and body, the task, its log and its trace."""
    from collect_ops.cli.output import print_json, print_table

    shown = _service().show(letter)
    if as_json:
        print_json(shown)
        return
    print_table(f"dead letter {letter}", ("", ""), _pairs(shown["letter"]))
    if shown["message"]:
        print_table("message", ("", ""), _pairs(shown["message"]))
    if shown["task"]:
        print_table(f"task {shown['task']['task_id']}", ("", ""), _pairs(shown["task"]))
        _print_rows("log", ("at", "from_status", "to_status", "attempt", "reason", "actor"), shown["log"])
        _print_rows("trace", ("at", "stage", "attempt", "shard_no", "rows", "bytes", "error"), shown["trace"])


@app.command("edit")
def edit(
    letter: Annotated[int, typer.Argument(help="Number of the dead letter.", min=1)],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="A parameter, NAME=VALUE; others stay.")
    ] = None,
    path: Annotated[str | None, typer.Option(help='Instead of the path; "" for the source\'s.')] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 10.")] = None,
    redeclare: Annotated[
        bool, typer.Option("--redeclare", help="Run by the source's declaration as it is now.")
    ] = False,
    body_file: Annotated[
        Path | None, typer.Option(help="Of a message without a task: what is sent instead.", exists=True)
    ] = None,
    exchange: Annotated[str | None, typer.Option(help="Of a message: where it is sent.")] = None,
    routing_key: Annotated[str | None, typer.Option(help="Of a message: with this key.")] = None,
    reason: Reason = "edited by hand",
    as_json: AsJson = False,
) -> None:
    """Change what is sent again; sends nothing. Validated like a submission: exit status 2 when it has faults."""
    from dataclasses import asdict

    from collect_ops.cli.output import print_json
    from collect_ops.cli.params import parse_params
    from collect_ops.delivery.dead_model import edit_of

    given = {
        "params": parse_params(param or []),
        "path": path,
        "priority": priority,
        "redeclare": redeclare,
        "body": None if body_file is None else body_file.read_text(encoding="utf-8"),
        "exchange": exchange,
        "routing_key": routing_key,
    }
    done = _service().edit(letter, edit_of(given), actor=_actor(), reason=reason)
    if as_json:
        print_json(asdict(done))
        return
    for name, value in done.after.items():
        typer.echo(f"{name}: {_cell(done.before.get(name))} -> {_cell(value)}")
    typer.echo(f"edited; to send it: collect-ops dead redrive {letter}")


@app.command("redrive")
def redrive_letters(
    letters: LetterIds = None,
    group: Group = None,
    source: Source = None,
    task: Task = None,
    text: Text = None,
    since: Since = None,
    until: Until = None,
    state: State = None,
    rate: Annotated[float | None, typer.Option(help="At most so many a second.", min=0.001)] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Write it down and leave it to the sweep.")
    ] = False,
    reason: Reason = "redriven by hand",
    as_json: AsJson = False,
) -> None:
    """Send dead letters again, open ones only. Exit status 1 when some were left, each with its reason."""
    from collect_ops.delivery import redrive
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules

    selection = _selection(letters, group, source, task, text, since, until, state, None)
    progress = _service().begin_redrive(selection, actor=_actor(), reason=reason, rate_per_s=rate)
    if not detach:
        backends, rules = Backends.from_environment(), lane_rules()
        with _Bar(progress, quiet=as_json) as bar:
            progress = redrive.drive(
                progress.id, backends, rules, actor=_actor(), wake=_wake, tell=bar.update
            )
    _report_redrive(progress, as_json=as_json)


@app.command("discard")
def discard(
    letters: LetterIds = None,
    group: Group = None,
    source: Source = None,
    task: Task = None,
    text: Text = None,
    since: Since = None,
    until: Until = None,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why nothing will be done; kept.")] = "",
    as_json: AsJson = False,
) -> None:
    """Close open dead letters, with a reason. Exit status 1 when some were left."""
    selection = _selection(letters, group, source, task, text, since, until, None, None)
    _report_done(_service().discard(selection, actor=_actor(), reason=reason), "discarded", as_json=as_json)


@app.command("take-back")
def take_back(
    letters: LetterIds = None,
    group: Group = None,
    source: Source = None,
    task: Task = None,
    state: State = None,
    redrive: OfRedrive = None,
    reason: Reason = "taken back by hand",
    as_json: AsJson = False,
) -> None:
    """Undo: what was redriven and nobody has claimed is dead again; what was discarded is open again."""
    selection = _selection(letters, group, source, task, None, None, None, state, redrive)
    _report_done(
        _service().take_back(selection, actor=_actor(), reason=reason), "open again", as_json=as_json
    )


@app.command("status")
def status(
    redrive: Annotated[int | None, typer.Argument(help="Number of a redrive; none: the last ones.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """How far redrives are, and what one has skipped and why."""
    from dataclasses import asdict

    from collect_ops.cli.output import print_json
    from collect_ops.delivery.redrive import list_redrives, progress_of, skipped_items

    backends = _backends()
    if redrive is None:
        found = list_redrives(backends, limit=limit)
        skipped: list[dict[str, Any]] = []
    else:
        found = [progress_of(redrive, backends)]
        skipped = skipped_items(redrive, backends, limit=limit)
    if as_json:
        print_json({"redrives": [asdict(each) for each in found], "skipped": skipped})
        return
    for each in found:
        typer.echo(f"{each.sentence()} · {each.requested_by} · {each.reason}")
    if skipped:
        _print_rows("skipped", ("dead_letter_id", "task_id", "answer"), skipped)


@app.command("cancel")
def cancel(
    redrive: Annotated[int, typer.Argument(help="Number of the redrive.", min=1)], as_json: AsJson = False
) -> None:
    """End a redrive: what it has not sent stays open; what it has sent, `dead take-back --redrive` takes back."""
    from collect_ops.delivery.redrive import cancel as cancel_redrive

    _print_progress(cancel_redrive(redrive, _backends(), actor=_actor()), as_json=as_json)


class _Bar:
    """A bar on a screen; nothing in a pipe."""

    def __init__(self, progress: RedriveProgress, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("redrive"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), disable=quiet,
        )  # fmt: skip
        self._task = self._bar.add_task("redrive", total=progress.total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, progress: RedriveProgress) -> None:
        """After a step."""
        self._bar.update(self._task, completed=progress.total - progress.pending)


def _selection(
    letters: Sequence[int] | None,
    group: str | None,
    source: str | None,
    task: int | None,
    text: str | None,
    since: str | None,
    until: str | None,
    state: str | None,
    redrive: int | None,
) -> Selection:
    from collect_ops.delivery.dead_model import selection_of

    return selection_of(
        {
            "ids": tuple(letters or ()),
            "fingerprint": group,
            "source": source,
            "task_id": task,
            "text": text,
            "since": since,
            "until": until,
            "state": state.upper() if state else None,
            "redrive_id": redrive,
        }
    )


def _service() -> DeadLetters:
    from collect_ops.delivery.dead_letters import DeadLetters
    from collect_ops.lanes.rules import lane_rules

    return DeadLetters(_backends(), lane_rules())


def _backends() -> Any:
    from collect_ops.kernel.backends import Backends

    return Backends.from_environment()


def _wake(lanes: Iterable[str]) -> None:
    import os

    from collect_ops.lanes.rest_runs import RestRuns
    from collect_ops.lanes.rules import lane_rules
    from collect_ops.lanes.waking import wake_waiting

    if os.environ.get("COLLECT_AIRFLOW_URL"):
        wake_waiting(lanes, _backends(), lane_rules(), RestRuns.from_environment())


def _actor() -> str:
    import getpass

    return f"cli:{getpass.getuser()}"


def _report_redrive(progress: RedriveProgress, *, as_json: bool) -> None:
    from collect_ops.cli.output import FAILED, print_error
    from collect_ops.delivery.redrive import skipped_items

    _print_progress(progress, as_json=as_json)
    if progress.skipped:
        for row in skipped_items(progress.id, _backends(), limit=20):
            print_error(f"left: dead letter {row['dead_letter_id']}: {row['answer']}")
        raise typer.Exit(FAILED)


def _print_progress(progress: RedriveProgress, *, as_json: bool) -> None:
    from dataclasses import asdict

    from collect_ops.cli.output import print_json

    if as_json:
        print_json(asdict(progress))
    else:
        typer.echo(progress.sentence())


def _report_done(done: Done, what: str, *, as_json: bool) -> None:
    from collect_ops.cli.output import FAILED, print_error, print_json

    if as_json:
        print_json({"moved": done.moved, "left": done.left})
    else:
        typer.echo(f"{what}: {len(done.moved)}")
    for letter_id, why in list(done.left.items())[:20]:
        print_error(f"left: dead letter {letter_id}: {why}")
    if done.left:
        raise typer.Exit(FAILED)


def _print_rows(title: str, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    from collect_ops.cli.output import print_table

    print_table(title, names, ([_cell(row[name]) for name in names] for row in rows))


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of name and value; a long value goes on in the next row."""
    from textwrap import wrap

    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if value in (None, "", [], {}):
            continue
        lines = [part for line in _cell(value).splitlines()[:40] for part in wrap(line, 78) or [""]]
        rows += [(name if place == 0 else "", part) for place, part in enumerate(lines or [""])]
    return rows


def _cell(value: Any) -> str:
    """A value as text: of an error its message, of JSON its text."""
    import orjson

    if isinstance(value, dict) and "message" in value and "class" in value:
        return f"{value['class']}: {value['message']}"
    if isinstance(value, dict | list):
        return orjson.dumps(value, default=str).decode()
    return "" if value is None else str(value)

"""`collect-ops source …`: declarations, checked and looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from collect_ops.cli.completion import complete_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from collect_ops.cli.online import Finding
    from collect_ops.kernel.errors import Fault, ValidationFailed
    from collect_ops.landing.migration import Migration
    from collect_ops.sources.file_defaults import ChangedReading
    from collect_ops.sources.model import Source

app = typer.Typer(
    help="Declared sources (include/sources/NAME.yaml): list, check, show, preview, migrate, pause, resume.",
    no_args_is_help=True,
)

SourceName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The source's name: its file without .yaml.", autocompletion=complete_source
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command("list")
def list_sources(as_json: AsJson = False) -> None:
    """List the declared sources; those with faults are named with them."""
    from collect_ops.cli.output import print_error, print_json, print_table
    from collect_ops.sources.load import load_sources

    loaded = load_sources()
    rows = [_summary(source) for source in loaded.sources.values()]
    if as_json:
        faulty = {str(path): _faults(failed) for path, failed in loaded.faults.items()}
        print_json({"sources": rows, "faulty": faulty})
        return
    headings = (
        "name",
        "schedule",
        "priority",
        "paging",
        "shards",
        "target",
        "disposition",
        "connection",
        "description",
    )
    print_table("", headings, [[row[heading] for heading in headings] for row in rows])
    for failed in loaded.faults.values():
        print_error(failed)


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME_OR_PATH]...", help="Names or paths of source files; all when none is given."
        ),
    ] = None,
    online: Annotated[
        bool,
        typer.Option(
            "--online", help="Also ask the source: connection, two pages, types, page size, total, the table."
        ),
    ] = False,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", metavar="NAME=VALUE", help="For --online: a parameter; may be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check declarations: every fault of every file, with what is allowed. Exits with 2 when there is one.

    A function that `shards.entry_point` names is imported; only --online calls it.

    Example: collect-ops source check flights --online -p carrier=AA
    """
    from collect_ops.cli.output import BAD_INPUT, print_json
    from collect_ops.cli.params import parse_params
    from collect_ops.kernel.errors import Fault, ValidationFailed

    if param and not online:
        raise ValidationFailed(
            "command line", [Fault(field="--param", value=param[0], problem="needs --online")]
        )
    params = parse_params(param or []) if online else None
    verdicts = [_check_file(path, params, as_json=as_json) for path in _paths(names)]
    if as_json:
        print_json(verdicts)
    if not all(verdict["ok"] for verdict in verdicts):
        raise typer.Exit(BAD_INPUT)


def _check_file(path: Path, params: Mapping[str, str] | None, *, as_json: bool) -> dict[str, Any]:
    """Check a file, and its source as well where parameters are given; prints what is found unless it is for JSON."""
    from dataclasses import asdict

    from collect_ops.cli.output import print_error
    from collect_ops.kernel.errors import ValidationFailed
    from collect_ops.sources.load import changed_readings_of, load_source
    from collect_ops.sources.loading_rules import warnings_of

    verdict: dict[str, Any] = {"file": str(path), "ok": False, "faults": [], "warnings": [], "changed": []}
    try:
        source = load_source(path)
        _check_entry_point(source)
    except ValidationFailed as failed:
        if not as_json:
            print_error(failed)
        return {**verdict, "faults": _faults(failed)}
    warnings, changed = warnings_of(source), changed_readings_of(path)
    if not as_json:
        typer.echo(f"ok  {path.stem}")
        for reading in changed:
            typer.echo(f"    {_told(reading)}")
        for each in warnings:
            print_error(f"warning: source file {path.name}: {each}")
    verdict |= {
        "ok": True,
        "warnings": _described(warnings),
        "changed": [asdict(reading) for reading in changed],
    }
    if params is None:
        return verdict
    findings = _check_online(source, params, as_json=as_json)
    return {
        **verdict,
        "ok": not any(each.state == "fault" for each in findings),
        "online": [asdict(each) for each in findings],
    }


def _told(reading: ChangedReading) -> str:
    keep = f"declare {'null' if reading.keep is None else reading.keep} to keep that"
    return f"{reading.field} is {reading.value} now; before 0.2.0 {reading.before} ({keep})"


def _check_online(source: Source, params: Mapping[str, str], *, as_json: bool) -> list[Finding]:
    """Ask the source, and print a line a check as it ends."""
    import asyncio

    from collect_ops.cli.online import check_online
    from collect_ops.cli.output import printable

    def show_finding(finding: Finding) -> None:
        typer.echo(f"  {finding.state:8} {finding.check:11} {printable(finding.text, 400)}")
        if finding.remedy is not None:
            typer.echo(f"{'':23}{printable(finding.remedy, 1_000)}")

    return asyncio.run(check_online(source, params, on_finding=None if as_json else show_finding))


@app.command()
def show(name: SourceName, as_json: AsJson = False) -> None:
    """Show a source with everything it leaves to defaults."""
    from collect_ops.cli.output import print_json
    from collect_ops.sources.load import get_source

    declaration = get_source(name).model_dump(mode="json")
    if as_json:
        print_json(declaration)
        return
    import yaml

    typer.echo(yaml.safe_dump(declaration, sort_keys=False, allow_unicode=True, width=110), nl=False)


@app.command()
def preview(
    name: SourceName,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter; may be repeated."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=1000, help="How many rows to show.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Fetch the first page, show its rows, and say what does not fit the declared types. Nothing is stored.

    The connection comes from the environment variable AIRFLOW_CONN_<CONNECTION> (Airflow's JSON form), else from the
    stack on this machine, when its secrets are yours to read; else from Airflow's REST API, which keeps passwords to
    itself: enough for a source without authentication.

    Example: collect-ops source preview flights -p carrier=AA --rows 5
    """
    import asyncio
    from dataclasses import asdict

    from collect_ops.cli import preview as previews
    from collect_ops.cli.output import print_error, print_json, print_table, printable
    from collect_ops.cli.params import parse_params
    from collect_ops.sources.load import get_source

    source = get_source(name)
    found = asyncio.run(previews.preview(source, parse_params(param or []), rows=rows))
    if as_json:
        print_json(
            {
                "source": source.name,
                "request": found.request,
                "received": found.received,
                "total": found.total,
                "records": found.records,
                "shards": found.shards,
                "shard": found.shard,
                "sharding": found.sharding,
                "misfits": None if found.misfits is None else [asdict(each) for each in found.misfits],
                "types_not_checked": found.untried,
            },
            as_spelled=True,
        )
        return
    headings, table = previews.cells(source, found.records)
    print_table("", headings, table)
    total = "" if found.total is None else f"; the source names {found.total:,} in all"
    where = "" if found.shard is None else f" of shard {found.shard}"
    typer.echo(f"{len(found.records)} of {found.received} rows of the first page{where}{total}")
    if found.sharding is not None:
        typer.echo(found.sharding)
    if found.misfits:
        bad = len({each.ordinal for each in found.misfits})
        typer.echo(f"{bad} of {found.received} rows would be bad rows:")
        for each in previews.misfit_lines(found.misfits):
            typer.echo(f"  {printable(each, 400)}")
    elif found.misfits is not None and found.received:
        typer.echo("every row fits the declared types")
    elif found.untried is not None:
        print_error(f"types were not checked: {found.untried}")


@app.command()
def migrate(
    name: SourceName,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be done, and whether it can be.")
    ] = False,
    rename: Annotated[
        bool,
        typer.Option(
            "--rename/--no-rename",
            help="Rename a column that is declared under another name; else add one and leave the old one.",
        ),
    ] = True,
    lock_timeout: Annotated[
        float, typer.Option(help="Seconds to wait for whoever uses the table; others wait behind.", min=0.1)
    ] = 5.0,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also when tasks under way were admitted with an earlier declaration."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Alter a source's table so that it fits its declaration: columns added, renamed, of another type, another key.

    One transaction. On a terminal it asks before it changes anything. Exit status 1 when it cannot be done: with the
    reason, and with nothing changed.

    Example: collect-ops source migrate flights --dry-run
    """
    from collect_ops.cli.output import FAILED, print_error
    from collect_ops.kernel.backends import Backends
    from collect_ops.landing.errors import MigrationRefused, TableBusy
    from collect_ops.landing.migration import apply_migration, bound_reason, plan_migration
    from collect_ops.sources.load import get_source
    from collect_ops.storage import connect

    source = get_source(name)
    dsn = Backends.from_environment().postgres_dsn
    with connect(dsn, application_name="collect-ops migrate") as connection:
        planned = plan_migration(connection, source, rename=rename)
        hindrance = planned.refusal
        if hindrance is None and planned.bound_tasks and not force:
            hindrance = bound_reason(planned.bound_tasks)
        if dry_run or planned.fits or hindrance is not None:
            _print_migration(planned, hindrance, as_json=as_json)
            if hindrance is not None:
                raise typer.Exit(FAILED)
            return
        if not as_json:
            _print_migration(planned, None, as_json=False)
        if not yes and _on_a_terminal() and not typer.confirm("Do it?", err=True):
            print_error("nothing was changed")
            raise typer.Exit(FAILED)
        try:
            done = apply_migration(
                connection, source, rename=rename, force=force, lock_timeout_s=lock_timeout
            )
        except (MigrationRefused, TableBusy) as error:
            if not as_json:
                raise
            _print_migration(planned, str(error), as_json=True)
            raise typer.Exit(FAILED) from error
    if as_json:
        _print_migration(done, None, as_json=True)
    else:
        typer.echo(f"landing.{done.table} fits its declaration now")


def _on_a_terminal() -> bool:
    import sys

    return sys.stdin.isatty() and sys.stdout.isatty()


def _print_migration(migration: Migration, hindrance: str | None, *, as_json: bool) -> None:
    from collect_ops.cli.output import print_error, print_json

    if as_json:
        print_json(
            {
                "table": f"landing.{migration.table}",
                "exists": migration.exists,
                "fits": migration.fits or migration.applied,
                "differences": [
                    {"part": each.part, "has": each.has, "declared": each.wants}
                    for each in migration.differences
                ],
                "statements": list(migration.statements),
                "rewrites": migration.rewrites,
                "bound_tasks": list(migration.bound_tasks),
                "applied": migration.applied,
                "refusal": hindrance,
            }
        )
        return
    if migration.fits:
        state = "fits its declaration" if migration.exists else "does not exist: the first task makes it"
        typer.echo(f"landing.{migration.table} {state}")
        return
    for each in migration.differences:
        typer.echo(f"-- {each}")
    for statement in migration.statements:
        typer.echo(f"{statement};")
    if migration.rewrites:
        print_error(
            "a column's type changes: all rows may be written anew, and nobody reads or writes meanwhile"
        )
    if hindrance is not None:
        print_error(f"cannot be done: {hindrance}")


@app.command()
def pause(name: SourceName) -> None:
    """Pause a source: its DAG starts no more runs (what is submitted by hand still runs)."""
    _set_paused(name, paused=True)


@app.command()
def resume(name: SourceName) -> None:
    """Resume a paused source."""
    _set_paused(name, paused=False)


def _set_paused(name: str, *, paused: bool) -> None:
    from collect_ops.lanes.rest_runs import RestRuns
    from collect_ops.sources.load import get_source

    source = get_source(name)
    RestRuns.from_environment().set_paused(f"source_{source.name}", paused=paused)
    typer.echo(f"{source.name}: {'paused' if paused else 'resumed'}")


def _check_entry_point(source: Source) -> None:
    """That the function is there which a source names; loading a declaration imports nothing.

    Raises:
        ValidationFailed: It is not.
    """
    from collect_ops.execution.entry_point import EntryPointFailed, load_entry_point
    from collect_ops.kernel.errors import Fault, ValidationFailed
    from collect_ops.sources.model import EntryPointShards

    rule = source.shards
    if not isinstance(rule, EntryPointShards):
        return
    try:
        load_entry_point(source.name, rule.entry_point)
    except EntryPointFailed as error:
        fault = Fault(field="shards.entry_point", value=rule.entry_point, problem=error.problem)
        raise ValidationFailed(f"source file {source.name}.yaml", [fault]) from error


def _summary(source: Source) -> dict[str, Any]:
    return {
        "name": source.name,
        "schedule": source.schedule,
        "priority": source.priority,
        "paging": source.paging.type,
        "shards": source.shards.by,
        "target": f"landing.{source.target.table}",
        "disposition": source.target.disposition.value,
        "connection": source.connection,
        "description": source.description,
    }


def _faults(failed: ValidationFailed) -> list[dict[str, Any]]:
    return _described(failed.faults)


def _described(faults: Iterable[Fault]) -> list[dict[str, Any]]:
    return [
        {"field": one.field, "value": one.value, "problem": one.problem, "allowed": list(one.allowed)}
        for one in faults
    ]


def _paths(names: list[str] | None) -> list[Any]:
    from pathlib import Path

    from collect_ops.sources.load import UnknownSource, source_files

    declared = {path.stem: path for path in source_files()}
    paths = []
    for name in names or declared:
        looks_like_path = name.endswith((".yaml", ".yml")) or "/" in name
        if not looks_like_path and name not in declared:
            raise UnknownSource(name, declared)
        paths.append(Path(name) if looks_like_path else declared[name])
    return paths

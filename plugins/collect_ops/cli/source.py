"""`collect-ops source …`: declarations, checked and looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from collect_ops.cli.completion import complete_source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collect_ops.kernel.errors import Fault, ValidationFailed
    from collect_ops.landing.migration import Migration
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
    as_json: AsJson = False,
) -> None:
    """Check declarations: every fault of every file, with what is allowed. Exits with 2 when there is one.

    A function that `shards.entry_point` names is imported, but not called.
    """
    from collect_ops.cli.output import BAD_INPUT, print_error, print_json
    from collect_ops.kernel.errors import ValidationFailed
    from collect_ops.sources.load import load_source
    from collect_ops.sources.loading_rules import warnings_of

    verdicts: dict[str, list[dict[str, Any]]] = {}
    warnings: dict[str, list[dict[str, Any]]] = {}
    for path in _paths(names):
        try:
            source = load_source(path)
            _check_entry_point(source)
        except ValidationFailed as failed:
            verdicts[str(path)] = _faults(failed)
            if not as_json:
                print_error(failed)
        else:
            verdicts[str(path)] = []
            found = warnings_of(source)
            warnings[str(path)] = _described(found)
            if not as_json:
                typer.echo(f"ok  {path.stem}")
                for each in found:
                    print_error(f"warning: source file {path.name}: {each}")
    if as_json:
        print_json(
            [
                {"file": path, "ok": not faults, "faults": faults, "warnings": warnings.get(path, [])}
                for path, faults in verdicts.items()
            ]
        )
    if any(verdicts.values()):
        raise typer.Exit(BAD_INPUT)


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
    """Fetch the first page and show its rows. Nothing is stored.

    The connection comes from the environment variable AIRFLOW_CONN_<CONNECTION> (Airflow's JSON form);
    without it from Airflow's REST API, which keeps passwords to itself: a source with authentication needs
    the variable.
    """
    import asyncio

    from collect_ops.cli import preview as previews
    from collect_ops.cli.output import print_json, print_table
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
            }
        )
        return
    headings, table = previews.cells(source, found.records)
    print_table("", headings, table)
    total = "" if found.total is None else f"; the source names {found.total:,} in all"
    where = "" if found.shard is None else f" of shard {found.shard}"
    typer.echo(f"{len(found.records)} of {found.received} rows of the first page{where}{total}")
    if found.sharding is not None:
        typer.echo(found.sharding)


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

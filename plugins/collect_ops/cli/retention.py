"""`collect-ops retention`: deletes what has ended and is not kept any longer, or shows what it would delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from collect_ops.cli.task import AsJson

if TYPE_CHECKING:
    from collect_ops.maintenance.retention_rules import RetentionRules


def retention(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be deleted; delete nothing.")
    ] = False,
    airflow: Annotated[
        bool,
        typer.Option(
            "--airflow",
            help="Airflow's own records instead: its metadata database and the logs on this machine. Needs the "
            "environment of Airflow's servers.",
        ),
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit", help="Seconds that it may take; the next pass goes on.", min=1, max=86_400
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete what has ended and is not kept any longer (include/rules/retention.yaml), as the DAG retention daily."""
    from collect_ops.cli.output import print_json
    from collect_ops.kernel.backends import Backends
    from collect_ops.maintenance.retention import run_once
    from collect_ops.maintenance.retention_rules import retention_rules

    rules = retention_rules().within(time_limit)
    if airflow:
        done, lines = _airflow(rules, dry_run=dry_run)
    else:
        counted = run_once(Backends.from_environment(), rules, dry_run=dry_run)
        done, lines = counted.as_json(), list(counted.lines())
    if as_json:
        print_json(done)
    else:
        for line in lines:
            typer.echo(line)
    if airflow and done["logs"]["failed"]:
        raise typer.Exit(1)


def _airflow(rules: RetentionRules, *, dry_run: bool) -> tuple[dict[str, Any], list[str]]:
    """The logs go first: they can be deleted without the database."""
    import os
    from pathlib import Path

    from collect_ops.maintenance.airflow_records import (
        LOGS_VARIABLE,
        LogsDeleted,
        clean_metadata,
        delete_logs,
    )

    folder = os.environ.get(LOGS_VARIABLE)
    logs = LogsDeleted() if not folder else delete_logs(Path(folder), rules.airflow.logs, dry_run=dry_run)
    written = clean_metadata(rules.airflow.metadata, dry_run=dry_run)
    verb = "would delete" if dry_run else "deleted"
    lines = [written.strip(), f"{verb} {logs.files:,} log files ({logs.size_bytes:,} bytes)"]
    if logs.failed:
        lines.append(f"{logs.failed:,} could not be deleted: {'; '.join(logs.failures)}")
    return {"dry_run": dry_run, "logs": logs.as_json(), "metadata": written.splitlines()}, lines

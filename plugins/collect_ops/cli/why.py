"""`collect-ops why`: what a task waits for."""

from __future__ import annotations

import typer

from collect_ops.cli.task import AsJson, TaskId


def why(task: TaskId, as_json: AsJson = False) -> None:
    """Say what a task waits for, and what is ahead of it. Exit status 2 for an unknown task."""
    from dataclasses import asdict

    from collect_ops.cli.output import BAD_INPUT, print_error, print_json
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules
    from collect_ops.lanes.why import UnknownTask
    from collect_ops.lanes.why import why as ask
    from collect_ops.storage import connect

    backends = Backends.from_environment()
    with connect(backends.postgres_dsn, application_name="collect-ops cli") as connection:
        try:
            told = ask(connection, lane_rules(), task, backends)
        except UnknownTask as error:
            print_error(error)
            raise typer.Exit(BAD_INPUT) from error
    if as_json:
        print_json(asdict(told))
        return
    typer.echo(f"task {told.task_id} is {told.status}")
    for sentence in told.sentences:
        typer.echo(f"  {sentence}")

"""`collect-ops why`: what a task waits for."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from collect_ops.cli.task import AsJson, TaskId


def why(task: TaskId, as_json: AsJson = False) -> None:
    """Say what a task waits for, and what is ahead of it. Exit status 2 for an unknown task."""
    from dataclasses import asdict

    from collect_ops.cli.output import BAD_INPUT, print_error, print_json
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules
    from collect_ops.lanes.why import UnknownTask, lane_of
    from collect_ops.lanes.why import why as ask
    from collect_ops.storage import connect

    backends = Backends.from_environment()
    with connect(backends.postgres_dsn, application_name="collect-ops cli") as connection:
        try:
            paused, unknown = _paused(lane_of(connection, task))
            told = ask(connection, lane_rules(), task, backends, paused)
        except UnknownTask as error:
            print_error(error)
            raise typer.Exit(BAD_INPUT) from error
    if as_json:
        print_json(
            {**asdict(told), "paused": None if paused is None else [dag for dag in paused if paused[dag]]}
        )
        return
    typer.echo(f"task {told.task_id} is {told.status}")
    for sentence in told.sentences:
        typer.echo(f"  {sentence}")
    if unknown and not told.status.final:
        typer.echo(f"  whether its DAGs are paused is not known: {unknown}")


def _paused(lane: str) -> tuple[Mapping[str, bool] | None, str]:
    """Which DAGs of a lane are paused; None, and why, where Airflow could not be asked."""
    import os

    from collect_ops.lanes.rest_runs import RestRuns
    from collect_ops.lanes.why import needed_dags
    from collect_ops.orchestrator.errors import AirflowUnavailable

    if not os.environ.get("COLLECT_AIRFLOW_URL"):
        return None, "COLLECT_AIRFLOW_URL is not set (`make env` prints it)"
    try:
        return RestRuns.from_environment().paused(needed_dags(lane)), ""
    except AirflowUnavailable as error:
        return None, str(error)

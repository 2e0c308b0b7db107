"""`collect-ops cancel | priority | topology | sweep`: what operators run by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collect_ops.delivery.intervene import Intervened

TaskIds = Annotated[list[int], typer.Argument(metavar="TASK…", help="Numbers of collect tasks.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the task's log.")]


def cancel(tasks: TaskIds, reason: Reason = "cancelled by hand") -> None:
    """Cancel tasks: nothing of them lands any more. Exit status 1 when one of them was left as it is."""
    from collect_ops.delivery import intervene
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules

    backends = Backends.from_environment()
    _report(intervene.cancel(tasks, backends, lane_rules(), actor=_actor(), reason=reason), "cancelled")


def priority(
    tasks: TaskIds,
    to: Annotated[int, typer.Option("--to", help="The new priority, 0 to 10.")],
    reason: Reason = "changed by hand",
) -> None:
    """Give waiting tasks another priority. Exit status 1 when one of them was left as it is."""
    from collect_ops.delivery import intervene
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules

    done = intervene.adjust_priority(
        tasks, to, Backends.from_environment(), lane_rules(), actor=_actor(), reason=reason
    )
    _report(done, f"now of priority {to}")


def _report(done: Intervened, what: str) -> None:
    import os

    from collect_ops.cli.output import FAILED, print_error
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rest_runs import RestRuns
    from collect_ops.lanes.rules import lane_rules
    from collect_ops.lanes.waking import wake_waiting

    if done.moved:
        typer.echo(f"{what}: {', '.join(map(str, done.moved))}")
    if done.lanes and os.environ.get("COLLECT_AIRFLOW_URL"):
        wake_waiting(done.lanes, Backends.from_environment(), lane_rules(), RestRuns.from_environment())
    if done.left:
        print_error(f"left as they are (unknown, ended or under way): {', '.join(map(str, done.left))}")
        raise typer.Exit(FAILED)


def _actor() -> str:
    import getpass

    return f"cli:{getpass.getuser()}"


def topology() -> None:
    """Declare the exchanges, queues and bindings of RabbitMQ; what is there already stays as it is."""
    from collect_ops.broker.topology import declare
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules

    wanted = lane_rules().topology()
    declare(Backends.from_environment().amqp_url, wanted)
    typer.echo(
        f"declared: {len(wanted.exchanges)} exchanges, {len(wanted.queues)} queues, {len(wanted.bindings)} bindings"
    )


def sweep() -> None:
    """Run the sweep once: outbox, repair, wake-ups. The DAG collect_sweep does it every minute."""
    from collect_ops.cli.output import print_json
    from collect_ops.delivery.sweep import sweep as sweep_once
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rest_runs import RestRuns
    from collect_ops.lanes.rules import lane_rules

    runs = RestRuns.from_environment()
    done = sweep_once(Backends.from_environment(), lane_rules(), runs, actor=_actor())
    print_json(done.as_counts())

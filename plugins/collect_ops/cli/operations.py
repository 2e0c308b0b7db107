"""`collect-ops topology | sweep`: what operators run by hand."""

from __future__ import annotations

import typer


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
    import getpass

    from collect_ops.cli.output import print_json
    from collect_ops.delivery.sweep import sweep as sweep_once
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rest_runs import RestRuns
    from collect_ops.lanes.rules import lane_rules

    runs = RestRuns.from_environment()
    done = sweep_once(Backends.from_environment(), lane_rules(), runs, actor=f"cli:{getpass.getuser()}")
    print_json(done.as_counts())

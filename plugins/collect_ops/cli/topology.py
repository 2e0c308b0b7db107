"""`collect-ops topology`: exchanges, queues and bindings of RabbitMQ."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from collect_ops.cli.task import AsJson

if TYPE_CHECKING:
    from collect_ops.broker.migration import Progress
    from collect_ops.broker.topology import Topology
    from collect_ops.kernel.backends import Backends


def topology(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; say what is missing or different.")
    ] = False,
    migrate: Annotated[
        bool,
        typer.Option("--migrate", help="Make anew what exists with other arguments; its messages are kept."),
    ] = False,
    wait: Annotated[
        float,
        typer.Option(help="With --migrate: seconds that consumers may take for what they hold.", min=0),
    ] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Declare the exchanges, queues and bindings of RabbitMQ; what is there already stays as it is.

    A queue whose arguments were changed in include/rules/lanes.yaml is refused by RabbitMQ. --check shows it (exit
    status 1), --migrate moves its messages aside, makes it anew and moves them back, while the stack runs. When it is
    killed, run it again: it goes on where it was.

    Example: collect-ops topology --check || collect-ops topology --migrate
    """
    from collect_ops.broker.topology import declare
    from collect_ops.cli.output import BAD_INPUT, print_error, print_json
    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules

    if check and migrate:
        print_error("--check and --migrate exclude each other")
        raise typer.Exit(BAD_INPUT)
    backends, wanted = Backends.from_environment(), lane_rules().topology()
    if check:
        _check(backends, wanted, as_json=as_json)
        return
    if migrate:
        anew = _migrate(backends, wanted, wait_s=wait, as_json=as_json)
    else:
        declare(backends.amqp_url, wanted)
        anew = []
    counts = {name: len(getattr(wanted, name)) for name in ("exchanges", "queues", "bindings")}
    if as_json:
        print_json({**counts, "made_anew": anew})
        return
    typer.echo("declared: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    if migrate:
        typer.echo(f"made anew: {', '.join(anew) or 'nothing'}")


def _check(backends: Backends, wanted: Topology, *, as_json: bool) -> None:
    from dataclasses import asdict

    from collect_ops.broker.migration import State, check
    from collect_ops.cli.output import FAILED, print_error, print_json, print_table

    found = check(backends.amqp_url, wanted)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        rows = [(each.kind, each.name, each.messages, each.state) for each in found]
        print_table("", ("kind", "name", "messages", "state"), rows)
        for each in found:
            if each.detail:
                print_error(f"{each.kind} {each.name}: {each.detail}")
    states = {each.state for each in found}
    if states & {State.DIFFERENT, State.MIGRATING}:
        print_error("run: collect-ops topology --migrate")
    elif State.MISSING in states:
        print_error("run: collect-ops topology")
    if states != {State.AS_WANTED}:
        raise typer.Exit(FAILED)


def _migrate(backends: Backends, wanted: Topology, *, wait_s: float, as_json: bool) -> list[str]:
    from collect_ops.broker.migration import migrate

    return migrate(
        backends.amqp_url,
        backends.rabbitmq_api_url,
        wanted,
        tell=_Lines() if not as_json else None,
        wait_s=wait_s,
    )


class _Lines:
    """A line a step; while messages are moved, at most one a second."""

    def __init__(self) -> None:
        self._step: tuple[str, str] | None = None
        self._told_at = 0.0

    def __call__(self, progress: Progress) -> None:
        step, now = (progress.name, str(progress.step)), time.monotonic()
        if step == self._step and progress.waiting and now - self._told_at < 1:
            return
        self._step, self._told_at = step, now
        moving = progress.moved or progress.waiting
        figures = f": {progress.moved:,} moved, {progress.waiting:,} to go" if moving else ""
        typer.echo(f"{progress.name}: {progress.step}{figures}")

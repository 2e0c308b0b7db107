"""`collect-ops agent | nodes`: machines that run workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collect_ops.cli.task import AsJson

if TYPE_CHECKING:
    from collect_ops.nodes.agent import NodeIdentity
    from collect_ops.nodes.heartbeat import Heartbeat


# What a node is, for `agent` and `worker` alike.
NodeId = Annotated[
    str | None,
    typer.Option(
        "--node-id", envvar="COLLECT_NODE_ID", help="Id of this node; else one made of the machine's id."
    ),
]
Slots = Annotated[
    int,
    typer.Option(envvar="COLLECT_NODE_SLOTS", help="Shard groups that it runs at once.", min=1, max=1_000),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", help="What placement can ask for, NAME=VALUE; may be repeated."),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", help="A kind of source that it collects from, http unless said; may be repeated."),
]


def agent(
    node_id: NodeId = None,
    slots: Slots = 8,
    label: Labels = None,
    kind: Kinds = None,
    path: Annotated[
        str, typer.Option(envvar="COLLECT_NODE_PATH", help="On the file system that workers write to.")
    ] = "/",
    every: Annotated[
        float | None,
        typer.Option(envvar="COLLECT_NODE_HEARTBEAT_S", help="Seconds between heartbeats.", min=0.1),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Each heartbeat on stdout, a line each.")] = False,
) -> None:
    """Say that this machine lives and how it does, until SIGTERM or SIGINT. Runs beside a worker.

    Old logs in the folder AIRFLOW__LOGGING__BASE_LOG_FOLDER are deleted once a day (rules/retention.yaml).
    SIGUSR1 drains the node: it takes no new work until the agent is started anew.

    Example: collect-ops agent --label region=eu --slots 4
    """
    import os
    import signal
    import threading

    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules
    from collect_ops.maintenance.node_logs import NodeLogs
    from collect_ops.nodes.agent import Agent
    from collect_ops.nodes.rules import placement_rules

    node = identity(node_id, slots, label, kind, path=path)
    running = Agent(
        node,
        Backends.from_environment(),
        placement_rules(),
        exchange=lane_rules().broker.heartbeats,
        every_s=every,
    )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    signal.signal(signal.SIGUSR1, lambda *_: setattr(running, "draining", True))
    if not as_json:
        typer.echo(f"node {node.node_id}: a heartbeat every {running.every_s:g} s")
    if (logs := NodeLogs.of(os.environ)) is not None:
        logs.start(stopping)
    running.run(stopping, beat=_told if as_json else None)


app = typer.Typer(
    invoke_without_command=True,
    help="Show the nodes, drain one, or let it take work again.",
    no_args_is_help=False,
)
NodeArgument = Annotated[str, typer.Argument(help="Id of the node, as collect-ops nodes shows it.")]


@app.callback()
def nodes(
    context: typer.Context,
    state: Annotated[
        list[str] | None, typer.Option("--state", "-s", help="Nodes in this state; may be repeated.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", help="Nodes with this label, NAME or NAME=VALUE; all that are given."),
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="Nodes with this in id, name, address or reason, in capitals or not.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the nodes: state, load, shard groups, how old their last heartbeat is. Exit status 2 for bad input.

    Example: collect-ops nodes --state lost --state suspect --label region=eu
    """
    if context.invoked_subcommand is not None:
        return
    from collect_ops.cli.output import print_json, print_table
    from collect_ops.kernel.backends import Backends
    from collect_ops.nodes.listing import filter_of, summary
    from collect_ops.storage import connect, query

    wanted = filter_of(states=state or (), labels=label or (), search=search)
    with connect(Backends.from_environment().postgres_dsn, application_name="collect-ops cli") as connection:
        rows = connection.execute(query("nodes/select_nodes")).fetchall()
    matching = [row for row in rows if wanted.matches(row)]
    if as_json:
        print_json(matching)
        return
    headings = ("node", "name", "address", "state", "why", "cpu", "memory", "disk", "groups", "skew", "heard")
    if matching:
        spare = ("skew", "disk", "address", "name", "memory", "cpu")
        print_table("", headings, [_row(row) for row in matching], spare=spare)
    typer.echo(summary(matching, of=len(rows)))


@app.command("drain")
def drain(
    node: NodeArgument,
    within: Annotated[
        float | None,
        typer.Option(help="Seconds to wait until it is empty; rules/placement.yaml says how many.", min=0),
    ] = None,
) -> None:
    """Give a node no new work, and have what runs on it finish its page and hand back the rest to other nodes.

    It stays so until its agent is started anew, or `collect-ops nodes resume`. Exit status 1 when it is not empty in
    time, 2 for an unknown node.
    """
    from collect_ops.cli.output import FAILED
    from collect_ops.kernel.backends import Backends
    from collect_ops.nodes import draining
    from collect_ops.nodes.rules import placement_rules

    backends = Backends.from_environment()
    within_s = placement_rules().dispatch.drain_within_s if within is None else within
    draining.drain(backends, node, within_s=within_s)
    told = -1

    def tell(groups: int) -> None:
        nonlocal told
        if groups != told:
            typer.echo(f"node {node}: {groups} shard groups")
            told = groups

    if draining.wait_until_empty(backends, node, timeout_s=within_s, on_look=tell):
        raise typer.Exit(FAILED)


@app.command("resume")
def resume(node: NodeArgument) -> None:
    """Let a node that was drained take work again. Exit status 2 for an unknown node."""
    from collect_ops.kernel.backends import Backends
    from collect_ops.nodes import draining

    draining.resume(Backends.from_environment(), node)
    typer.echo(f"node {node} takes work again")


def _row(row: dict[str, Any]) -> Sequence[object]:
    skew_s = row["clock_skew_s"]
    return (
        row["id"],
        row["name"],
        row["address"],
        row["status"],
        row["status_reason"],
        f"{row['cpu_percent']:.0f}%",
        f"{row['memory_percent']:.0f}%",
        f"{row['disk_percent']:.0f}%",
        f"{row['groups']}/{row['slots']}",
        "" if skew_s is None else f"{round(skew_s, 2) + 0.0:+.2f} s",  # no "-0.00"
        f"{row['heartbeat_age_s']:.0f} s ago",
    )


def _told(heartbeat: Heartbeat, published: bool) -> None:
    import json

    typer.echo(json.dumps({**heartbeat.model_dump(mode="json", by_alias=True), "published": published}))


def identity(
    node_id: str | None, slots: int, labels: Sequence[str] | None, kinds: Sequence[str] | None, *, path: str
) -> NodeIdentity:
    """What a node is, of the options above.

    Args:
        node_id: Its id; None for one made of the machine's.
        slots: Shard groups that it runs at once.
        labels: `NAME=VALUE` each.
        kinds: Kinds of sources that it collects from.
        path: On the file system that its workers write to.

    Raises:
        ValidationFailed: It cannot be that.
    """
    import re
    import socket

    from collect_ops.cli.params import parse_params
    from collect_ops.kernel.code import version_with_code
    from collect_ops.kernel.errors import Fault, ValidationFailed
    from collect_ops.nodes.agent import NodeIdentity
    from collect_ops.nodes.heartbeat import NODE_ID
    from collect_ops.nodes.machine import node_id_of

    own = node_id_of(node_id)
    if not re.match(NODE_ID, own):
        problem = "must be small letters, digits, dots, dashes and underscores, 63 at most"
        raise ValidationFailed("command line", [Fault(field="--node-id", value=own, problem=problem)])
    return NodeIdentity(
        node_id=own,
        name=socket.gethostname(),
        version=version_with_code(),
        slots=slots,
        labels=parse_params(labels or [], option="--label"),
        kinds=tuple(kinds or ["http"]),
        path=path,
    )

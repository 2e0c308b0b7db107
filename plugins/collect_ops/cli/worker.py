"""`collect-ops worker`: a node in one foreground command, on the stack's machine or on another one."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collect_ops.cli.nodes import Kinds, Labels, NodeId, Slots, identity

if TYPE_CHECKING:
    from collect_ops.nodes.agent import NodeIdentity

#: Beside a node's shard groups: tasks of source DAGs and of your own, which go to the queue `default`.
OTHER_TASKS = 2


def worker(
    join: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="What `make join` printed on the stack's machine; `-` reads stdin. Without it the environment says "
            "where the services are.",
        ),
    ] = None,
    node_id: NodeId = None,
    slots: Slots = 8,
    label: Labels = None,
    kind: Kinds = None,
    folder: Annotated[
        Path,
        typer.Option(envvar="COLLECT_NODE_FOLDER", help="Its own folder: logs, temporary files."),
    ] = Path("node"),
    grace: Annotated[
        float, typer.Option(help="Seconds that running tasks get once it shall end.", min=0)
    ] = 60.0,
    serve_logs: Annotated[
        bool,
        typer.Option("--serve-logs", help="Let the web interface read task logs from here (port 8793)."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only see whether versions fit and services answer.")
    ] = False,
) -> None:
    """Run this machine as a node: its agent and a Celery worker for its queue, until SIGTERM or SIGINT.

    SIGTERM: the node says that it takes no new work, what runs gets --grace seconds, the rest is ended and taken on
    by others, the node says goodbye. SIGUSR1 drains it without ending it.

    Example: collect-ops worker --join join.env --label region=eu --slots 4
    """
    from collect_ops.nodes.join import check_services

    joined = _join(join) if join is not None else {}
    node = identity(_id_of(node_id, joined), slots, label, kind, path=str(folder.resolve() / "tmp"))
    variables = {**os.environ, **joined, **_own_settings(folder.resolve(), node.node_id)}
    check_services(variables)
    if check:
        typer.echo(f"node {node.node_id} can join")
        return
    raise typer.Exit(_run(node, variables, folder.resolve(), grace, serve_logs=serve_logs))


def _join(source: str) -> Mapping[str, str]:
    """The variables of a join file whose versions are those of this machine."""
    from collect_ops.kernel.errors import Fault, ValidationFailed
    from collect_ops.nodes.join import JoinFile

    if source == "-":
        text = sys.stdin.read()
    else:
        path = Path(source)
        if not path.is_file():
            raise ValidationFailed(
                "command line", [Fault(field="--join", value=source, problem="is no file")]
            )
        if path.stat().st_mode & 0o077:
            problem = "holds passwords and can be read by others: chmod 600"
            raise ValidationFailed("command line", [Fault(field="--join", value=source, problem=problem)])
        text = path.read_text(encoding="utf-8")
    file = JoinFile.parse(text)
    file.check_versions()
    return file.variables


def _id_of(node_id: str | None, joined: Mapping[str, str]) -> str | None:
    """The node's id: what is given, or what the join file was made for, whose credentials are that node's alone."""
    from collect_ops.kernel.errors import Fault, ValidationFailed

    own = joined.get("COLLECT_NODE_ID")
    if own and node_id and own != node_id:
        problem = f"the join file was made for node {own} (make join N={node_id} makes another)"
        raise ValidationFailed("command line", [Fault(field="--node-id", value=node_id, problem=problem)])
    return node_id or own


def _own_settings(folder: Path, node_id: str) -> dict[str, str]:
    """What is this machine's own: folders, and the code beside this package."""
    from collect_ops.kernel.paths import include_dir

    checkout = include_dir().parent
    return {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(checkout / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(checkout / "plugins"),
        "AIRFLOW__DAG_PROCESSOR__STALE_BUNDLE_CLEANUP_INTERVAL": "0",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "COLLECT_NODE_ID": node_id,
        "COLLECT_NODE_PATH": str(folder / "tmp"),
        "PYTHONPATH": f"{checkout / 'plugins'}:{checkout / 'config'}",
        "TMPDIR": str(folder / "tmp"),
    }


def _run(
    node: NodeIdentity, variables: Mapping[str, str], folder: Path, grace_s: float, *, serve_logs: bool
) -> int:
    import signal
    import threading

    from collect_ops.kernel.backends import Backends
    from collect_ops.lanes.rules import lane_rules
    from collect_ops.maintenance.node_logs import NodeLogs
    from collect_ops.nodes.agent import Agent
    from collect_ops.nodes.draining import hand_back
    from collect_ops.nodes.queues import node_queue
    from collect_ops.nodes.rules import placement_rules
    from collect_ops.nodes.worker import NodeWorker

    for name in ("airflow", "logs", "tmp"):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    backends = Backends.from_environment(variables)
    agent = Agent(node, backends, placement_rules(), exchange=lane_rules().broker.heartbeats)
    pid_file = folder / "worker.pid"
    pid_file.unlink(missing_ok=True)
    command = [
        str(Path(sys.executable).with_name("airflow")), "celery", "worker",
        "-q", f"default,{node_queue(node.node_id)}", "-H", f"{node.node_id}@%h",
        "-c", str(node.slots + OTHER_TASKS), "--pid", str(pid_file),
        "--without-mingle", "--without-gossip", *([] if serve_logs else ["--skip-serve-logs"]),
    ]  # fmt: skip
    running = NodeWorker(
        agent=agent,
        command=command,
        environment=variables,
        folder=folder,
        amqp_url=backends.amqp_url,
        grace_s=grace_s,
        before_stop=lambda: hand_back(backends, node.node_id, within_s=grace_s),
    )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    signal.signal(signal.SIGUSR1, lambda *_: setattr(agent, "draining", True))
    typer.echo(f"node {node.node_id}: {node.slots} slots, a heartbeat every {agent.every_s:g} s")
    if (logs := NodeLogs.of(variables)) is not None:
        logs.start(stopping)
    return running.run(stopping)

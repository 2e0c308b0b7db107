"""Is a service really well? Each is asked a question that only a working one can answer."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from collect_ops.nodes.queues import node_queue
from stack import agent, postgres, supervisor, workers
from stack.faults import NotHealthy
from stack.layout import Layout
from stack.programs import Program
from stack.settings import HOST, Stack

TIMEOUT_S = 3.0
# Scheduler, triggerer and dag-processor send one every 5 s; six missed ones are no hiccup.
HEARTBEAT_S = 30.0
# The watchdog looks every 5 s; services that do not answer take 3 s each.
WATCHDOG_S = 60.0
HEARTBEAT = """
SELECT extract(epoch FROM latest_heartbeat), extract(epoch FROM now() - latest_heartbeat), state
FROM job WHERE job_type = %s ORDER BY latest_heartbeat DESC LIMIT 1
"""
JOBS = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}


class Unwell(Exception):
    """A probe's answer is not the one of a healthy service; the message says what it was."""


def probe_postgres(stack: Stack) -> None:
    """Both databases answer a query (once they were made)."""
    with postgres.connect(stack) as connection:
        connection.execute("SELECT 1")


def probe_redis(stack: Stack) -> None:
    """PING is answered after authentication, and loading from disk is over."""
    answer = _ask_redis(stack, "PING")
    if answer != "+PONG":
        raise Unwell(f"PING was answered {answer!r}")


def probe_agent(stack: Stack, node_id: str | None = None) -> None:
    """The liveness key of a node (of this machine, when none is named) is there."""
    if _ask_redis(stack, f"EXISTS {agent.liveness_key(node_id)}") != ":1":
        raise Unwell("the node's liveness key is not there")


def _ask_redis(stack: Stack, command: str) -> str:
    """The answer to an inline command, in one line; to AUTH, when that is refused."""
    with socket.create_connection((HOST, stack.ports.redis), timeout=TIMEOUT_S) as link:
        link.sendall(f"AUTH {stack.secrets['REDIS_PASSWORD']}\r\n{command}\r\n".encode())
        answer = b""
        while answer.count(b"\r\n") < 2:
            received = link.recv(4096)
            if not received:
                break
            answer += received
    authenticated, _, told = answer.decode(errors="replace").strip().partition("\r\n")
    return told if authenticated == "+OK" else authenticated


def probe_epmd(stack: Stack) -> None:
    """The list of names is given out (protocol: length 1, request `n`)."""
    with socket.create_connection((HOST, stack.ports.epmd), timeout=TIMEOUT_S) as link:
        link.sendall(b"\x00\x01n")
        if int.from_bytes(link.recv(4), "big") != stack.ports.epmd:
            raise Unwell("the answer does not name epmd's own port")


def probe_rabbitmq(stack: Stack) -> None:
    """Our user may enter our virtual host over the management API, no alarm is raised, and AMQP is spoken."""
    places = stack.places
    login = f"{places['RABBITMQ_USER']}:{places['RABBITMQ_PASSWORD']}"
    for path in (f"/api/vhosts/{places['RABBITMQ_VHOST']}", "/api/health/checks/local-alarms"):
        status, body = _get(stack.ports.rabbitmq_management, path, login)
        if status != 200:
            raise Unwell(f"management {path} answered {status}: {body[:200]}")
    with socket.create_connection((HOST, stack.ports.rabbitmq), timeout=TIMEOUT_S) as link:
        link.sendall(b"AMQP\x00\x00\x09\x01")
        if link.recv(1) != b"\x01":  # a method frame: Connection.Start
            raise Unwell("AMQP 0-9-1 is not spoken")


def probe_api_server(stack: Stack) -> None:
    """The monitor answers and reaches the metadata database."""
    status, body = _get(stack.ports.api_server, "/api/v2/monitor/health", None)
    if status != 200:
        raise Unwell(f"/api/v2/monitor/health answered {status}")
    database = json.loads(body)["metadatabase"]["status"]
    if database != "healthy":
        raise Unwell(f"its metadata database is {database}")


def _get(port: int, path: str, login: str | None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def probe_heartbeat(stack: Stack, program: str, started: float) -> None:
    """The job's heartbeat in the metadata database is fresh, and not an earlier process's.

    A scheduler sends it from its loop: one that ended its loop, or is stuck in it, sends none though its process lives.

    Args:
        stack: The stack.
        program: scheduler, dag-processor or triggerer.
        started: When the present process started, seconds since the epoch.
    """
    with postgres.connect(stack, stack.places["POSTGRES_AIRFLOW_DB"]) as connection:
        row = connection.execute(HEARTBEAT, [JOBS[program]]).fetchone()
    if row is None or row[0] is None:
        raise Unwell("no heartbeat yet")
    if float(row[0]) < started:
        raise Unwell("no heartbeat since its start")
    if row[2] != "running":
        raise Unwell(f"its process lives, but its job has ended as {row[2]}")
    if float(row[1]) > HEARTBEAT_S:
        raise Unwell(f"last heartbeat {float(row[1]):.0f} s ago")


def probe_worker(stack: Stack, queue: str) -> None:
    """RabbitMQ has a consumer of the worker's queue. `celery inspect ping` would say the same and take a second."""
    places = stack.places
    login = f"{places['RABBITMQ_USER']}:{places['RABBITMQ_PASSWORD']}"
    path = f"/api/queues/{places['RABBITMQ_CELERY_VHOST']}/{queue}"
    status, body = _get(stack.ports.rabbitmq_management, path, login)
    if status != 200:
        raise Unwell(f"queue {queue} is not there yet" if status == 404 else f"management answered {status}")
    if not json.loads(body).get("consumers"):
        raise Unwell(f"nobody consumes from queue {queue}")


def probe_watchdog(stack: Stack, started: float) -> None:
    """It has had a look since its start, and not long ago."""
    try:
        looked_at = watchdog_mark(stack.layout).stat().st_mtime
    except FileNotFoundError:
        looked_at = 0.0
    if looked_at < started:
        raise Unwell("no look since its start")
    if time.time() - looked_at > WATCHDOG_S:
        raise Unwell(f"last look {time.time() - looked_at:.0f} s ago")


def watchdog_mark(layout: Layout) -> Path:
    """The file that the watchdog touches at each look."""
    return layout.run / "watchdog.looked"


def probe_relay(stack: Stack, program: Program) -> None:
    """Its address takes a connection."""
    (address,), port = program.listens(stack), program.port(stack)
    socket.create_connection((address, port or 0), timeout=TIMEOUT_S).close()


PROBES: dict[str, Callable[[Stack], None]] = {
    "postgres": probe_postgres,
    "redis": probe_redis,
    "epmd": probe_epmd,
    "rabbitmq": probe_rabbitmq,
    "api-server": probe_api_server,
    "agent": probe_agent,
}


def illness(stack: Stack, program: Program, state: supervisor.ProcessState) -> str | None:
    """What is wrong with a service, or None when it is healthy.

    Args:
        stack: The stack.
        program: The service.
        state: What supervisord says about it.
    """
    if state.pid == 0:
        return state.state.lower()
    return question(stack, program, float(state.since))


def question(stack: Stack, program: Program, started: float) -> str | None:
    """Ask the service itself; its complaint, or None."""
    try:
        _probe(stack, program, started)
    except (Unwell, OSError, http.client.HTTPException, psycopg.Error, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    return None


def _probe(stack: Stack, program: Program, started: float) -> None:
    kind = program.name.partition("-")[0]
    if program.name in JOBS:
        probe_heartbeat(stack, program.name, started)
    elif program.name in PROBES:
        PROBES[program.name](stack)
    elif kind == "relay":
        probe_relay(stack, program)
    elif kind == "agent":
        probe_agent(stack, program.node_id)
    elif program.name == "worker":
        for pool in workers.local_pools():
            for queue in pool.queues.split(","):
                probe_worker(stack, queue)
    elif kind == "watchdog":
        probe_watchdog(stack, started)
    else:
        probe_worker(stack, node_queue(program.node_id) if program.node_id else workers.CONTROL_QUEUE)


def wait_until_healthy(
    stack: Stack, program: Program, *, timeout_s: float, tick: Callable[[], None] = lambda: None
) -> float:
    """Wait for a service, without asking supervisord.

    Args:
        stack: The stack.
        program: The service.
        timeout_s: Seconds to wait at most.
        tick: Called between two probes.

    Returns:
        Seconds waited.

    Raises:
        NotHealthy: it took too long; the end of its log is in the message.
    """
    began = time.monotonic()
    while (complaint := question(stack, program, 0.0)) is not None:
        if time.monotonic() - began > timeout_s:
            log = stack.layout.logs / f"{program.name}.log"
            raise NotHealthy(program.name, timeout_s, complaint, tail(log.read_text(errors="replace")))
        tick()
        time.sleep(0.2)
    return time.monotonic() - began


def tail(text: str, lines: int = 20) -> str:
    """The last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])

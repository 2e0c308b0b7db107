"""Stopping what runs tasks without losing their work: shard groups hand back first, and no new ones are claimed.

A group that is asked to hand back does so after the page it is at; its task goes on from there with whoever runs it
next, and no retry is counted. Then the control tasks of these runs end, which take a second or two: one that is cut off
leaves a failed run in Airflow, though its task goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import psycopg

from collect_ops.lanes.rules import lane_rules
from collect_ops.lanes.runs import collect_dag_id
from collect_ops.nodes.machine import node_id_of
from collect_ops.storage import query
from stack import postgres
from stack.programs import programs
from stack.settings import Stack

Say = Callable[[str], None]
#: A page takes a second or two, and a group looks for the request with each sign of life. What is longer is killed, and
#: resumed from its last page.
HAND_BACK_WITHIN_S = 25.0
_LOOK_EVERY_S = 0.5
#: Plans wait for their source, half a minute at worst; what is longer is cut off, and repaired.
_CONTROL_WITHIN_S = 15.0
#: Between the end of a run's groups and its next task there is a moment in which Airflow has neither.
_CALM_LOOKS = 4
#: A claim holds its lane for a second. All lanes together: what is waited for here is missing when groups hand back.
_LANES_WITHIN_S = 5.0
#: Somebody else's transaction holds a group's row for milliseconds; one that hangs is left to the next look.
_GROUPS_WITHIN_S = 1.0
_CONTROL = """
SELECT count(*) FROM task_instance
WHERE dag_id = ANY(%s) AND task_id IN ('plan', 'settle') AND state IN ('scheduled', 'queued', 'running')
"""
_OPEN = "SELECT count(*) FROM collect.shard_group WHERE status = 'OPEN' AND started_at IS NOT NULL AND node = ANY(%s)"


def nodes_of(stack: Stack, names: Iterable[str]) -> list[str]:
    """The nodes whose shard groups end when these programs do."""
    known = programs(stack)
    chosen = [known[name] for name in names if name in known]
    nodes = {program.node_id for program in chosen if program.node_id and program.name.startswith("worker-")}
    # Whoever runs tasks on this machine while there are no worker hosts.
    runner = "worker" if stack.nodes.celery else "scheduler"
    if any(program.name == runner for program in chosen) and not stack.nodes.count:
        nodes.add(node_id_of(os.environ.get("COLLECT_NODE_ID")))
    return sorted(nodes)


def drain(stack: Stack, names: Iterable[str], say: Say) -> int:
    """Have the shard groups of programs hand back what they have not done, and wait for them.

    Args:
        stack: The stack.
        names: Programs that are stopped next.
        say: Called with a line when there is something to wait for, and when it took too long.

    Returns:
        How many still run: they are killed with their worker.
    """
    nodes = nodes_of(stack, names)
    if not nodes:
        return 0
    try:
        with postgres.connect(stack, stack.places["POSTGRES_COLLECT_DB"]) as connection:
            left = _drain(connection, nodes, say)
            _await_control_tasks(stack, say)  # while no claim can begin
            return left
    except psycopg.Error as error:
        # Without PostgreSQL nothing is asked and nothing lands; what was under way is resumed from its last page.
        say(f"shard groups are not asked to hand back: {str(error).strip().splitlines()[0]}")
        return 0


def _drain(connection: psycopg.Connection, nodes: list[str], say: Say) -> int:
    exists = connection.execute("SELECT to_regclass('collect.shard_group') IS NOT NULL").fetchone()
    if exists is None or not exists[0]:
        return 0
    for lane in _hold_lanes(connection):
        say(f"lane {lane}: its claim does not end; shard groups that it starts are asked to hand back, too")
    _set_lock_timeout(connection, _GROUPS_WITHIN_S)
    deadline = time.monotonic() + HAND_BACK_WITHIN_S
    told = False
    while True:
        for node_id in nodes:  # again and again: one that was about to start has started by now
            with suppress(psycopg.errors.LockNotAvailable):
                connection.execute(query("nodes/hand_back_groups"), {"node_id": node_id})
        row = connection.execute(_OPEN, [nodes]).fetchone()
        left = int(row[0]) if row else 0
        if left == 0:
            return 0
        if time.monotonic() > deadline:
            say(f"{left} shard groups have not handed back in time; they are resumed from their last page")
            return left
        if not told:
            say(f"{left} shard groups hand back what they have not done")
            told = True
        time.sleep(_LOOK_EVERY_S)


def _await_control_tasks(stack: Stack, say: Say) -> None:
    try:
        _await_calm(stack)
    except psycopg.Error as error:
        say(f"runs that plan or settle are not waited for: {str(error).strip().splitlines()[0]}")


def _await_calm(stack: Stack) -> None:
    """Wait until nothing plans or settles, as long as that may take."""
    dag_ids = [collect_dag_id(lane) for lane in lane_rules().lanes]
    deadline, calm = time.monotonic() + _CONTROL_WITHIN_S, 0
    with postgres.connect(stack, stack.places["POSTGRES_AIRFLOW_DB"]) as connection:
        there = connection.execute("SELECT to_regclass('task_instance') IS NOT NULL").fetchone()
        while there and there[0] and calm < _CALM_LOOKS and time.monotonic() < deadline:
            row = connection.execute(_CONTROL, [dag_ids]).fetchone()
            calm = 0 if row and row[0] else calm + 1
            time.sleep(_LOOK_EVERY_S)


def _hold_lanes(connection: psycopg.Connection) -> list[str]:
    """Have no claim begin while this connection is open: a claim that finds its lane taken ends.

    Returns:
        The lanes whose claim has not ended in time.
    """
    deadline = time.monotonic() + _LANES_WITHIN_S
    busy = []
    for lane in lane_rules().lanes:
        _set_lock_timeout(connection, deadline - time.monotonic())
        try:
            connection.execute("SELECT pg_advisory_lock(hashtext('collect.lane'), hashtext(%s))", [lane])
        except psycopg.errors.LockNotAvailable:
            busy.append(lane)
    return busy


def _set_lock_timeout(connection: psycopg.Connection, timeout_s: float) -> None:
    """Have this connection wait so long for locks, a moment at least: 0 would be for ever."""
    milliseconds = max(50, round(timeout_s * 1000))
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{milliseconds}ms"])

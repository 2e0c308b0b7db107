"""Roles, users and their rights on the running services, and taking a node's away.

What they are is told by stack/access.py and config/privileges/; here they are made, at every `up`, on services that may
run already.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import psycopg
from psycopg import sql

from collect_ops.nodes.queues import is_node_id
from stack import access, postgres, rabbitmq, redis, supervisor
from stack.faults import BadSetting, StackError
from stack.layout import Layout
from stack.rights_files import create_result_tables, statements
from stack.settings import Stack, load, remember

NODES_ROLE = "collect_nodes"
_END_WITHIN_S = 15.0
Say = Callable[[str], None]


def make_roles(stack: Stack) -> None:
    """Roles of the collect_ops database and who may log in as them; before its migrations."""
    with postgres.connect(stack, stack.places["POSTGRES_COLLECT_DB"]) as connection:
        _run(connection, "1_roles.sql")
        for name, secret in (
            (access.CONTROL, "POSTGRES_CONTROL_PASSWORD"),
            (access.PERSON, "POSTGRES_PERSON_PASSWORD"),
            (access.CLI, "POSTGRES_CLI_PASSWORD"),
        ):
            _set_login(connection, name, stack.secrets[secret])


def grant(stack: Stack) -> None:
    """What each role may do with what the migrations have made, and whose the collected tables are."""
    with postgres.connect(stack, stack.places["POSTGRES_COLLECT_DB"]) as connection:
        with connection.transaction():
            _run(connection, "2_grants.sql")
        _run(connection, "3_reassign.sql")


def make_nodes(stack: Stack) -> None:
    """Roles of the nodes that have credentials."""
    with postgres.connect(stack) as connection:
        for node_id in stack.granted_nodes:
            name = access.node_user(node_id)
            if not _exists(connection, name):
                connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
            _set_login(
                connection, name, access.node_password(stack.secrets, node_id, stack.generation(node_id))
            )
            connection.execute(
                sql.SQL("GRANT {} TO {}").format(sql.Identifier(NODES_ROLE), sql.Identifier(name))
            )


def grant_results(stack: Stack) -> None:
    """Make the tables of Celery's results, and let nodes write to these alone in Airflow's database."""
    create_result_tables(stack.places)
    with (
        postgres.connect(stack, stack.places["POSTGRES_AIRFLOW_DB"]) as connection,
        connection.transaction(),
    ):
        _run(connection, "4_results.sql")


def admit(stack: Stack, node_id: str) -> Stack:
    """Give a node on another machine credentials, on the running services too.

    Raises:
        BadSetting: That is no node's id.
        StackError: The stack does not run.
    """
    if not is_node_id(node_id):
        raise BadSetting("node", node_id, "small letters, digits, dots, dashes and underscores, 63 at most")
    _demand_running(stack.layout, "a node's credentials are made")
    after = replace(stack, grants=stack.grants.join(node_id))
    remember(stack.layout, grants=after.grants.as_dict())
    make_nodes(after)
    rabbitmq.set_users(after)
    redis.set_users(after)
    return after


def withdraw(layout: Layout, node_id: str, say: Say) -> None:
    """End what a node has open at PostgreSQL, RabbitMQ and Redis, and let it in nowhere any more. Repeatable.

    Raises:
        StackError: No such node has credentials, the stack does not run, or a session did not end.
    """
    stack = load(layout)
    known = (*stack.granted_nodes, *stack.grants.withdrawn)
    if node_id not in known:
        raise BadSetting("node", node_id, ", ".join(known) or "there is no node with credentials")
    _demand_running(layout, "credentials are withdrawn")
    # First what is remembered: when this is cut short, nothing makes the user again.
    if node_id not in stack.grants.withdrawn:
        stack = replace(stack, grants=stack.grants.withdraw(node_id))
        remember(layout, grants=stack.grants.as_dict())
    rabbitmq.remove_user(stack, node_id)
    redis.remove_user(stack, node_id)
    ended = drop_role(stack, access.node_user(node_id))
    say(
        f"node {node_id}: its credentials are withdrawn, {ended} sessions at PostgreSQL ended; "
        "what it ran is taken on by other nodes from its last page"
    )


def drop_role(stack: Stack, name: str) -> int:
    """End a role's sessions and drop it.

    Returns:
        How many sessions it had.

    Raises:
        StackError: A session did not end.
    """
    role = sql.Identifier(name)
    with postgres.connect(stack) as connection:
        if not _exists(connection, name):
            return 0
        connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(role))
        ended = _end_sessions(connection, name)
    for database in ("POSTGRES_COLLECT_DB", "POSTGRES_AIRFLOW_DB"):
        with postgres.connect(stack, stack.places[database]) as connection:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
    with postgres.connect(stack) as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(role))
    return ended


def _end_sessions(connection: psycopg.Connection, name: str) -> int:
    ended: set[int] = set()
    deadline = time.monotonic() + _END_WITHIN_S
    while True:
        # Asked first and ended then: in one statement, sessions of others may be ended before their names are compared.
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE usename = %s", [name]).fetchall()
        if not rows:
            return len(ended)
        for (pid,) in rows:
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
            ended.add(pid)
        if time.monotonic() > deadline:
            raise StackError(f"{len(rows)} sessions of {name} at PostgreSQL do not end; run this again")
        time.sleep(0.1)


def _demand_running(layout: Layout, what: str) -> None:
    if not supervisor.is_up(layout):
        raise StackError(f"nothing runs, and {what} on the running services: `make up` first")


def _run(connection: psycopg.Connection, name: str) -> None:
    connection.execute(statements(name))


def _exists(connection: psycopg.Connection, role: str) -> bool:
    return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None


def _set_login(connection: psycopg.Connection, name: str, password: str) -> None:
    statement = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}")
    connection.execute(statement.format(sql.Identifier(name), sql.Literal(password)))

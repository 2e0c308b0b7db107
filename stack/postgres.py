"""PostgreSQL: a cluster of its own with two databases; its tuning is config/postgresql.conf."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql

from stack import servers
from stack.credentials import write_private
from stack.env_files import CONFIG
from stack.faults import CommandFailed, MissingProgram
from stack.layout import POSTGRES_USER, runs_as_root
from stack.settings import HOST, Stack

OWN_CONF = "collect-ops.conf"
OWN_HBA = "collect-ops-hba.conf"


def binary(stack: Stack, name: str) -> Path:
    """The newest installed server program of that name.

    Raises:
        MissingProgram: PostgreSQL is not installed.
    """
    root = servers.root(stack)
    installed = [Path("/") / path.relative_to(root) for path in root.glob(f"usr/lib/postgresql/*/bin/{name}")]
    if installed:
        return max(installed, key=lambda path: int(path.parts[4]))
    on_path = servers.which(stack, name)
    if on_path is None:
        raise MissingProgram(name, "postgresql-15")
    return Path(on_path)


def become_postgres(stack: Stack) -> Callable[[], None] | None:
    """What a child calls before it executes the server; None when this process is not root.

    None as well when the servers have a tree of their own: they enter it as root, and give that up then (`command`).
    """
    if not runs_as_root() or stack.server_tree is not None:
        return None
    user = pwd.getpwnam(POSTGRES_USER)

    def drop() -> None:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

    return drop


def own(path: Path) -> None:
    """Give a path to the user that the server runs as."""
    if runs_as_root():
        user = pwd.getpwnam(POSTGRES_USER)
        os.chown(path, user.pw_uid, user.pw_gid)


def initialise(stack: Stack) -> bool:
    """Make the cluster unless it exists, and write this start's settings.

    Returns:
        Whether it was made now.

    Raises:
        CommandFailed: initdb failed.
    """
    data = stack.layout.postgres_data
    fresh = not (data / "PG_VERSION").exists()
    if fresh:
        _initdb(stack, data)
    _write_conf(stack, data)
    return fresh


def _initdb(stack: Stack, data: Path) -> None:
    # Into a draft that is renamed when complete: an interrupted initdb leaves nothing like a cluster.
    draft = data.with_name("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    own(draft)
    password_file = data.with_name("postgres.password")
    write_private(password_file, stack.secrets["POSTGRES_SUPERUSER_PASSWORD"])
    own(password_file)
    try:
        done = subprocess.run(
            _as_postgres(stack, [
                str(binary(stack, "initdb")), "--pgdata", str(draft), "--username", "postgres",
                "--pwfile", str(password_file), "--auth", "scram-sha-256", "--encoding", "UTF8",
                "--locale", "C.UTF-8",
            ]),
            cwd="/", env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, preexec_fn=become_postgres(stack),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        password_file.unlink()
    if done.returncode != 0:
        raise CommandFailed("initdb", done.returncode, done.stdout + done.stderr)
    with (draft / "postgresql.conf").open("a") as conf:
        conf.write(f"\ninclude = '{OWN_CONF}'\n")
    draft.rename(data)


def _write_conf(stack: Stack, data: Path) -> None:
    own_lines = [
        "# Written at every start; the first part is config/postgresql.conf.",
        (CONFIG / "postgresql.conf").read_text(),
        f"listen_addresses = '{', '.join(stack.addresses)}'",
        f"port = {stack.ports.postgres}",
        "hba_file = '{}'".format(
            str(data / OWN_HBA).replace("'", "''")
        ),  # relative, it would be the server's folder
        "unix_socket_directories = ''  # a socket's path may be too long, and TCP works for everyone",
    ]
    for file, lines in ((data / OWN_CONF, own_lines), (data / OWN_HBA, _hba(stack))):
        write_private(file, "\n".join(lines) + "\n")
        own(file)


def _hba(stack: Stack) -> list[str]:
    """Who may log in from where: everybody from this machine; from others nodes only, to what a node needs."""
    lines = ["# Written at every start.", f"host all all {HOST}/32 scram-sha-256"]
    places = stack.places
    # Which machines reach the address that LISTEN names is a firewall's affair.
    others = [stack.nodes.subnet if stack.nodes.bridge else None, "0.0.0.0/0" if stack.nodes.listen else None]
    for network in filter(None, others):
        lines += [
            f"host {places[name]} +collect_nodes {network} scram-sha-256"
            for name in ("POSTGRES_COLLECT_DB", "POSTGRES_AIRFLOW_DB")
        ]
    return lines


def command(stack: Stack) -> list[str]:
    """What to execute."""
    return _as_postgres(stack, [str(binary(stack, "postgres")), "-D", str(stack.layout.postgres_data)])


def _as_postgres(stack: Stack, arguments: list[str]) -> list[str]:
    return servers.command(stack, arguments, user=POSTGRES_USER)


def connect(stack: Stack, database: str = "postgres", *, timeout_s: int = 3) -> psycopg.Connection:
    """A connection as superuser, each statement its own transaction."""
    return psycopg.connect(
        host=HOST,
        port=stack.ports.postgres,
        user="postgres",
        password=stack.secrets["POSTGRES_SUPERUSER_PASSWORD"],
        dbname=database,
        connect_timeout=timeout_s,
        autocommit=True,
    )


def create_databases(stack: Stack) -> None:
    """Make both databases and their owners, and set the passwords to what the secrets say; repeatable."""
    places = stack.places
    with connect(stack) as connection:
        for kind, rights in (("AIRFLOW", ""), ("COLLECT", "CREATEDB")):
            user = places[f"POSTGRES_{kind}_USER"]
            _create_role(connection, user, places[f"POSTGRES_{kind}_PASSWORD"], rights)
            _create_database(connection, places[f"POSTGRES_{kind}_DB"], user)


def _create_role(connection: psycopg.Connection, user: str, password: str, rights: str) -> None:
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [user]).fetchone()
    verb = sql.SQL("ALTER" if known else "CREATE")
    connection.execute(
        sql.SQL("{} ROLE {} LOGIN {} PASSWORD {}").format(
            verb, sql.Identifier(user), sql.SQL(rights), sql.Literal(password)
        )
    )


def _create_database(connection: psycopg.Connection, name: str, owner: str) -> None:
    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
        return
    connection.execute(
        sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner))
    )
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))

"""Airflow's connections with their passwords, for whoever may read this stack's secrets: its REST API keeps them back.

Read from the metadata database: `airflow connections get` would answer the same after five seconds of imports.
"""

from __future__ import annotations

from typing import Any

import psycopg
from cryptography.fernet import Fernet, InvalidToken

from stack.faults import StackError
from stack.settings import HOST, Stack

_SELECT = """
SELECT conn_type, host, schema, login, port, password, is_encrypted, extra, is_extra_encrypted
FROM connection WHERE conn_id = %s
"""


def read(stack: Stack, name: str) -> dict[str, Any] | None:
    """A connection in the fields of Airflow's JSON form; None when it is not defined.

    Args:
        stack: A stack whose PostgreSQL runs.
        name: The connection's id.

    Raises:
        StackError: It was encrypted with another key than the stack's.
    """
    fernet = Fernet(stack.secrets["AIRFLOW_FERNET_KEY"])
    places = stack.places
    with psycopg.connect(
        host=HOST,
        port=stack.ports.postgres,
        user=places["POSTGRES_AIRFLOW_USER"],
        password=places["POSTGRES_AIRFLOW_PASSWORD"],
        dbname=places["POSTGRES_AIRFLOW_DB"],
        connect_timeout=3,
    ) as connection:
        row = connection.execute(_SELECT, [name]).fetchone()
    if row is None:
        return None
    conn_type, host, schema, login, port, password, encrypted, extra, extra_encrypted = row
    try:
        return {
            "conn_type": conn_type,
            "host": host,
            "schema": schema,
            "login": login,
            "port": port,
            "password": _plain(fernet, password, encrypted=encrypted),
            "extra": _plain(fernet, extra, encrypted=extra_encrypted) or None,
        }
    except InvalidToken as error:
        raise StackError(f"connection {name} was encrypted with another key than this stack's") from error


def _plain(fernet: Fernet, text: str | None, *, encrypted: bool) -> str | None:
    return fernet.decrypt(text.encode()).decode() if text and encrypted else text

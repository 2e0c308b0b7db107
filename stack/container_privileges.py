"""What the airflow-init job makes as the owners: rights in both databases, virtual hosts and users of RabbitMQ.

All worker containers are one identity, `collect_node`: Compose cannot give each container its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace

import httpx
import psycopg

from stack import access
from stack.access import BrokerUser
from stack.env_files import addresses, database
from stack.rights_files import create_result_tables, statements

NODE = "collect_node"


def grant(places: Mapping[str, str]) -> None:
    """Rights in both databases, each as its owner."""
    with psycopg.connect(addresses(places)["COLLECT_POSTGRES_DSN"]) as connection:
        connection.execute(statements("2_grants.sql"))
    create_result_tables(places)
    with psycopg.connect(database(places).replace("+psycopg2", "")) as connection:
        connection.execute(statements("4_results.sql"))


def users(places: Mapping[str, str]) -> tuple[BrokerUser, ...]:
    """Whoever may log in beside the owner."""
    node = access.node_broker_rights("[a-z0-9._-]+")
    return (
        access.control_user(places),
        access.monitor_user(places),
        replace(node, name=NODE, password=places["RABBITMQ_NODE_PASSWORD"]),
    )


def set_users(places: Mapping[str, str]) -> None:
    """Make CeleryExecutor's virtual host and the users.

    Raises:
        httpx.HTTPStatusError: RabbitMQ refused.
    """
    vhosts = {"collect": places["RABBITMQ_VHOST"], "celery": places["RABBITMQ_CELERY_VHOST"]}
    owner = places["RABBITMQ_USER"]
    base = f"http://{places['RABBITMQ_HOST']}:{places['RABBITMQ_MANAGEMENT_PORT']}/api"
    login = (owner, places["RABBITMQ_PASSWORD"])
    with httpx.Client(base_url=base, auth=login, timeout=15, trust_env=False) as client:

        def put(path: str, body: Mapping[str, object]) -> None:
            client.put(path, json=body).raise_for_status()

        everything = asdict(access.Rights(configure=".*", write=".*", read=".*"))
        for vhost in vhosts.values():
            put(f"/vhosts/{vhost}", {})
            put(f"/permissions/{vhost}/{owner}", everything)
        for user in users(places):
            put(f"/users/{user.name}", {"password": user.password, "tags": user.tags})
            for name, rights in (("collect", user.collect), ("celery", user.celery)):
                if rights is not None:
                    put(f"/permissions/{vhosts[name]}/{user.name}", asdict(rights))


def main() -> int:
    """Make all of it, from the job's environment."""
    grant(os.environ)
    set_users(os.environ)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The domain's backends and endpoints from Airflow connections."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from urllib.parse import quote

from airflow.sdk import Connection
from airflow.sdk.configuration import conf

from collect_ops.collectors.credentials import short_secrets
from collect_ops.collectors.endpoint import Endpoint
from collect_ops.hooks.connections import AirflowAway, ConnectionMissing, connection_of
from collect_ops.hooks.rabbitmq import amqp_url_of, management_url_of
from collect_ops.kernel.backends import Backends, serves_node_queues
from collect_ops.lanes.rest_runs import RestRuns
from collect_ops.orchestrator.errors import AirflowUnavailable
from collect_ops.orchestrator.rest_reports import RestReports

log = logging.getLogger(__name__)

POSTGRES_CONN_ID = "collect_postgres"
REDIS_CONN_ID = "collect_redis"
RABBITMQ_CONN_ID = "collect_rabbitmq"
AIRFLOW_CONN_ID = "collect_airflow"


def backends() -> Backends:
    """Backends from the connections collect_postgres, collect_redis and collect_rabbitmq.

    Raises:
        ConnectionMissing: One of them is not defined.
        AirflowAway: Airflow could not be asked.
    """
    return backends_of(connection_of)


async def backends_of_async() -> Backends:
    """The same inside the triggerer, where connections are read asynchronously."""
    found = {
        name: await Connection.async_get(name) for name in (POSTGRES_CONN_ID, REDIS_CONN_ID, RABBITMQ_CONN_ID)
    }
    return backends_of(found.__getitem__)


def backends_of(get: Callable[[str], Connection]) -> Backends:
    """Backends from connections found by `get`."""
    postgres, redis, rabbitmq = get(POSTGRES_CONN_ID), get(REDIS_CONN_ID), get(RABBITMQ_CONN_ID)
    redis_scheme = "rediss" if redis.extra_dejson.get("ssl") else "redis"
    return Backends(
        postgres_dsn=f"postgresql://{_authority(postgres, 5432)}/{quote(postgres.schema or 'collect_ops', safe='')}",
        redis_url=f"{redis_scheme}://{_authority(redis, 6379)}/{redis.extra_dejson.get('db', 0)}",
        amqp_url=amqp_url_of(rabbitmq),
        rabbitmq_api_url=management_url_of(rabbitmq),
        node_queues=serves_node_queues(conf.get("core", "executor")),
    )


def rest_runs() -> RestRuns:
    """Airflow's REST API as the user of the connection collect_airflow."""
    return RestRuns(*_airflow_account())


def reports(*, limit_s: float | None = None) -> RestReports:
    """What is reported to Airflow, by the same account.

    Args:
        limit_s: Seconds that all of it may take, counted from now.

    Raises:
        AirflowUnavailable: The connection is not defined, or could not be asked for.
    """
    try:
        return RestReports(*_airflow_account(), limit_s=limit_s)
    except (ConnectionMissing, AirflowAway) as error:
        raise AirflowUnavailable(str(error)) from error


def _airflow_account() -> tuple[str, str, str]:
    connection = connection_of(AIRFLOW_CONN_ID)
    host = connection.host or "127.0.0.1"
    base = host if "://" in host else f"{connection.schema or 'http'}://{host}"
    return (
        f"{base}:{connection.port}" if connection.port else base,
        connection.login or "",
        connection.password or "",
    )


def endpoint(connection_id: str) -> Endpoint:
    """The endpoint of a source's Airflow connection.

    Raises:
        ConnectionMissing: The connection is not defined.
        AirflowAway: Airflow could not be asked.
        ValidationFailed: It cannot be used for HTTP.
    """
    connection = connection_of(connection_id)
    found = Endpoint.from_mapping(
        {
            "conn_type": connection.conn_type,
            "host": connection.host,
            "schema": connection.schema,
            "port": connection.port,
            "login": connection.login,
            "password": connection.password,
            "extra": connection.extra_dejson,
        },
        connection=connection_id,
    )
    for warning in short_secrets(found, connection_id):
        _warn_once(warning)
    return found


@cache
def _warn_once(warning: str) -> None:
    log.warning("%s", warning)


def _authority(connection: Connection, default_port: int) -> str:
    credentials = ""
    if connection.login or connection.password:
        credentials = f"{quote(connection.login or '', safe='')}:{quote(connection.password or '', safe='')}@"
    return f"{credentials}{connection.host or '127.0.0.1'}:{connection.port or default_port}"

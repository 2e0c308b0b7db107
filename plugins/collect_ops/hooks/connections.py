"""Airflow connections by their id, and which of two things is the matter when there is none.

Airflow answers the same, `AirflowNotFoundException`, when a connection is not defined and when nobody could be asked: a
backend that fails is passed over. The first is somebody's mistake, the second nobody's.
"""

from __future__ import annotations

from typing import NoReturn

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException, ErrorType

from collect_ops.kernel.errors import CollectOpsError, OwnOutage, Permanent


class ConnectionMissing(CollectOpsError, Permanent):
    """An Airflow connection is not defined."""

    def __init__(self, connection_id: str) -> None:
        self.connection_id = connection_id
        super().__init__(
            f"connection {connection_id!r} is not defined; to define it: "
            f"airflow connections add {connection_id} --conn-type http --conn-host HOST, or Admin > Connections"
        )


class AirflowAway(CollectOpsError, OwnOutage):
    """Nobody could say whether a connection is defined.

    Args:
        connection_id: Which connection.
        reason: What was answered instead.
    """

    def __init__(self, connection_id: str, reason: object) -> None:
        self.connection_id = connection_id
        super().__init__(f"Airflow could not be asked for connection {connection_id!r}: {reason}")


def connection_of(connection_id: str) -> Connection:
    """A connection.

    Raises:
        ConnectionMissing: It is not defined.
        AirflowAway: That is not known.
    """
    try:
        found: Connection = Connection.get(connection_id)
    except AirflowNotFoundException as error:
        _explain(connection_id, error)
    except PermissionError as error:  # its token has run out, or its task instance is over
        raise AirflowAway(connection_id, error) from error
    return found


def _explain(connection_id: str, not_found: AirflowNotFoundException) -> NoReturn:
    """Ask everybody again who may have been passed over because they failed."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection
    from airflow.sdk.execution_time.secrets import ExecutionAPISecretsBackend
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    answer: object
    for backend in ensure_secrets_backend_loaded():
        try:
            if isinstance(backend, ExecutionAPISecretsBackend):
                answer = task_runner.SUPERVISOR_COMMS.send(GetConnection(conn_id=connection_id))
                said_no = isinstance(answer, ErrorResponse) and answer.error == ErrorType.CONNECTION_NOT_FOUND
            else:
                answer = backend.get_connection(conn_id=connection_id)
                said_no = answer is None
        except Exception as error:
            raise AirflowAway(connection_id, f"{type(backend).__name__} failed: {error!r}") from error
        if not said_no:
            # It answers again by now, or it answers with an error; the connection itself may be in the answer.
            told = answer.error if isinstance(answer, ErrorResponse) else "it did not answer at first"
            raise AirflowAway(connection_id, told) from not_found
    raise ConnectionMissing(connection_id) from not_found

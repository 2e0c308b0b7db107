"""What can go wrong between us and Airflow."""

from __future__ import annotations

from collect_ops.kernel.errors import CollectOpsError, Permanent


class AirflowUnavailable(CollectOpsError):
    """Airflow did not do what it was asked for: it was away, or it refused."""


class AirflowRefused(AirflowUnavailable, Permanent):
    """Airflow answered that it will not.

    Args:
        action: What was asked.
        status: HTTP status.
        detail: What Airflow said.
    """

    def __init__(self, action: str, status: int, detail: str) -> None:
        self.status = status
        super().__init__(f"Airflow refused to {action}: HTTP {status}, {detail}")

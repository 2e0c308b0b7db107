"""What the domain needs of Airflow's pools."""

from __future__ import annotations

from typing import Protocol


class Pools(Protocol):
    """Airflow's pools; implemented over the REST API."""

    def set_slots(self, pool: str, slots: int) -> None:
        """Give a pool so many slots; one that has them stays as it is.

        Raises:
            RunsUnavailable: Airflow did not answer, or refused.
        """

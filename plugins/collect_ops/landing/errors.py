"""What can go wrong in landing, beyond single rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from collect_ops.kernel.errors import CollectOpsError, Permanent, Transient


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One way in which a table is not as its source declares it.

    Args:
        part: The column, or `key`, or `table`.
        has: What the table has there.
        wants: What the source declares.
        remedy: The statement that would mend it.
    """

    part: str
    has: str
    wants: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.part}: has {self.has}, the source declares {self.wants}; to mend: {self.remedy}"


class TargetMismatch(CollectOpsError, Permanent):
    """The table exists and does not fit the source's declaration."""

    def __init__(self, table: str, differences: Iterable[Difference]) -> None:
        self.table = table
        self.differences = tuple(differences)
        lines = "".join(f"\n  - {difference}" for difference in self.differences)
        super().__init__(
            f"table landing.{table} does not fit its source in {len(self.differences)} place(s){lines}"
        )


class DeclarationUnusable(CollectOpsError, Permanent):
    """A target declares something that no table can be made of."""

    def __init__(self, table: str, field: str, value: str, allowed: str) -> None:
        self.table = table
        self.field = field
        self.value = value
        super().__init__(f"target {table}: {field} is {value!r}; {allowed}")


class LandingRefused(CollectOpsError, Permanent):
    """The table refuses rows whose values all fit: a constraint, index or trigger that is not ours."""

    def __init__(self, table: str, reason: str) -> None:
        self.table = table
        self.reason = reason.strip()
        super().__init__(
            f"table {table} refused rows that fit its columns: {self.reason}; "
            "drop what refuses them, or declare the column or key that it stands for"
        )


class LandingCollision(CollectOpsError, Transient):
    """Two transactions wrote equal keys and PostgreSQL ended this one; the page can be landed again."""

    def __init__(self, table: str, reason: str) -> None:
        self.table = table
        super().__init__(
            f"landing into {table} collided with another page and can be repeated: {reason.strip()}"
        )


class OutsideTransaction(CollectOpsError, Permanent):
    """A page was to be landed without the transaction that fences its shard and commits its progress."""

    def __init__(self) -> None:
        super().__init__(
            "land() needs an open transaction: the one that fenced the shard and commits its progress"
        )


class AsideMissing(CollectOpsError, Permanent):
    """There is nothing to swap in: the task's aside table does not exist and the task has not swapped."""

    def __init__(self, table: str, aside: str) -> None:
        self.table = table
        self.aside = aside
        super().__init__(
            f"landing_aside.{aside} does not exist, so landing.{table} cannot be replaced; run the task again"
        )

"""What can go wrong in landing, beyond single rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from collect_ops.kernel.errors import CollectOpsError, Permanent, Transient

#: Differences that a message names one by one; the statements that mend them are always complete.
_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One way in which a table is not as its source declares it.

    Args:
        part: The column, or `key`, or `table`.
        has: What the table has there.
        wants: What the source declares.
        remedy: The statement that would mend it.
        action: What of the statement stands behind `ALTER TABLE name`, where it can be one of several.
        rewrites: PostgreSQL may write every row anew for it.
    """

    part: str
    has: str
    wants: str
    remedy: str
    action: str | None = None
    rewrites: bool = False

    def __str__(self) -> str:
        return f"{self.part}: has {self.has}, the source declares {self.wants}"


def statements_of(table: str, differences: Iterable[Difference]) -> tuple[str, ...]:
    """The statements that mend a table, in their order: what must be one of its own, then all others as one.

    Args:
        table: Its quoted name, with its schema.
        differences: What there is to mend.
    """
    found = tuple(differences)
    alone = [difference.remedy for difference in found if difference.action is None]
    actions = [difference.action for difference in found if difference.action is not None]
    return (*alone, *([f"ALTER TABLE {table} {', '.join(actions)}"] if actions else []))


class TargetMismatch(CollectOpsError, Permanent):
    """The table exists and does not fit the source's declaration.

    Args:
        table: Its name in schema `landing`.
        differences: Where it does not fit.
        statements: What would mend it, in this order.
        source: Whose declaration.
        fits_later: It fits what its source has declared later.
    """

    def __init__(
        self,
        table: str,
        differences: Iterable[Difference],
        statements: Iterable[str],
        *,
        source: str | None = None,
        fits_later: bool = False,
    ) -> None:
        self.table = table
        self.fits_later = fits_later
        self.differences = tuple(differences)
        self.statements = tuple(statements)
        self.remedy = "; ".join(self.statements)
        named = "; ".join(map(str, self.differences[:_NAMED]))
        more = len(self.differences) - _NAMED
        parts = [
            f"table landing.{table} does not fit its source in {len(self.differences)} place(s): {named}",
            f"and {more} more" if more > 0 else "",
            _FITS_LATER if fits_later else "",
            f"to mend it (collect-ops source migrate {source or 'NAME'}): {self.remedy}",
        ]
        super().__init__("; ".join(part for part in parts if part))


_FITS_LATER = (
    "it fits a declaration that was seen later: to run the task by the one that holds now, "
    "collect-ops dead edit LETTER --redeclare"
)


class DeclarationUnusable(CollectOpsError, Permanent):
    """A target declares something that no table can be made of."""

    def __init__(self, table: str, field: str, value: str, allowed: str) -> None:
        self.table = table
        self.field = field
        self.value = value
        super().__init__(f"target {table}: {field} is {value!r}; {allowed}")


class RecordsNotObjects(CollectOpsError, Permanent):
    """The records of a page are not objects, so no field of them can be a column's.

    Args:
        table: The target.
        kind: What the first of them is.
        records: The source's `records`.
    """

    def __init__(self, table: str, kind: str, records: str) -> None:
        path = "" if records == "@" else records
        remedy = (
            f"`records: {path}[].{{id: [0], name: [1]}}` makes objects of lists"
            if kind == "an array"
            else f"`records: {path}[].{{value: @}}` makes objects of them"
        )
        super().__init__(
            f"target {table} declares columns (or a key), and every record of the page is {kind} rather than an object "
            f"with fields: records ({records}) leads elsewhere, or has to name them; {remedy}"
        )
        self.table = table
        self.kind = kind


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


class MigrationRefused(CollectOpsError, Permanent):
    """A table was not migrated; nothing of it was changed.

    Args:
        table: Its name in schema `landing`.
        reason: Why, for people.
        remedy: What would have been done.
    """

    def __init__(self, table: str, reason: str, remedy: str) -> None:
        self.table = table
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"landing.{table} was not changed: {reason}")


class TableBusy(CollectOpsError, Transient):
    """Somebody holds a table for longer than a migration may wait for it; nothing was changed."""

    def __init__(self, table: str, waited_s: float) -> None:
        self.table = table
        self.waited_s = waited_s
        super().__init__(
            f"landing.{table} was not changed: somebody has read from it or written to it for {waited_s:g} s in one "
            "transaction; run it again, or let it wait longer (--lock-timeout)"
        )

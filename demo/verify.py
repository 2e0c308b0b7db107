"""Are the landed rows the server's rows? Counted and compared by checksum, value by value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import psycopg

from demo.dataset import COLUMNS, KEY
from demo.server import DemoServer

TABLE: Final = "landing.flights"
#: The target's types, as text, are what the file had; the time is the one whose text depends on settings.
AS_TEXT: Final = {"time_hour": """to_char(time_hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""}
#: COPY's text form is the checksum's line form: tabs between values, `\\N` for a missing one. Text in byte order,
#: as SQLite sorts it.
COPY_SQL: Final = f"""
    copy (select {", ".join(AS_TEXT.get(name, name) for name in COLUMNS)} from {TABLE}
          order by {", ".join('carrier collate "C"' if name == "carrier" else name for name in KEY)}) to stdout
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What the comparison found.

    Attributes:
        rows: in the target table.
        expected_rows: by the server's own count.
        checksum: over all 19 columns of the target table.
        expected_checksum: over the server's file.
    """

    rows: int
    expected_rows: int
    checksum: str
    expected_checksum: str

    @property
    def checksum_ok(self) -> bool:
        """Every value of every row is the server's."""
        return self.checksum == self.expected_checksum

    @property
    def exact(self) -> bool:
        """Nothing missing, nothing twice, nothing else."""
        return self.rows == self.expected_rows and self.checksum_ok


def verify(dsn: str, server: DemoServer) -> Verification:
    """Compare the target table with what the server serves."""
    digest = hashlib.sha256()
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        found = cursor.execute(f"select count(*) from {TABLE}".encode()).fetchone()
        with cursor.copy(COPY_SQL.encode()) as copy:
            for block in copy:
                digest.update(block)
    return Verification(
        rows=int(found[0]) if found else 0,
        expected_rows=server.count(),
        checksum=digest.hexdigest(),
        expected_checksum=server.dataset.checksum(),
    )

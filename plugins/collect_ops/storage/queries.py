"""The statements, one a file: `include/sql/queries/PACKAGE/VERB_NOUN.sql`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import LiteralString

from collect_ops.kernel.paths import include_dir


def queries_dir() -> Path:
    """The folder of the query files."""
    return include_dir() / "sql" / "queries"


@cache
def query(name: str) -> LiteralString:
    """The text of one statement.

    Args:
        name: `package/verb_noun`, without the ending.

    Raises:
        FileNotFoundError: There is no such file.
    """
    return (queries_dir() / f"{name}.sql").read_text(encoding="utf-8")


def read_queries() -> None:
    """Read every statement now, so that this process and its forks go on with these, whatever the files become."""
    for file in queries_dir().rglob("*.sql"):
        query(file.relative_to(queries_dir()).with_suffix("").as_posix())

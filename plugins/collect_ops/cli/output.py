"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

#: Cells up to this long are not folded.
_SHORT = 16
BAD_INPUT = 2
FAILED = 1


def print_json(value: object) -> None:
    """One JSON document on stdout, indented; what JSON does not know is written as text."""
    import json

    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; control characters are shown as escapes, since cells may come from a server.

    Where the screen is too narrow, long texts are folded first: numbers, states and names stay in one piece.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [[printable(cell) for cell in row] for row in rows]
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for place, heading in enumerate(headings):
        short = all(len(line[place]) <= _SHORT for line in lines)
        table.add_column(heading, overflow="fold", no_wrap=short)
    for line in lines:
        table.add_row(*map(Text, line))
    Console(width=screen_width()).print(table)


def screen_width() -> int:
    """Columns of the screen; in a pipe wide enough for anything."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else 200


def print_error(text: object) -> None:
    """One message on stderr."""
    sys.stderr.write(f"{text}\n")


def printable(cell: object, most: int = 80) -> str:
    """A cell's text in one line, without what would steer a terminal; at most so many characters."""
    text = "" if cell is None else str(cell)
    escaped = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[: most + 1]
    )
    return escaped if len(escaped) <= most else f"{escaped[: most - 1]}…"

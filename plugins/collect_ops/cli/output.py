"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Sequence

#: Cells up to this long are not folded.
_SHORT = 16
BAD_INPUT = 2
FAILED = 1


def print_json(value: object, *, as_spelled: bool = False) -> None:
    """One JSON document on stdout, indented; what JSON does not know is written as text.

    Args:
        value: The document.
        as_spelled: It holds numbers of a source, which keep every digit; it holds nothing but JSON.
    """
    import json

    if as_spelled:
        import msgspec

        from collect_ops.kernel.json_text import Unwritable, json_bytes

        # What JSON cannot say in UTF-8 is shown somehow.
        with contextlib.suppress(Unwritable):
            sys.stdout.write(msgspec.json.format(json_bytes(value), indent=2).decode() + "\n")
            return
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    if not _is_utf_8(text):  # a lone surrogate, which is an escape in ASCII
        text = json.dumps(value, indent=2, default=str)
    sys.stdout.write(text + "\n")


def _is_utf_8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def print_table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], *, spare: Sequence[str] = ()
) -> None:
    """A table on stdout; control characters are shown as escapes, since cells may come from a server.

    Where the screen is too narrow, long texts are folded and columns left out, so that numbers, states and names stay
    in one piece.

    Args:
        title: Above it.
        headings: Of the columns.
        rows: Their cells.
        spare: Headings of columns that may be left out, the first of them first.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [[printable(cell) for cell in row] for row in rows]
    # The screen's width on a screen; wide enough for anything in a pipe.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    widths = [
        max([len(heading), *(len(line[place]) for line in lines)]) for place, heading in enumerate(headings)
    ]
    shown = _fitting(headings, widths, spare, console.width)
    fits = _least_width([widths[place] for place in shown]) <= console.width
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for place in shown:
        table.add_column(headings[place], overflow="fold", no_wrap=fits and widths[place] <= _SHORT)
    for line in lines:
        table.add_row(*(Text(line[place]) for place in shown))
    console.print(table)


def _fitting(headings: Sequence[str], widths: Sequence[int], spare: Sequence[str], width: int) -> list[int]:
    """Places of the columns that a screen has room for."""
    shown = list(range(len(headings)))
    for heading in spare:
        if _least_width([widths[place] for place in shown]) <= width:
            break
        shown.remove(headings.index(heading))
    return shown


def _least_width(widths: Sequence[int]) -> int:
    """What columns need: short ones as they are, long ones folded, blanks between them."""
    return sum(min(width, _SHORT) for width in widths) + 3 * len(widths)


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

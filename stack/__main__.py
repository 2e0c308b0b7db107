"""The command line: `python -m stack up|down|restart|status|logs|env|versions|clean`."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def leave_link() -> None:
    """Go on from the environment's own folder, when this was called by the link `.stack/venv` to it.

    What is started from here keeps that folder: an upgrade makes another one and turns the link
    (scripts/bootstrap.sh), and the packages of what runs stay what they were.
    """
    folder = Path(sys.prefix).resolve()
    if sys.prefix != sys.base_prefix and folder != Path(sys.prefix):
        python = str(folder / "bin" / "python")
        os.execv(python, [python, "-m", "stack", *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    leave_link()
    # What takes a second is imported once, by the interpreter that goes on.
    from stack.commands import main

    sys.exit(main())

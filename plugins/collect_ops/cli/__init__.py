"""The `collect-ops` command.

One file a group of commands; each imports what it needs when it runs, so that `--help` and completion
are quick. A new group is a line in `app.py`. Bad input ends with 2, any other failure with 1; errors go to
stderr.
"""

from collect_ops.cli.app import main

__all__ = ["main"]

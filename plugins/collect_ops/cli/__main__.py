"""`python -m collect_ops.cli`."""

from collect_ops.cli.app import main

main()

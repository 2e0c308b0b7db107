"""How many examples a property test looks at that is not done at once: few in `make test`, many in `make chaos`."""

from __future__ import annotations

import os

TIMES = int(os.environ.get("EXAMPLES_TIMES", "1"))


def examples(few: int) -> int:
    """So many, and `EXAMPLES_TIMES` times as many where that is set.

    Args:
        few: Enough to show a common fault; each run looks at others.
    """
    return few * TIMES

"""Whether the project's examples are among the sources. They collect from a server that only a demonstration has."""

from __future__ import annotations

import os
from collections.abc import Mapping

#: Sources whose names begin so are examples, one of each kind of API.
EXAMPLE_PREFIX = "example_"
EXAMPLES_VARIABLE = "COLLECT_EXAMPLES"


def examples_are_on(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the examples are among the sources: COLLECT_EXAMPLES=1."""
    return environment.get(EXAMPLES_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")

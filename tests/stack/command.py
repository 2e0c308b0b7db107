"""`python -m stack` on a stack of a test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.kept_python import KEPT


def run_stack(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the stack in a folder; ports that the environment names are another stack's."""
    own = {key: value for key, value in os.environ.items() if not key.endswith("_PORT")}
    return KEPT.run("stack", *arguments, environment={**own, "STACK_HOME": str(home), **variables})

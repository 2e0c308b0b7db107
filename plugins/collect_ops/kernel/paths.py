"""Where the project's declarations lie."""

from __future__ import annotations

import os
from pathlib import Path


def include_dir() -> Path:
    """The `include/` folder: `COLLECT_OPS_INCLUDE` when set, else beside `plugins/` in the checkout."""
    configured = os.environ.get("COLLECT_OPS_INCLUDE")
    return Path(configured) if configured else Path(__file__).resolve().parents[3] / "include"

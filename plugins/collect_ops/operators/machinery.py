"""How the DAGs look that nobody starts: lanes, sweep, heartbeats, backlog, inbox, retention."""

from __future__ import annotations

from typing import Any

#: Whose they are, in the list of DAGs.
OWNER = "collect-ops"
#: To filter them out, or in: what people started does not have it.
TAG = "machinery"


def machinery(display_name: str, description: str, *tags: str) -> dict[str, Any]:
    """Arguments of such a DAG: unpaused from the start, one run at a time, no catching up.

    Args:
        display_name: What people read instead of the id.
        description: One line, in the list of DAGs.
        tags: Beside the tag of all machinery.
    """
    return {
        "dag_display_name": display_name,
        "description": description,
        "default_args": {"owner": OWNER},
        "tags": ["collect-ops", TAG, *tags],
        "catchup": False,
        "max_active_runs": 1,
        "is_paused_upon_creation": False,
    }

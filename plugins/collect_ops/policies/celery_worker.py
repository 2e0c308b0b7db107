"""A Celery worker that is asked to end has its shard groups hand back what they have not done.

Imported by workers, named in `[celery] extra_celery_config` (config/airflow.env). Celery's warm shutdown, which SIGTERM
asks for, waits for what runs; a shard group would run to its end, and be killed when that takes too long.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from celery.signals import worker_shutting_down  # type: ignore[import-untyped]

from collect_ops.kernel.backends import Backends, SettingMissing
from collect_ops.nodes.draining import hand_back_groups
from collect_ops.nodes.machine import node_id_of

log = logging.getLogger(__name__)


@worker_shutting_down.connect
def hand_back(how: str = "Warm", **_: Any) -> threading.Thread | None:
    """Ask this node's shard groups to hand back; called inside Celery's signal handler, so a thread does it.

    Args:
        how: `Warm` waits for what runs; anything else kills it, and there is nothing to ask for.
    """
    if how != "Warm":
        return None
    try:
        backends = Backends.from_environment()
    except SettingMissing as error:
        log.warning("shard groups are not asked to hand back: %s", error)
        return None
    node_id = node_id_of(os.environ.get("COLLECT_NODE_ID"))
    thread = threading.Thread(target=hand_back_groups, args=(backends, node_id), name="hand back")
    thread.start()
    return thread

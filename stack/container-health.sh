#!/usr/bin/env bash
# Health of a worker container: its Celery worker consumes, and when it is a node, its agent says that it lives. A worker that
# has stopped consuming is ended, so that Compose starts it again.
set -euo pipefail
python -m stack.container_watch worker
if [ -z "${COLLECT_WORKER_QUEUES:-}" ]; then
    python -m stack.container_agent "${COLLECT_NODE_ID:-${HOSTNAME,,}}"
fi

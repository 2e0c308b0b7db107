#!/usr/bin/env bash
# Health of a worker container: its Celery worker answers, and when it is a node, its agent says that it lives.
set -euo pipefail
celery --app airflow.providers.celery.executors.celery_executor.app inspect ping --destination "celery@$HOSTNAME" >/dev/null
if [ -z "${COLLECT_WORKER_QUEUES:-}" ]; then
    python -m stack.container_agent "${COLLECT_NODE_ID:-${HOSTNAME,,}}"
fi

#!/usr/bin/env bash
# Entry point of the containers in docker-compose.yaml: fills in the connections that both stacks share
# (config/connections.env), then hands over to the image's own entry point.
set -euo pipefail

derived="$(python -m stack.env_files "$([ "${1:-}" = api-server ] && echo server || echo connections)")"
eval "$derived"
export COLLECT_OPS_ENTERED=1

# Only the api-server knows the passwords of the web interface's users.
if [ -n "${AIRFLOW_ADMIN_PASSWORD:-}" ] && [ -n "${AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE:-}" ]; then
    (umask 077 && python -m stack.env_files passwords >"$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE")
fi

# A scheduler that starts again in the same container has died in it: what it had queued need not wait until Airflow
# takes it for dead.
if [ "${1:-}" = scheduler ]; then
    python -m stack.schedulers
fi

# Containers have a name of their own, where machines have an id: it is what tells nodes apart.
export COLLECT_NODE_ID="${COLLECT_NODE_ID:-${HOSTNAME,,}}"
if [ "${1:-}" = celery ] && [ "${2:-}" = worker ]; then
    if [ -z "${COLLECT_WORKER_QUEUES:-}" ]; then
        # Beside the worker, started again when it ends. It ends with the container, unasked: the node is LOST a minute
        # later.
        (while ! python -m collect_ops.cli agent; do sleep 5; done) &
    fi
    shift 2
    set -- celery worker --queues "${COLLECT_WORKER_QUEUES:-default,node.$COLLECT_NODE_ID}" \
        --without-mingle --without-gossip "$@"
fi

exec /entrypoint "$@"

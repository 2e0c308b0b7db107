#!/usr/bin/env bash
# Stands before `collect-ops`, `airflow` and `celery` on the image's PATH. `docker compose exec` and health checks do not run
# the entry point, and without its variables these commands know neither where the services are nor who they are.
set -euo pipefail
own="$(dirname "$0")"
name="$(basename "$0")"
PATH=":$PATH:"
PATH="${PATH//:$own:/:}"
PATH="${PATH#:}"
export PATH="${PATH%:}"
if [ -z "${COLLECT_OPS_ENTERED:-}" ]; then
    derived="$(python -m stack.env_files connections)"
    eval "$derived"
fi
exec "$name" "$@"

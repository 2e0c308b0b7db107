#!/usr/bin/env bash
# The airflow-init job of docker-compose.yaml: both databases and the pools are brought to what this image needs.
# Safe to run at every start.
set -euo pipefail

airflow db migrate
pools="$(mktemp --suffix=.json)"
python -m stack.pools >"$pools"
airflow pools import "$pools"
python -m collect_ops.storage.migrate
# CeleryExecutor's virtual host. The password goes over stdin: a command line can be read by others.
management="http://$RABBITMQ_HOST:$RABBITMQ_MANAGEMENT_PORT/api"
put() {
    curl --fail --silent --show-error --request PUT --header 'content-type: application/json' --data "$2" --config - \
        "$management/$1" <<<"user = \"$RABBITMQ_USER:$RABBITMQ_PASSWORD\""
}
put "vhosts/$RABBITMQ_CELERY_VHOST" '{}'
put "permissions/$RABBITMQ_CELERY_VHOST/$RABBITMQ_USER" '{"configure": ".*", "write": ".*", "read": ".*"}'
collect-ops topology

#!/usr/bin/env bash
# The airflow-init job of docker-compose.yaml, as the owners: both databases, the pools, queues and rights are brought to
# what this image needs. Safe to run at every start.
set -euo pipefail

airflow db migrate
pools="$(mktemp --suffix=.json)"
python -m stack.pools >"$pools"
airflow pools import "$pools"
# Containers of the last release may still run: what needs that none does is upgrade-finish's.
python -m collect_ops.storage.migrate before
python -m stack.container_privileges
collect-ops topology

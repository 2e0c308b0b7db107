#!/usr/bin/env bash
# The airflow-init job of docker-compose.yaml: both databases and the pools are brought to what this image needs.
# Safe to run at every start.
set -euo pipefail

airflow db migrate
pools="$(mktemp --suffix=.json)"
python -m stack.pools >"$pools"
airflow pools import "$pools"
python -m collect_ops.storage.migrate
collect-ops topology

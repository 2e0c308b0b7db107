#!/usr/bin/env bash
# The upgrade-finish job of docker-compose.yaml, as the owner of the database, when all other containers are those of this
# image. Safe to run at every start. A pause before it is tried again: a node is seen as gone a minute after its end.
set -euo pipefail

status=0
python -m collect_ops.storage.migrate after || status=$?
if [ "$status" = 3 ]; then sleep "${COLLECT_FINISH_PAUSE_S:-30}"; fi
exit "$status"

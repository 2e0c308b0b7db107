#!/usr/bin/env bash
# make compat: the integration tests on the servers of the next Debian (scripts/bootstrap.sh servers), on a stack of their
# own that is stopped whatever happens. Not 0 when any of it failed.
#
#   scripts/compat.sh [arguments for pytest]
set -euo pipefail
cd "$(dirname "$0")/.."

BIN=.stack/venv/bin
export STACK_HOME="${COMPAT_STACK_HOME:-.stack/compat}"
export SERVER_TREE="$PWD/.stack/servers/trixie"
export COLLECT_EXAMPLES=1

scripts/bootstrap.sh
scripts/bootstrap.sh servers

step() { printf '\n== %s\n' "$*"; }
stop() { "$BIN/python" -m stack down >/dev/null || echo "the servers did not stop; see make down STACK_HOME=$STACK_HOME" >&2; }
trap stop EXIT
trap 'exit 130' INT TERM

step "servers"
"$BIN/python" -m stack up --only postgres,redis,rabbitmq
# Else all of it could pass on this system's own servers.
"$BIN/python" -m stack versions --at-least postgres=17,redis=8,rabbitmq=4

step "pytest: integration tests"
eval "$("$BIN/python" -m stack env --all)"
status=0
if [ $# -gt 0 ]; then
  "$BIN/python" -m pytest -m "not chaos and not long" "$@" || status=$?
  exit "$status"
fi
"$BIN/python" -m pytest -m "not chaos and not long and not stack" -n 2 tests/plugins/integration || status=$?
# Starts a broker of its own from the same tree.
"$BIN/python" -m pytest tests/stack/test_strict_broker.py || status=$?
exit "$status"

#!/usr/bin/env bash
# make test: lint, types, import contracts, SQL, then all tests on services of their own, which are stopped whatever
# happens. Not 0 when any of it failed; a summary of pytest's is the last line.
#
#   scripts/test.sh [--lint-only] [arguments for pytest]
set -euo pipefail
cd "$(dirname "$0")/.."

BIN=.stack/venv/bin
export STACK_HOME="${TEST_STACK_HOME:-.stack/test}"

scripts/bootstrap.sh
lint_only=""
if [ "${1:-}" = --lint-only ]; then lint_only=1; shift; else scripts/bootstrap.sh testing nodes venv venv-demo requirements-demo.lock; fi

step() { printf '\n== %s\n' "$*"; }

# Folders that exist; a part of the project that is not there yet is not an error.
existing() { local found=() path; for path in "$@"; do if [ -e "$path" ]; then found+=("$path"); fi; done; printf '%s\n' "${found[@]}"; }
mapfile -t code < <(existing plugins dags config stack demo benchmarks tests)
mapfile -t sql < <(existing include/sql)

step "ruff";         "$BIN/ruff" check "${code[@]}"; "$BIN/ruff" format --check "${code[@]}"
step "mypy";         "$BIN/mypy" plugins/collect_ops stack
step "import-linter"; "$BIN/lint-imports"
if [ ${#sql[@]} -gt 0 ] && [ -n "${sql[0]}" ]; then step "sqlfluff"; "$BIN/sqlfluff" lint --processes 2 "${sql[@]}"; fi
if [ -n "$lint_only" ]; then exit 0; fi

step "services"
SERVICES_HOME="$STACK_HOME-services"
beside=""
stop() {
  if [ -n "$beside" ]; then kill "$beside" 2>/dev/null || true; wait "$beside" 2>/dev/null || true; fi
  local home
  for home in "$STACK_HOME" "$SERVICES_HOME"; do
    STACK_HOME="$home" "$BIN/python" -m stack down >/dev/null || echo "services did not stop; see make down STACK_HOME=$home" >&2
  done
}
trap stop EXIT
trap 'exit 130' INT TERM

status=0
if [ $# -gt 0 ]; then
  "$BIN/python" -m stack up
  step "pytest"
  eval "$("$BIN/python" -m stack env)"
  "$BIN/python" -m pytest -m "not chaos" "$@" || status=$?
  exit "$status"
fi

# What has databases and virtual hosts of its own runs beside what shares the running stack and kills its services: on
# services of its own, in two processes, and politely, so that nothing on the stack waits for it.
STACK_HOME="$SERVICES_HOME" nice -n 10 "$BIN/python" -m stack up --only postgres,redis,rabbitmq
"$BIN/python" -m stack up
step "pytest: what needs no stack, in the background"
(
  export STACK_HOME="$SERVICES_HOME"
  eval "$("$BIN/python" -m stack env)"
  exec nice -n 10 "$BIN/python" -m pytest -m "not chaos and not stack" -n 2
) >"$STACK_HOME/beside.log" 2>&1 &
beside=$!
step "pytest: what works on the running stack, or starts one"
(
  eval "$("$BIN/python" -m stack env)"
  exec "$BIN/python" -m pytest -m "stack and not chaos"
) || status=$?
step "pytest: what needed no stack"
wait "$beside" || status=$?
beside=""
cat "$STACK_HOME/beside.log"
exit "$status"

#!/usr/bin/env bash
# make test: lint, types, import contracts, SQL, then the tests that are marked neither long nor chaos, on services of their
# own, which are stopped whatever happens. Not 0 when any of it failed; a summary of pytest's is the last line.
#
#   scripts/test.sh [--lint-only | --long] [arguments for pytest]
#
# --long runs the tests marked `long` instead, on a whole stack, then (without arguments for pytest) scripts/compat.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

BIN=.stack/venv/bin
export STACK_HOME="${TEST_STACK_HOME:-.stack/test}"
export COLLECT_EXAMPLES=1

scripts/bootstrap.sh
lint_only="" long=""
if [ "${1:-}" = --long ]; then long=1; shift; fi
if [ "${1:-}" = --lint-only ]; then lint_only=1; shift; else scripts/bootstrap.sh testing nodes venv venv-demo requirements-demo.lock; fi

step() { printf '\n== %s\n' "$*"; }

# Folders that exist; a part of the project that is not there yet is not an error.
existing() { local found=() path; for path in "$@"; do if [ -e "$path" ]; then found+=("$path"); fi; done; printf '%s\n' "${found[@]}"; }
mapfile -t code < <(existing plugins dags config stack demo benchmarks tests)
mapfile -t sql < <(existing include/sql)

if [ -z "$long" ]; then
step "ruff";         "$BIN/ruff" check "${code[@]}"; "$BIN/ruff" format --check "${code[@]}"
step "mypy";         "$BIN/mypy" plugins/collect_ops stack
step "import-linter"; "$BIN/lint-imports"
if [ ${#sql[@]} -gt 0 ] && [ -n "${sql[0]}" ]; then step "sqlfluff"; "$BIN/sqlfluff" lint --processes 2 "${sql[@]}"; fi
if [ -n "$lint_only" ]; then exit 0; fi
fi

step "services"
stop() { "$BIN/python" -m stack down >/dev/null || echo "the test services did not stop; see make down STACK_HOME=$STACK_HOME" >&2; }
trap stop EXIT
trap 'exit 130' INT TERM

status=0
if [ -n "$long" ]; then
  "$BIN/python" -m stack up
  step "pytest: long"
  (
    eval "$("$BIN/python" -m stack env --all)"
    exec "$BIN/python" -m pytest -m "long and not chaos" "$@"
  ) || status=$?
  if [ $# = 0 ]; then
    stop  # two stacks at once are too many for a small machine
    step "compat"
    scripts/compat.sh || status=$?
  fi
  exit "$status"
fi
if [ $# -gt 0 ]; then
  "$BIN/python" -m stack up
  step "pytest"
  eval "$("$BIN/python" -m stack env --all)"
  "$BIN/python" -m pytest -m "not chaos and not long" "$@" || status=$?
  exit "$status"
fi

# What has databases and virtual hosts of its own runs side by side, before Airflow is started: that takes a part of two
# processors even when it has nothing to do. What shares the running stack, or kills its services, runs one by one, and
# waits for Airflow most of the time; beside it runs what starts stacks of its own (the groups are in tests/conftest.py).
"$BIN/python" -m stack up --only postgres,redis,rabbitmq
step "pytest: what needs no running stack"
(
  eval "$("$BIN/python" -m stack env --all)"
  # Each has a part of the files, so that what a module's tests share is made once, and helps out at the end. Three on two
  # processors: they wait for services and deadlines for a third of the time.
  exec "$BIN/python" -m pytest -m "not chaos and not long and not stack" -n 3 --dist worksteal
) || status=$?
"$BIN/python" -m stack up
step "pytest: what works on the running stack, or starts one"
(
  eval "$("$BIN/python" -m stack env --all)"
  exec "$BIN/python" -m pytest -m "stack and not chaos and not long" -n 2 --dist loadgroup
) || status=$?
exit "$status"

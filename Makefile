# Commands of collect-ops; `make` alone lists them. STACK_HOME=FOLDER runs a stack beside the default one in .stack.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON := .stack/venv/bin/python
BIN := .stack/venv/bin
STACK := $(PYTHON) -m stack
UV := .stack/uv/bin/uv
CODE := plugins dags config stack demo benchmarks tests
LOCKED := requirements requirements-dev requirements-demo requirements-bench
export JSON YES STACK_HOME
# Walks that `make test` takes a few steps of.
LONG_WALKS = $(addprefix tests/plugins/integration/,delivery/test_lives.py execution/test_kill_points.py execution/test_conditional.py) \
  $(shell grep -rl --include='test_*.py' 'import examples$$' tests/plugins)
# Read by `up` when given, and remembered: make up NODES=3 WORKER_SLOTS=4 NODE_LABELS='node-1:region=eu' LISTEN=10.0.0.5
NODE_VARIABLES := NODES WORKER_SLOTS NODE_LABELS NODE_NETWORK LISTEN EXECUTOR
$(foreach name,$(NODE_VARIABLES),$(if $(filter-out undefined,$(origin $(name))),$(eval export $(name))))
ifeq ($(STACK_HOME),)
unexport STACK_HOME
endif

# The demonstration, the benchmarks and the tests collect from the example sources; a stack of one's own does without.
demo bench chaos: export COLLECT_EXAMPLES := $(or $(COLLECT_EXAMPLES),1)

##@ The stack
.PHONY: up
up: bootstrap ## Start PostgreSQL, Redis, RabbitMQ and Airflow (installs what is missing); NODES=3 with three worker hosts
	@$(if $(NODES)$(LISTEN),scripts/bootstrap.sh nodes)
	@$(STACK) up

.PHONY: status
status: ## Show every service; exit status 0 when healthy (make -s status JSON=1 for programs)
	@$(STACK) status

.PHONY: logs
logs: ## Follow the logs (make logs S=scheduler)
	@$(STACK) logs $(S)

.PHONY: env
env: ## Print what a person needs as shell exports: eval "$$(make -s env)"; ALL=1 adds the owners' secrets
	@$(STACK) env $(if $(ALL),--all)

.PHONY: join
join: ## Print what a node on another machine needs (after LISTEN=…; make -s join N=n2 > join.env)
	@umask 077; $(if $(N),,$(error which node? make join N=n2)) \
	  $(STACK) join-file $(N) $(if $(A),--address $(A)) $(if $(FILE),--output $(FILE))

.PHONY: withdraw
withdraw: ## End a node's sessions and take its credentials away (make withdraw N=n2)
	@$(if $(N),,$(error which node? make withdraw N=n2)) $(STACK) withdraw $(N)

.PHONY: restart
restart: ## Restart all services, or some (make restart S=scheduler,triggerer)
	@$(STACK) restart $(S)

.PHONY: down
down: ## Stop everything, also what a crash left behind
	@if [ -x $(PYTHON) ]; then $(STACK) down; else echo "nothing runs"; fi

.PHONY: clean
clean: ## Remove the stack's data, secrets included; asks first (YES=1 does not)
	@$(STACK) clean

##@ Collecting
.PHONY: demo
demo: up demo-venv ## The main job on real data: 336,776 rows from an HTTP server through Airflow into PostgreSQL
	@$(PYTHON) -m demo

.PHONY: watch
watch: ## Follow a collect task's progress (make watch T=TASK_ID)
	@eval "$$($(STACK) env)"; $(BIN)/collect-ops watch $(T)

.PHONY: check-source
check-source: ## Check a source's declaration and show its first rows (make check-source S=flights)
	@eval "$$($(STACK) env)"; $(BIN)/collect-ops source check $(S) && $(BIN)/collect-ops source preview $(S)

.PHONY: schemas
schemas: ## Write the JSON Schemas of include/, which editors use
	@$(BIN)/collect-ops schemas

##@ Developing
.PHONY: test
test: ## Lint, types, import contracts and tests (but for long and chaos), on services of their own (ARGS= goes to pytest)
	@scripts/test.sh $(ARGS)

.PHONY: test-long
test-long: ## The tests that take many minutes, on a whole stack, and make compat; run before each merge (ARGS= goes to pytest)
	@scripts/test.sh --long $(ARGS)

.PHONY: compat
compat: ## The integration tests on PostgreSQL 17, Redis 8 and RabbitMQ 4 of Debian 13; needs root (ARGS= goes to pytest)
	@scripts/compat.sh $(ARGS)

.PHONY: lint
lint: bootstrap ## Lint, format check, types, import contracts, SQL
	@scripts/test.sh --lint-only

.PHONY: fmt
fmt: bootstrap ## Format the code, and fix what can be fixed by itself
	@$(BIN)/ruff format $(wildcard $(CODE))
	@$(BIN)/ruff check --fix $(wildcard $(CODE))

.PHONY: bench
bench: up demo-venv bench-venv ## Run the benchmarks, for hours (make bench ONLY=collect runs one)
	@$(PYTHON) -m benchmarks $(ONLY)

.PHONY: chaos
chaos: up demo-venv ## Kill each process in the middle of a run, long form (ARGS= goes to pytest instead of all)
	@scripts/bootstrap.sh nodes
	@eval "$$($(STACK) env --all)"; code=0; \
	$(PYTHON) -m pytest -m chaos -p no:randomly --timeout 1800 tests/e2e $(ARGS) || code=$$?; \
	$(if $(ARGS),,LIVES_EXAMPLES=40 KILL_POINTS=60 CHANGES_EXAMPLES=30 EXAMPLES_TIMES=10 $(PYTHON) -m pytest --timeout 3600 $(LONG_WALKS) || code=$$?;) exit $$code

.PHONY: lock
lock: ## Compile the requirements*.lock files anew from requirements*.txt
	@scripts/bootstrap.sh uv
	@for name in $(LOCKED); do \
	  $(UV) pip compile --quiet --python-version 3.11 --no-emit-index-url --no-annotate \
	    --custom-compile-command "make lock" --output-file $$name.lock $$name.txt $(if $(UPGRADE),--upgrade); \
	  echo "$$name.lock"; \
	done

##@ Setting up
.PHONY: bootstrap
bootstrap: ## Install servers and the Python environment; does nothing when they are there
	@scripts/bootstrap.sh

.PHONY: demo-venv
demo-venv: ## Make the demo server's environment (.stack/venv-demo)
	@scripts/bootstrap.sh venv venv-demo requirements-demo.lock

.PHONY: bench-venv
bench-venv: ## Make the benchmarks' environment (.stack/venv-bench), and install nginx
	@scripts/bootstrap.sh benchmarks venv venv-bench requirements-bench.lock

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { gsub(/\$$\$$/, "$$", $$2); printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

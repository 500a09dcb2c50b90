# Every target does its own set-up. Settings (ports, folders, heaps) are variables: make up DUELINE_KAFKA_PORT=19092

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup up down status demo test lint chaos bench lock clean

help: ## Show this help
	@echo "Dueline: a distributed job scheduler. Needs git, make, Python 3.11, JDK 17 and Maven."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Settings are environment variables, or follow the target (see infra/settings.py for all):"
	@echo "  make up DUELINE_KAFKA_PORT=19092 DUELINE_CASSANDRA_PORT=19042 DUELINE_DATA=/var/tmp/dueline"

setup: $(READY) ## Make the virtual environment from the lock (done by all others, quick the second time)

up: $(READY) ## Start Kafka, Cassandra and the platform's processes in the background
	@$(BIN)/python -m infra.local up

down: $(READY) ## Stop all that `make up` started; data stays
	@$(BIN)/python -m infra.local down

status: $(READY) ## Show what runs, where it listens and where it logs
	@$(BIN)/python -m infra.local status

demo: $(READY) ## Start everything, run jobs of each kind, check the results, stop everything
	@$(BIN)/python -m producers.demo

test: lint ## Lint, check types, and run all tests, against real servers too
	@$(BIN)/pytest

lint: $(READY) ## Check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

chaos: $(READY) ## Hurt the platform by a plan and judge what came of its jobs (DURATION=300 SEED=1); make ends with 2 unless valid
	@$(BIN)/python -m tests.chaos $(if $(DURATION),--duration $(DURATION)) $(if $(SEED),--seed $(SEED)) $(OPTIONS)

bench: $(READY) ## Measure the platform (ONLY=drain ROUNDS=3 SEED=1 QUICK=1); build/bench/index.html has the plots
	@$(BIN)/python -m tests.bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(QUICK),--quick) $(ONLY) $(OPTIONS)

lock: $(READY) ## Resolve the dependencies anew into requirements.txt, with hashes and without addresses
	@$(BIN)/pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
		--quiet --output-file requirements.txt

clean: ## Stop the platform and remove its data and the virtual environment
	@if [ -e $(READY) ]; then $(BIN)/python -m infra.local down --remove-data; fi
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on the PATH: install Python 3.11 with its venv module, or name another with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Dueline needs Python 3.11 or later, and $(PYTHON) is $$($(PYTHON) -V): name another with make PYTHON=..." >&2; exit 1; }
	@echo "Making the virtual environment $(VENV) from requirements.txt (about a minute the first time)"
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) could not make a virtual environment: install its venv module (package python3.11-venv)" >&2; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
IN_PARALLEL := --numprocesses auto --dist worksteal
# Rules, names, files and the engine's decisions: no process of Dagster is started.
QUICK := -k "not postgres" tests/conformance tests/insight tests/dagster_suites \
  $(addprefix tests/test_,$(addsuffix .py,assign assign_kinds audit bars compat config \
  deadlock duplicates members names order partition_keys partitioned_rules rate resource_rules \
  shared_ops storage_yaml))
OPTIONS ?=
# Else each process of the tests compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE
SUITES := .dagster-tests/environment

help:  ## Show what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY)  ## Run the flights demo: the damage without pools, then its absence (2 minutes)
	$(BIN)/lifeguard demo

test: $(READY)  ## Run the test suite on the newest supported Dagster
	$(BIN)/python -m pytest $(IN_PARALLEL)

test-quick: $(READY)  ## Run the tests that start no process, while you work (a minute)
	$(BIN)/python -m pytest $(IN_PARALLEL) $(QUICK)

test-oldest: $(READY)  ## Run the test suite on the oldest supported Dagster (through nox)
	$(BIN)/nox --session oldest -- $(IN_PARALLEL)

test-oldest-part: $(READY)  ## Run the engine's and the definitions' tests on the oldest supported Dagster (through nox)
	$(BIN)/nox --session oldest -- $(IN_PARALLEL) $(QUICK)

oldest-environment: $(READY)  ## Install the oldest supported Dagster, on which tests run later (through nox)
	$(BIN)/nox --session oldest --install-only

test-versions: $(READY)  ## Run the tests of definitions on 1.10.0 and the last 1.11, 1.12 and 1.13 (through nox)
	$(BIN)/nox --session versions -- $(IN_PARALLEL)

test-dg: $(READY)  ## Run the example of a dg project, with dbt and dlt (through nox, 5 minutes)
	$(BIN)/nox --session dg

test-celery: $(READY)  ## Run Celery workers on two hosts, with Redis (through nox, as root, 10 minutes)
	$(BIN)/nox --session celery

check: $(READY)  ## Format, lint, types and layers (ruff, mypy, import-linter)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-dagster: $(SUITES)/.ready  ## Run Dagster's own tests on our storages, beside its own (long; one suite: OPTIONS="--suite TEXT")
	$(SUITES)/bin/python tests/dagster_suites/run.py $(OPTIONS)

torture: $(READY)  ## Run the races for 1,000,000 claims on each database, and 10,000,000 by seed (hours, resumed; short: OPTIONS="--claims 20000")
	$(BIN)/python tests/races/torture.py $(OPTIONS)
	LIFEGUARD_TORTURE=20 $(BIN)/python -m pytest --timeout 3600 tests/races/test_machine.py
	$(BIN)/python tests/races/worlds.py $(OPTIONS)
	LIFEGUARD_TORTURE=1 $(BIN)/python -m pytest --timeout 3600 tests/races/test_processes.py tests/races/test_forks.py tests/storages/test_executions.py tests/storages/test_fair_queue.py
	LIFEGUARD_TORTURE=20 $(BIN)/python -m pytest --timeout 3600 -rP tests/hosts

bench: $(READY)  ## Measure everything beside Dagster and the goals (5 minutes; OPTIONS="--only engine", OPTIONS=--full)
	$(BIN)/python benchmarks/all.py $(OPTIONS)

docs: $(READY)  ## Check the docs: links, commands, generated pages, every block of the README
	$(BIN)/python -m pytest tests/docs

site: $(READY)  ## Build the documentation as a site, and print where it is (Python 3.11; OPTIONS="--version 0.2.0")
	$(BIN)/python -m website.build $(OPTIONS)

recordings: $(READY)  ## Record the terminal and the page anew from real runs (chromium and ffmpeg, 10 minutes)
	$(BIN)/python -m website.record $(OPTIONS)

screenshots: $(READY)  ## Take the pictures of the page anew from a real deployment (chromium, 5 minutes)
	$(BIN)/python -m website.record --only screenshots $(OPTIONS)

dist: $(READY)  ## Build wheel and sdist, check them, and try the wheel in a bare environment (through nox, 5 minutes)
	$(BIN)/nox --session dist

lock:  ## Resolve the development environment anew into constraints/ (needs uv)
	uv pip compile --quiet --universal --python-version 3.10 --extra dev --extra site \
	  --no-emit-index-url --no-annotate --no-header --upgrade pyproject.toml \
	  --output-file constraints/newest.txt
	uv pip compile --quiet --universal --python-version 3.10 --extra dev --no-emit-index-url \
	  --no-annotate --no-header --upgrade --constraint constraints/oldest.in pyproject.toml \
	  --output-file constraints/oldest.txt
	uv pip compile --quiet --universal --python-version 3.10 --extra dev --no-emit-index-url \
	  --no-annotate --no-header --upgrade pyproject.toml tests/examples/requirements.txt \
	  --output-file constraints/dg.txt
	uv pip compile --quiet --universal --python-version 3.10 --extra dev --no-emit-index-url \
	  --no-annotate --no-header --upgrade pyproject.toml tests/hosts/celery_requirements.txt \
	  --output-file constraints/celery.txt

clean:  ## Remove the environment and the caches
	rm -rf .venv .nox dist build site .dagster-tests .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The environment is made once and made anew only when what it is made from changes.
$(READY): pyproject.toml constraints/newest.txt
	@echo "==> Making the environment in .venv (once, a minute or two)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "dagster-lifeguard needs Python >= 3.10; name one with: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
	  { echo "Python's venv module is incomplete; on Debian: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints/newest.txt \
	  --progress-bar on --no-compile --editable '.[dev,site]'
	@echo "==> Compiling what was installed, on all cores"
	@$(BIN)/python -m compileall -q -j 0 .venv/lib > .venv/not-compiled.txt 2>&1 || true
	@touch $(READY)

# What Dagster's own tests need besides is kept out of the development environment.
$(SUITES)/.ready: pyproject.toml constraints/newest.txt tests/dagster_suites/requirements.txt
	@echo "==> Making an environment for Dagster's own tests in $(SUITES) (once, a minute or two)"
	@$(PYTHON) -m venv $(SUITES)
	$(SUITES)/bin/python -m pip install --disable-pip-version-check --progress-bar on \
	  --constraint constraints/newest.txt --requirement tests/dagster_suites/requirements.txt \
	  --editable '.[postgres]'
	@touch $@

.PHONY: help demo test test-quick test-oldest test-oldest-part oldest-environment test-dg test-celery test-versions test-dagster check torture bench docs site recordings screenshots dist lock clean

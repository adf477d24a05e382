# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
SIZES ?= 100 1000 5000

.PHONY: help demo test unit e2e check verify generate lint types lab lab-down lock bench mutate trust

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

$(READY): requirements/dev.txt pyproject.toml
	@echo "==> Python environment in $(VENV) (hash-locked)"
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there: install Python 3.11 or newer (Debian: apt-get install python3 python3-venv), or set PYTHON="; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "perfpolicy needs Python 3.11 or newer; set PYTHON=")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make a virtual environment: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: $(READY) ## a running lab, the operator, examples/ce-hub under load; KEEP=1 leaves it running
	@$(BIN)/python -m demo $(if $(KEEP),--keep)

test: $(READY) ## everything CI runs: verify, lint, types, unit tests, e2e on the lab, with minutes per suite
	@$(BIN)/python -m tools.suites all

unit: $(READY) ## unit tests only
	@$(BIN)/python -m pytest -n auto tests

e2e: $(READY) ## end-to-end tests on the lab's real cluster
	@$(BIN)/python -m tools.suites e2e

check: $(READY) ## verify, lint, types and unit tests: no cluster
	@$(BIN)/python -m tools.suites check

generate: $(READY) ## CRDs and reference docs from the models
	@$(BIN)/python -m tools.generate write

verify: $(READY) ## fail where a generated file differs from what `make generate` writes
	@$(BIN)/python -m tools.generate verify

lint: $(READY) ## ruff and import-linter
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

types: $(READY) ## mypy --strict
	@$(BIN)/mypy

lab: $(READY) ## the real local cluster, left running
	@$(BIN)/python -m lab up

lab-down: $(READY) ## take the lab away, with every process, mount, interface and table
	@$(BIN)/python -m lab down

bench: $(READY) ## measurements as ratios, on the fake-node lab and on a Prometheus of their own; renews docs/benchmarks.md
	@$(BIN)/python -m bench.create_burst
	@$(BIN)/python -m bench.rival_controller
	@$(BIN)/python -m bench.scale --document $(SIZES)
	@$(BIN)/python -m bench.churn --minutes 8
	@$(BIN)/python -m bench.rule_truth
	@$(BIN)/python -m bench.alert_chains
	@$(BIN)/python -m bench.many_policies

mutate: $(READY) ## show on the lab that proofs fail: without each kind of child, and with each capability of traffic broken
	@$(BIN)/python -m e2e.mutate
	@$(BIN)/python -m pytest -q -s -p no:randomly e2e/broken.py

trust: $(READY) ## faults at every write and event, every change of every leaf, an hour of churn, on the fake-node lab; make test plays a sample
	@$(BIN)/python -m lab up --node fake
	@$(BIN)/python -m pytest -p no:randomly -s --trust e2e/test_faults.py e2e/test_misoperations.py e2e/test_neighbours.py e2e/test_reconcile.py
	@$(BIN)/python -m bench.churn --minutes 60

lock: $(READY) ## renew requirements/ from pyproject.toml
	@$(BIN)/pip install --quiet uv
	@for spec in "runtime.txt pyproject.toml" "dev.txt pyproject.toml --group dev --group lab -c requirements/runtime.txt" \
	  "image.txt --group image -c requirements/dev.txt"; do set -- $$spec; out=$$1; shift; \
	  $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate "$$@" -o requirements/$$out; done

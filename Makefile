# Every target does its own set-up and can be repeated. `make help` lists them.
PYTHON ?= python3.11
VENV := .venv/bin
PORT ?= 8000
MODEL ?= smollm2
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-test serve test test-tiny test-all test-reliability lint mutation bench bill-of-materials clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

setup: ## install the supported row of versions, the emulator (where there is no NPU) and the plugin into .venv
	@$(PYTHON) scripts/setup.py

setup-test:
	@$(PYTHON) scripts/setup.py --until test

serve: setup ## serve SmolLM2-135M-Instruct on port 8000 (MODEL=..., PORT=...)
	@$(VENV)/ascend serve $(MODEL) -- --port $(PORT)

test-tiny: setup-test ## a minute: is everything alive?
	@$(VENV)/python -m pytest tests/tiny

test: setup-test ## the tests that every commit must pass (under 45 minutes on 2 cores)
	@$(VENV)/python scripts/run_tests.py

test-all: setup-test ## those and the slow ones
	@$(VENV)/python -m pytest

test-reliability: setup-test ## faults, hostile clients and broken files, all of it (under an hour); writes docs/reliability.md
	@$(VENV)/python -m pip install -q "schemathesis>=4"
	@rm -f build/reliability.json
	@RELIABILITY=everything RELIABILITY_REPORT=1 $(VENV)/python -m pytest tests/reliability

lint: setup-test ## ruff, formatting and types (mypy --strict), over everything
	@$(VENV)/ruff check . && $(VENV)/ruff format --check . && $(VENV)/mypy

mutation: setup-test ## change the arithmetic one expression at a time: do tests notice? prints the score (an hour)
	@$(VENV)/python -m pip install -q --require-hashes --no-deps -r requirements/mutation.lock && $(VENV)/python scripts/mutation.py --survivors

bench: setup ## list the benchmarks, each of which prints both sides
	@$(VENV)/python -m benchmarks

bill-of-materials: ## everything that set-up installs, from the locks, as CycloneDX (build/ascend-plugin.cdx.json)
	@$(PYTHON) scripts/bill_of_materials.py

clean: ## remove .venv and build output
	rm -rf .venv build emulator/build

# The verbs of the repository. `demo` and `test` set everything up by themselves.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# uv does not read pip's environment: hand on the directory of local wheels, if there is one.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export HF_HUB_OFFLINE ?= 1
export DO_NOT_TRACK := 1

.PHONY: setup demo ui test lint evidence bench docs base clean

setup: $(READY)  ## virtual environment with pinned dependencies

$(READY): constraints.txt pyproject.toml
	@bash scripts/setup.sh "$(PYTHON)" "$(VENV)"
	@touch $(READY)

demo: setup  ## the whole walk on the embedded data set
	@$(BIN)/vsel demo

ui: setup  ## Dagster UI on http://127.0.0.1:3000
	@$(BIN)/vsel ui

test: setup  ## every test, with the system packages that they need
	@bash scripts/system_packages.sh
	$(BIN)/pytest -n 2 --dist loadfile -m "not ui and not integration"
	$(BIN)/pytest -m "ui or integration"

lint: setup  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

evidence: setup  ## methods x budgets x seeds on the embedded rows, and their leaderboard; resumable
	@$(BIN)/vsel evidence

bench: setup  ## every benchmark at full size; see docs/benchmarks.md
	@missed=""; for file in benchmarks/bench_*.py; do \
		echo "== $$file"; $(BIN)/python $$file || missed="$$missed $$file"; \
	done; if [ -n "$$missed" ]; then echo "missed, or not possible on this machine:$$missed"; exit 1; fi

docs: setup  ## regenerate the reference pages from the code
	$(BIN)/python docs/generate.py

base: setup  ## train the demo's base checkpoint anew
	$(BIN)/python -m vsel_platform.demo.train_base

clean:  ## remove the environment and the demo
	rm -rf $(VENV) demo

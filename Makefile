# Targets for people, the README and continuous integration. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV       ?= .venv
PYTHON     ?=
EXPERIMENT ?= experiments/quickstart.toml
PROCESSES  ?= $(if $(shell command -v nvidia-smi),1,2)
WORKERS    ?= 2

PLUGINS  := plugins/wm_mlp plugins/wm_flow plugins/policy_mlp plugins/policy_flow
PROJECTS := pyproject.toml $(PLUGINS:%=%/pyproject.toml)
STAMP    := $(VENV)/.installed
BIN      := $(VENV)/bin

.PHONY: help run test endurance lint bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=python3.11, VENV=.venv, EXPERIMENT=FILE.toml, PROCESSES=2 (of the run), WORKERS=2 (of the tests)"

run: $(STAMP) ## Make the environment if needed, then run EXPERIMENT
	@$(BIN)/fmbpo run $(EXPERIMENT) --processes $(PROCESSES)

test: $(STAMP) ## Make the environment if needed, then run all tests except the endurance tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests plugins

endurance: $(STAMP) ## Run the endurance tests and write docs/endurance.md
	@OMP_NUM_THREADS=1 $(BIN)/python tests/endurance.py $(WORKERS)

lint: $(STAMP) ## Check style (ruff), types (mypy) and import directions (import-linter)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

bench: $(STAMP) ## Run the benchmarks
	@shopt -s nullglob; files=(benchmarks/*.py); \
	if (( $${#files[@]} == 0 )); then echo "benchmarks/ has no benchmark" >&2; exit 1; fi; \
	for file in "$${files[@]}"; do echo "== $$file"; $(BIN)/python "$$file"; done

clean: ## Remove the environment and the caches; runs/ stays
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# One pip command, so that the bound on torch in pyproject.toml holds for everything that is
# installed. The command repeats the bound, which makes pip resolve torch first.
$(STAMP): $(PROJECTS)
	@python=""; candidates="$(or $(PYTHON),python3.11 python3.12 python3 python)"; \
	for name in $$candidates; do \
	  if "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then \
	    python="$$name"; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "fmbpo needs Python 3.11 or 3.12 (labmaze, which dm_control needs, has no newer wheel); none of these is: $$candidates" >&2; \
	  echo "Install it, or give its path: make PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	echo "Making $(VENV) with $$("$$python" --version) (about two minutes, 2 GB)"; \
	"$$python" -m venv $(VENV) \
	  || { echo "venv failed. On Debian and Ubuntu, install it first: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  "torch>=2.8,<2.14" -e ".[dev]" $(PLUGINS:%=-e %)
	@$(BIN)/python -m compileall -q fmbpo $(PLUGINS) >&2
	@$(BIN)/fmbpo plugins
	@touch $@

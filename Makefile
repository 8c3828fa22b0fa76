# Each target sets up all it needs in .venv. Another interpreter: make test PYTHON=python3.12
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
# Two processes, each module in one of them: clusters and archives are shared within a module.
# The order is that of tests/conftest.py.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
BENCH ?= $(wildcard benchmarks/[a-z]*.py)
BENCH_ARGS ?=

PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEMO := $(VENV)/.installed-demo
$(STAMP): EXTRA := dev
$(STAMP): TAKES := with torch and all tools: 7 GB, three to four minutes
$(DEMO): EXTRA := serve
$(DEMO): TAKES := about a minute
# CI runs everything; a newcomer gets the answer in seconds.
SELECT := $(if $(filter true 1,$(CI)),,-m "not slow")

.PHONY: help install demo test test-all lint format bench hooks clean distclean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

# The demo needs neither the tools nor the networks (some 6 GB): it is there in a minute.
$(DEMO) $(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no '$(PYTHON)' on the PATH; name one of 3.11 or newer: make PYTHON=python3.12"; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: lcengine needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1);" \
	       "name another: make PYTHON=python3.12"; \
	  exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { \
	  echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu:" \
	       "apt install python3-venv, then rm -r $(VENV)"; \
	  exit 1; }
	@echo "Installing lcengine[$(EXTRA)] into $(VENV) ($(TAKES), once) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA)]'
	@touch $@

install: $(STAMP) ## set up .venv
	@echo "Ready: $(VENV)/bin/lcengine --help"

demo: $(DEMO) ## simulate an archive, serve it, composite it, compare with the truth
	@echo "Running the demo; it writes into demo/ ..."
	@$(VENV)/bin/lcengine demo

test: $(STAMP) ## the tests (without the slow ones; all of them where CI=true)
	@echo "Running the tests$(if $(SELECT), but the slow ones; all: make test-all) ..."
	@$(PY) -m pytest $(SELECT) $(PYTEST_ARGS)

test-all: $(STAMP) ## all tests
	@echo "Running all tests ..."
	@$(PY) -m pytest $(PYTEST_ARGS)

lint: $(STAMP) ## ruff, mypy, import-linter
	@echo "ruff check";   $(VENV)/bin/ruff check .
	@echo "ruff format";  $(VENV)/bin/ruff format --check .
	@echo "mypy";         $(VENV)/bin/mypy
	@echo "lint-imports"; $(VENV)/bin/lint-imports
	@echo "Clean."

format: $(STAMP) ## rewrite the code in the house format
	@$(VENV)/bin/ruff check --fix-only .
	@$(VENV)/bin/ruff format .

bench: $(STAMP) ## the benchmarks (BENCH=one.py, BENCH_ARGS=...)
	@test -n "$(BENCH)" || { echo "error: no benchmark in benchmarks/"; exit 1; }
	@for script in $(BENCH); do \
	  echo "Running $$script ..."; $(PY) $$script $(BENCH_ARGS); \
	done

hooks: $(STAMP) ## run the checks at each git commit
	@$(VENV)/bin/pre-commit install

clean: ## remove caches, builds and the demo
	@rm -rf build dist demo .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Clean; $(VENV) is kept (make distclean removes it)."

distclean: clean ## also remove .venv
	@rm -rf $(VENV)

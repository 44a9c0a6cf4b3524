# `make demo` and `make test` work on a fresh clone: each makes .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo packs test test-long lint bench web clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

demo: setup
	$(BIN)/loratelier demo

# Every pack of examples/packs on the demo base: in the store afterwards, with its tests.
packs: setup
	$(BIN)/python -m bench.packs

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -m "not long"

test-long: setup
	$(BIN)/python -m pytest -m long

# Alone on the machine: a benchmark beside other work measures that work.
bench: setup
	$(BIN)/python bench/bank.py

# The page that `loratelier studio` serves. What is built is committed, so that nobody needs Node.
web:
	cd web && npm ci && npm run check && npm run build

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

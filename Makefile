# Everything a fresh machine needs is Python 3.11 and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test test-all lint bench clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## Make .venv with every dependency at the versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## Run the whole pipeline once on a generated catalogue
	$(BIN)/pinfeather demo

test: $(STAMP) ## Run the tests (under 8 minutes on 2 cores)
	$(BIN)/python -m pytest -m "not slow"

test-all: $(STAMP) ## Run every test, the long ones too
	$(BIN)/python -m pytest

lint: $(STAMP) ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy feature_repo embedders materialize serving_client pinfeather

bench: $(STAMP) ## Run the benchmarks behind the README's numbers
	$(BIN)/python -m benchmarks.lexical
	$(BIN)/python -m benchmarks.encode
	$(BIN)/python -m benchmarks.demo
	@test -e ../shared/data/crowdflower/dev_pairs.parquet && $(BIN)/python -m benchmarks.crowdflower \
	  || echo "benchmarks.crowdflower: not run (no data; see its first lines)"

clean: ## Remove the environment, caches and this checkout's data
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis feature_repo/data

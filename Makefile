# Everything a fresh machine needs is Python 3.11 and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Test files go to two processes, the long ones first, but not where they would share one Qdrant server.
WORKERS := $(if $(QDRANT_URL),,-n 2 --dist loadfile --no-loadscope-reorder)
# Compiled files are kept whatever the environment says: each process that begins would compile all of it again.
test test-all: export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo test test-all test-feast lint bench results-cpu results-folds clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## Make .venv with every dependency at the versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## Run the whole pipeline once on a generated catalogue
	$(BIN)/pinfeather demo

test: $(STAMP) ## Run the tests (10 minutes on 2 cores)
	$(BIN)/python -m pytest -m "not slow" $(WORKERS)

test-all: $(STAMP) ## Run every test, the long ones too
	$(BIN)/python -m pytest $(WORKERS)

test-feast: $(STAMP) ## Run Feast's own online-store tests: make test-feast FEAST_SRC=<checkout of feast v0.67.0>
	@test -d "$(FEAST_SRC)/sdk/python/tests/universal/online_store" || \
	  { echo "test-feast: give FEAST_SRC=<checkout of feast v0.67.0>, see tests/feast_universal/README.md"; exit 2; }
	$(BIN)/python -m pip install --quiet --upgrade --target build/feast_universal --no-deps \
	  --requirement tests/feast_universal/requirements.txt
	FEAST_IS_LOCAL_TEST=True FEAST_USAGE=False FULL_REPO_CONFIGS_MODULE=pinfeather_repo_configuration \
	  PYTHONPATH=tests/feast_universal:build/feast_universal $(BIN)/pytest -c tests/feast_universal/pytest.ini --rootdir $(FEAST_SRC) \
	  --integration -k "not dynamo and not entity_ttl and not connection_pool" \
	  $(FEAST_SRC)/sdk/python/tests/universal/online_store \
	  $(FEAST_SRC)/sdk/python/tests/integration/online_store/test_universal_online_types.py

lint: $(STAMP) ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy feature_repo embedders materialize serving_client pinfeather

bench: $(STAMP) ## Run the benchmarks behind the README's numbers
	$(BIN)/python -m benchmarks.lexical
	$(BIN)/python -m benchmarks.encode
	$(BIN)/python -m benchmarks.demo
	$(BIN)/python -m benchmarks.gate
	$(BIN)/python -m benchmarks.online_store
	$(BIN)/python -m benchmarks.publications
	$(BIN)/python -m benchmarks.aggregates --rows 5000000 --day-rows 50000
	$(BIN)/python -m benchmarks.captions
	$(BIN)/python -m benchmarks.features_report
	$(BIN)/python -m benchmarks.ablation
	$(BIN)/python -m benchmarks.query_cache
	$(BIN)/python -m benchmarks.home_feed
	$(BIN)/python -m benchmarks.serving.score
	$(BIN)/python -m benchmarks.serving.related
	$(BIN)/python -m benchmarks.serving.start
	$(BIN)/python -m benchmarks.serving.http
	$(BIN)/python -m benchmarks.materialize.scale --pins 1000000
	$(BIN)/python -m benchmarks.materialize.edge
	$(BIN)/python -m benchmarks.materialize.kills
	$(BIN)/python -m benchmarks.materialize.peers
	@test -e ../shared/data/goodbooks_shelves && $(BIN)/python -m benchmarks.board_titles \
	  || echo "benchmarks.board_titles: not run (no data; see its first lines)"
	@test -e ../shared/data/crowdflower/dev_pairs.parquet && $(BIN)/python -m benchmarks.crowdflower \
	  || echo "benchmarks.crowdflower: not run (no data; see its first lines)"
	@test -e ../shared/data/crowdflower/dev_pairs.parquet && $(BIN)/python -m benchmarks.retrieval \
	  || echo "benchmarks.retrieval: not run (no data; see its first lines)"

results-cpu: $(STAMP) ## Train teacher and student and make the tables of docs/results.md (an hour or two on 2 cores; never timed as one run)
	@test -d build/relevance/student-whole || $(BIN)/python -m benchmarks.relevance.train
	$(BIN)/python -m benchmarks.relevance.backbones
	$(BIN)/python -m benchmarks.relevance.sources
	$(BIN)/python -m benchmarks.relevance.distillation
	$(BIN)/python -m benchmarks.relevance.amounts
	$(BIN)/python -m benchmarks.relevance.languages
	$(BIN)/python -m benchmarks.relevance.features
	$(BIN)/python -m benchmarks.relevance.render

results-folds: results-cpu ## Judge teacher and student on every query: a training for each other fold (an hour for two side by side)
	$(BIN)/python -m benchmarks.relevance.folds
	$(BIN)/python -m benchmarks.relevance.render

clean: ## Remove the environment, caches and this checkout's data
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis feature_repo/data

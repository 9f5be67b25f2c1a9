# Every target does all of its own set-up. A machine needs Python 3.11 or 3.12 and make, nothing else.

ifndef PYTHON
PYTHON := $(shell for name in python3.11 python3.12 python3; do \
	"$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo "$$name" && break; done)
endif

BIN := .venv/bin
UV := VIRTUAL_ENV=.venv $(BIN)/uv
STAMP := .venv/.setup-stamp
TESTS := OMP_WAIT_POLICY=passive $(BIN)/pytest -n 2 --dist loadfile
COMPILE = $(UV) pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate --quiet $(if $(UPGRADE),--upgrade)

export UV_HTTP_TIMEOUT ?= 180

.DEFAULT_GOAL := help
.PHONY: help setup run test stores systems lint types docs client proof rehearse bench gallery lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

setup: $(STAMP) ## make .venv with everything that requirements/dev.txt pins

# Bytecode is compiled here, once: Dagster imports five times faster with it, and a uv install leaves none.
$(STAMP): requirements/bootstrap.txt requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or 3.12 is needed; name yours: make PYTHON=/path/to/python3.11'; exit 1; }
	@echo 'setup 1/3: .venv and the installer, by $(PYTHON)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/bootstrap.txt
	@echo 'setup 2/3: the pinned packages, each checked against its hash, then compiled to bytecode'
	$(UV) pip sync --require-hashes --compile-bytecode requirements/bootstrap.txt requirements/dev.txt
	@echo 'setup 3/3: the project itself, editable'
	$(UV) pip install --no-deps --no-build-isolation --editable .
	@touch $@

run: setup ## start the pipeline: Dagster and everything beside it; STACK=full: with S3, Redis, MLflow and more; Ctrl-C stops all
	$(BIN)/fraud up $(if $(STACK),--stack $(STACK))

# Files in their order, the long ones of tests/integration first, so that both processes are at work to the end.
test: setup ## unit and integration tests
	$(TESTS) --no-loadscope-reorder --ignore=tests/proofs --ignore=tests/systems

stores: setup ## the tests of what reads and writes the store again, on a real bucket
	$(TESTS) --store s3 \
		tests/integration/pipeline/test_pipeline.py tests/integration/pipeline/test_command_line.py \
		tests/integration/test_ways_round_the_gate.py \
		$(addprefix tests/integration/test_api_server.py::test_, \
			it_starts_without_a_model_and_serves_the_first_one_that_comes \
			two_workers_agree_within_a_poll_and_share_metrics_and_keys \
			after_sigkill_it_serves_again_from_the_same_home) \
		$(addprefix tests/unit/, \
			fraud_api/test_served.py fraud_api/test_skew.py fraud_api/endpoints/test_score.py \
			fraud_assets/runtime/test_io_manager.py fraud_assets/schedule fraud_assets/stages \
			fraud_assets/training/test_promotion.py fraud_assets/training/test_rows.py \
			fraud_core/models/test_follower.py fraud_ui/test_desk_loading.py fraud_ui/views/test_models.py)

systems: setup ## whole systems, started as people start them: documents, containers' commands, workers, the full stack
	$(TESTS) tests/systems

lint: setup ## style, formatting and the layer rule
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: setup ## mypy, strict
	$(BIN)/mypy

docs: setup ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# From a copy: a build leaves folders beside what it builds.
client: setup ## the client as a wheel of its own, in dist
	rm -rf build/client && mkdir -p build && cp -R fraud_client build/client
	$(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist build/client

proof: setup ## the long proofs at full size; writes docs/proofs/*.json
	$(BIN)/pytest tests/proofs --full

rehearse: setup ## the same proofs, reduced; nothing is written
	$(TESTS) tests/proofs

bench: setup ## the API against an empty route, and more (needs wrk); writes docs/bench.md and the sizing table
	OMP_WAIT_POLICY=passive $(BIN)/python bench/score.py
	OMP_WAIT_POLICY=passive $(BIN)/python bench/metrics.py
	OMP_WAIT_POLICY=passive $(BIN)/python bench/busy_card.py

gallery: setup ## look at the data: executes gallery/explore.py; writes docs/gallery.md and its pictures
	$(BIN)/python -m gallery.make

lock: setup ## pin again after a change of pyproject.toml; UPGRADE=1 takes newer versions
	$(COMPILE) --group bootstrap --output-file requirements/bootstrap.txt
	$(COMPILE) pyproject.toml --all-extras --output-file requirements/dev.txt
	for part in pipeline scorer ui; do \
		$(COMPILE) pyproject.toml --extra $$part --constraints requirements/dev.txt --output-file requirements/$$part.txt || exit 1; done
	$(BIN)/python requirements/third_party.py

clean: ## remove the environment and the caches, never .fraud
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build

# Everything here works in a fresh clone: each target first makes the environment it needs.
# Wants: make, and a Python >= 3.11 (scripts/bootstrap.sh finds it or says what to install).

SHELL := /bin/sh
PY := .venv/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help env demo dev test lint format types bench bench-compare chaos versions thirdparty docs clean

help: ## show this list
	@echo "umbel: make <target>"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: ## make or refresh the environment in .venv
	@scripts/bootstrap.sh

demo: env ## the main job, start to finish: a site, a worker, an e-mail (SQLite, nothing else needed)
	@$(PY) scripts/demo.py

dev: env ## the same site and worker, kept running until Ctrl-C (BROKER_URL=redis://... for Redis)
	@$(PY) scripts/dev.py

test: env ## the whole test suite; ARGS="tests/unit -x" for a part; INSTALL=1 may apt-get missing servers
	@$(PY) scripts/test.py $(ARGS)

lint: env ## ruff: rules and format
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

format: env ## let ruff rewrite what it can
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

types: env ## mypy --strict
	@.venv/bin/mypy

bench: env ## the benchmarks; each prints JSON and keeps it in benchmarks/results (ARGS="publish --rounds 1" for one)
	@scripts/bench.sh $(ARGS)

bench-compare: env ## benchmarks/results beside those of the last release (ARGS="OLD NEW": folders or revisions; --worse)
	@$(PY) benchmarks/compare.py $(ARGS)

SEEDS ?= 20
SECONDS ?= 120
DRIVER ?= redis,sqlite,postgresql
chaos: env ## faults of all kinds, 20 seeds, and a table; then the slow tests (SEEDS= SECONDS= DRIVER= SEED= LEASE= POOLS= KINDS=; SLOW=0: no slow tests)
	@$(PY) -m tests.chaos.run --seeds $(SEEDS) --seconds $(SECONDS) --driver $(DRIVER) \
	  $(if $(SEED),--seed $(SEED)) $(if $(LEASE),--lease $(LEASE)) $(if $(POOLS),--pools $(POOLS)) $(if $(KINDS),--kinds $(KINDS))
	@if [ -z "$(SEED)" ] && [ "$(SLOW)" != 0 ]; then UMBEL_CHAOS=1 $(PY) scripts/test.py -m slow; fi

versions: env ## the drivers' tests on other versions of the servers: Redis, Valkey, PostgreSQL, RabbitMQ (needs root; ARGS="valkey-8.1")
	@$(PY) scripts/versions.py $(ARGS)

thirdparty: env ## packages that were written for Celery, on umbel in its place, with their own tests (needs PyPI)
	@$(PY) scripts/thirdparty.py $(ARGS)

docs: env ## write docs/reference/settings.md from the table of settings
	@$(PY) scripts/settings_reference.py

clean: ## remove environments, caches and what the example wrote
	rm -rf .venv .venv-django6 .cache .mypy_cache .ruff_cache .pytest_cache .coverage htmlcov build dist
	rm -rf examples/mysite/*.sqlite3* examples/mysite/mail
	find src tests examples scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

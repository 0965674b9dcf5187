# `make` alone says what there is. All set-up stays inside .venv/, is done by the first target that needs it,
# and is skipped from then on until requirements.lock or pyproject.toml changes.

PYTHON ?= python3
N ?= 4

bin := .venv/bin
ready := .venv/.ready
scheduler := $(bin)/scheduler

.DEFAULT_GOAL := help
.PHONY: help run run-api run-workers load-scripts test test-long test-all lint bench clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; \
	  do printf '%-20s %s\n' "$$name" "$$text"; done

run: $(ready) ## one process with server, API, a worker and the watchdog on port 8080  [APP=module:attribute]
	@$(scheduler) dev $(APP)

run-api: $(ready) ## the API alone
	@$(scheduler) api

run-workers: $(ready) ## N=4 worker processes  [APP=module:attribute] [QUEUES=mail:5,reports:1] [CONCURRENCY=100]
	@$(scheduler) worker $(APP) --processes $(N) $(if $(QUEUES),--queue '$(QUEUES)') \
	  $(if $(CONCURRENCY),--concurrency $(CONCURRENCY))

load-scripts: $(ready) ## load the scripts into a server and print their manifest  [REDIS_URL=redis://…]
	@$(scheduler) scripts load $(if $(REDIS_URL),--redis-url '$(REDIS_URL)')

# Much of the time of a test of processes is waiting: three tests at once keep two cores busy.
test: $(ready) ## the tests, in minutes; what this machine lacks is skipped, and listed at the end
	@$(bin)/python -m pytest -n 3 --dist worksteal -m 'not long and not exhaustive'

test-long: $(ready) ## the tests that take longer; random ones are bounded in time and have a new seed each run
	@$(bin)/python -m pytest -n 2 --dist worksteal -m 'long and not alone and not exhaustive'
	@$(bin)/python -m pytest -m 'long and alone and not exhaustive'

test-all: $(ready) ## every test, the exhaustive ones too: about an hour
	@$(bin)/python -m pytest -n 2 --dist worksteal -m 'not alone'
	@$(bin)/python -m pytest -m alone

lint: $(ready) ## ruff, mypy --strict, luacheck over the composed scripts, and what checks deploy/
	@$(bin)/ruff check
	@$(bin)/ruff format --check
	@$(bin)/mypy
	@$(bin)/python tests/rules/lint_lua.py
	@$(bin)/hadolint deploy/Dockerfile
	@$(bin)/check-jsonschema -q --builtin-schema vendor.compose-spec deploy/compose.yaml
	@$(bin)/yamllint -s -d '{extends: default, rules: {line-length: {max: 130}, document-start: disable, braces: {max-spaces-inside: 1}}}' deploy

bench: $(ready) ## what it costs, beside bare yardsticks; some minutes  [ARGS='drain rest --server redis']
	@$(bin)/python tests/bench/run.py $(ARGS)

clean: ## remove what was installed and cached; the jobs in .scheduler/ stay
	@rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find scheduler tests -name __pycache__ -prune -exec rm -rf {} +

# uv is faster, and finds or fetches a Python of its own; where there is none or it fails, pip does the same.
$(ready): requirements.lock pyproject.toml
	@echo 'Setting up .venv (once) …' >&2
	@if command -v uv >/dev/null && uv venv -q --allow-existing --python '>=3.11' .venv \
	  && uv pip install -q --python $(bin)/python --require-hashes -r requirements.lock \
	  && uv pip install -q --python $(bin)/python --no-deps --no-build-isolation -e .; then exit 0; fi; \
	fail() { echo "$$1" >&2; exit 1; }; \
	command -v $(PYTHON) >/dev/null || fail "$(PYTHON) is missing: install Python 3.11 or newer."; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || fail "Python 3.11 or newer is needed and $(PYTHON) is older: name another, as in make PYTHON=python3.12"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || fail "$(PYTHON) lacks venv or ensurepip: install them (Debian, Ubuntu: apt install python3-venv)."; \
	set -e; \
	$(PYTHON) -m venv .venv; \
	$(bin)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock; \
	$(bin)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(ready)

# Needs Python 3.11 or later, make and git; everything else goes into .venv.
#
#   make demo    run the example pipeline five times and look at its state
#   make test    the whole test suite; what needs a server that the environment does not name is skipped
#   make test-servers  the same with real servers, which Docker runs; MYSQL=mariadb for that instead of MySQL
#   make lint    style, types, import rules, spelling, gates
#   make stress  the long forms of the tests
#   make bench   every workload of the benchmarks on each store at hand; ARGS="scale memory" for the long ones
#   make bench-check  count what short pieces of work do, and compare with what was committed
#   make bench-page  docs/performance.md and its charts, from what was measured
#   make bench-peers  install what the benchmarks compare with, each in an environment of its own
#   make constraints  pin the newest versions
#   make clean   remove what these commands made

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check -qq
WORKERS = 2

RUN_STAMP = $(VENV)/.installed-run
DEV_STAMP = $(VENV)/.installed-dev

# The servers of `make test-servers`, on ports of 127.0.0.1; compose.yaml has the same ones.
MYSQL = mysql
export SEEKNAL_POSTGRES_PORT ?= 25432
export SEEKNAL_MYSQL_PORT ?= 23306
export SEEKNAL_MARIADB_PORT ?= 23307
export SEEKNAL_LIBSQL_PORT ?= 28080
MYSQL_PORT = $(if $(filter mariadb,$(MYSQL)),$(SEEKNAL_MARIADB_PORT),$(SEEKNAL_MYSQL_PORT))

.PHONY: demo test test-servers lint stress bench bench-check bench-page bench-peers clean constraints
.DELETE_ON_ERROR:

demo: $(RUN_STAMP)
	@PATH="$$(pwd)/$(BIN):$$PATH" sh examples/weather/demo.sh

test: $(DEV_STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not nightly" $(ARGS)

test-servers: $(DEV_STAMP)
	@trap 'docker compose down --volumes' EXIT; trap 'exit 130' INT TERM; \
	docker compose up --detach --wait postgres $(MYSQL) libsql && \
	SEEKNAL_TEST_POSTGRES_URL=postgresql://postgres@127.0.0.1:$(SEEKNAL_POSTGRES_PORT)/test \
	SEEKNAL_TEST_MYSQL_URL=mysql://root@127.0.0.1:$(MYSQL_PORT)/test \
	SEEKNAL_TEST_LIBSQL_URL=http://127.0.0.1:$(SEEKNAL_LIBSQL_PORT) \
	$(BIN)/python -m pytest -n $(WORKERS) -m "not nightly" --require-backends $(ARGS)

stress: $(DEV_STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -m nightly $(ARGS)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports --no-logo
	$(BIN)/codespell README.md CHANGELOG.md CONTRIBUTING.md changelog.d docs examples scripts src
	$(BIN)/python scripts/gates.py
	$(BIN)/towncrier build --draft --version next >/dev/null

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; try: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e '.[run]'
	@touch $@

$(DEV_STAMP): $(VENV)/bin/python pyproject.toml constraints.txt requirements-dev.txt
	$(PIP) install -c constraints.txt -r requirements-dev.txt -e '.[dask,mysql,postgres,run,testing,turso,zstd]'
	@touch $@ $(RUN_STAMP)

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks $(ARGS)

bench-check: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.guard $(ARGS)

bench-page: build/bench-page/.installed
	build/bench-page/bin/python -m benchmarks.page

build/bench-page/.installed: requirements-bench.txt
	$(PYTHON) -m venv build/bench-page
	build/bench-page/bin/python -m pip --disable-pip-version-check -qq install -r requirements-bench.txt
	@touch $@

PEERS = $(notdir $(basename $(wildcard benchmarks/peers/*.txt)))

bench-peers: $(PEERS:%=build/peers/%/.installed)

build/peers/%/.installed: benchmarks/peers/%.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	@touch $@

# The newest versions that fit pyproject.toml and requirements-dev.txt, from an empty environment.
constraints:
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip --quiet install -r requirements-dev.txt '.[dask,mysql,postgres,run,testing,turso,zstd]'
	@{ sed -n '/^#/p' constraints.txt; \
	  build/constraints/bin/python -m pip freeze | grep -v -i -e '^-e' -e '^#' -e '^seeknal'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf examples/*/target target

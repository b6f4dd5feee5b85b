# Every target that needs the environment makes it first; `make env` is quick when nothing has changed.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
# Tests of a file share what they compile, so they run in one process; in the order of tests/conftest.py.
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PYTEST_ARGS ?=
# The tests that meet every part of the numerics.
TYPED := contract engine/test_every_method.py engine/test_evaluate.py samplers/test_base.py samplers/test_chains.py
TYPED += samplers/diffusion/test_processes.py targets/test_contract.py warmup/test_adapt.py run/test_sample.py
TYPED := $(TYPED:%=tests/%)
# From Python 3.12 on "sysmon" counts lines at nearly no cost; before, counting costs a third of the time.
COVERAGE_CORE ?= ctrace
SAMPLE_ARGS ?= --output runs
BENCH_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SITE_PACKAGES = "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

.DEFAULT_GOAL := help
.PHONY: help env sample test test-all test-newest test-typed test-grid bench lint style types quick lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP) ## Make the environment in .venv (from python3, or PYTHON=...)

sample: $(STAMP) ## Sample the breast-cancer posterior; the trace and the plots go to runs/
	$(BIN)/parsample sample breast_cancer $(SAMPLE_ARGS)

# Types are checked while the tests run: mypy keeps one core busy, and the tests wait for each other at their ends.
test: style ## Lint, check types, run all tests but the slow ones
	$(MAKE) --no-print-directory --jobs=2 types quick

# Two runs: whether types are checked at every call is settled when the package is imported. One may have none of the
# tests that were asked for, which pytest calls 5.
quick: $(STAMP)
	@status=0; \
	PARSAMPLE_TYPED=1 $(BIN)/python -m pytest $(PARALLEL) $(TYPED) $(PYTEST_ARGS) || [ $$? = 5 ] || status=1; \
	$(BIN)/python -m pytest $(PARALLEL) $(TYPED:%=--ignore=%) $(PYTEST_ARGS) || [ $$? = 5 ] || status=1; \
	exit $$status

test-all: $(STAMP) ## The slow tests too, with coverage
	COVERAGE_CORE=$(COVERAGE_CORE) $(BIN)/python -m pytest $(PARALLEL) -m 'not grid' --cov --cov-report=term $(PYTEST_ARGS)

test-newest: $(STAMP) ## What CI repeats on the newest Python: all but the quick tests of numerics; the slow ones
	$(BIN)/python -m pytest $(PARALLEL) -m 'not grid and (slow or not numerics)' $(PYTEST_ARGS)

test-typed: $(STAMP) ## Those of them in which types and shapes are checked at every call, alone
	PARSAMPLE_TYPED=1 $(BIN)/python -m pytest $(PARALLEL) $(TYPED) $(PYTEST_ARGS)

test-grid: $(STAMP) ## The rest of the large tables: methods, distributions, models, options; test-all takes a part
	$(BIN)/python -m pytest $(PARALLEL) -m grid $(PYTEST_ARGS)

bench: $(STAMP) ## Effective draws a second beside NumPyro, BlackJAX and nutpie; BENCH_ARGS="--quick", "--data FOLDER"
	$(BIN)/python -m benchmarks.bench $(BENCH_ARGS)

lint: style types ## Check the style, and the types of package and tests

style: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(STAMP)
	$(BIN)/python -m mypy

lock: ## Write constraints.txt anew: the newest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet uv
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --extra dev --upgrade \
		--custom-compile-command 'make lock' --output-file constraints.txt pyproject.toml

# uv takes a sixth of the time that pip takes, which stands in where uv cannot be had. The build backend comes from the
# lock too, hence the two steps and --no-build-isolation. Byte code is compiled here because pip and Python leave that
# out where PYTHONDONTWRITEBYTECODE is set, and importing without it is 2 to 5 times slower; the errors that are silenced
# come from files which are templates, not modules.
$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" > /dev/null || { echo "parsample needs Python 3.11 or newer, and there is no '$(PYTHON)' on the path: name one with 'make PYTHON=/path/to/python3.11'." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "parsample needs Python 3.11 or newer, and '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1): name a newer one with 'make PYTHON=/path/to/python3.11'." >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt uv > /dev/null 2>&1 || true
	@set -e; install() { \
		{ [ -x $(BIN)/uv ] && $(BIN)/uv pip install --quiet --python $(BIN)/python "$$@"; } \
			|| $(BIN)/python -m pip install --quiet --no-compile "$$@"; }; \
	install --constraint constraints.txt hatchling; \
	install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	-@$(BIN)/python -m compileall -q -j 0 $(SITE_PACKAGES) > /dev/null 2>&1
	@touch $@

# Every target sets up what it needs: .venv is created once, and again only when the project's requirements change.
PYTHON ?= python3
SPACE ?= partial_unfreeze
BIN := .venv/bin
# Two processes on two cores: with more threads, they would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup sweep test test-long test-cluster bench bench-full clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed  ## create .venv and install the project into it

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:3]; sys.exit(None if (3, 11) <= v < (3, 15) and v != (3, 14, 1) else f"Python 3.11 to 3.14 (but not 3.14.1) is needed, {sys.executable} is %d.%d.%d: make PYTHON=python3.13" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

sweep: setup  ## sweep the demo set (SPACE=partial_unfreeze) and write its report under runs/
	$(BIN)/python -m sweep.run --space $(SPACE)

test: setup  ## ruff, mypy and all tests except the long ones
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy & types=$$!; $(PYTEST) -m "not long and not cluster"; tests=$$?; wait $$types && exit $$tests

test-long: setup  ## whole sweeps: killed, resumed, extended, with folds; and every network
	$(PYTEST) -m long

test-cluster: setup  ## clusters and lost processes; three simulated hosts (network namespaces) if run as root
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,cluster]'
	timeout --signal=INT 25m env $(PYTEST) -m cluster -rs $(ARGS)

bench: setup  ## measure the speed and memory table of benchmarks/
	$(BIN)/python -m benchmarks.speed

bench-full: setup  ## whole sweeps compared with the published way and a bare loop: takes hours, continues where it stopped
	$(BIN)/python -m benchmarks.full

clean:  ## remove .venv and caches; keeps runs/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info

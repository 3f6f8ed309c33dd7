# `make demo` trains, `make test` tests everything, `make check` the part that takes a minute. Each installs into .venv
# when something is missing or has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RECIPE ?= recipes/dpo_hh.yaml
ARGS ?=
# Processes that the tests run in: one a core, and few enough for a laptop's memory.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n < 4 ? n : 4 )))

.PHONY: demo check test mutants lint clean

demo: $(STAMP)  ## train the default recipe on the embedded sample and report
	$(BIN)/alignzoo run $(RECIPE) $(ARGS)

test: $(STAMP)  ## run every test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: $(STAMP)  ## the fast lane: the sharpest tests of every room
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(ARGS)

mutants: $(STAMP)  ## break the engine one line at a time; the tests named for each break must fail
	$(BIN)/python benchmarks/mutants.py $(ARGS)

lint: $(STAMP)  ## ruff, codespell, the rooms' imports, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

# torch comes first and alone: with it in place nothing below asks a registry for another build of it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info

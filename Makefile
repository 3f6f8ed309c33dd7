# `make demo` trains and reports. `make test` runs every test, `make check` the fast ones.
# Each command first installs into .venv when something is missing or has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RECIPE ?= recipes/dpo_hh.yaml
ARGS ?=
# Test processes: one for each core, at most four, to limit memory.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n < 4 ? n : 4 )))

.PHONY: demo check test mutants lint docs clean

demo: $(STAMP)  ## train a recipe on the embedded dataset and write a report
	$(BIN)/alignzoo run $(RECIPE) $(ARGS)

check: $(STAMP)  ## run the fast tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(ARGS)

test: $(STAMP)  ## run every test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

mutants: $(STAMP)  ## break the engine one line at a time; the tests named for each break must fail
	$(BIN)/python benchmarks/mutants.py $(ARGS)

lint: $(STAMP)  ## ruff, codespell, the rooms' imports, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

docs: $(VENV)/.docs  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

$(VENV)/.docs: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Install torch first and alone, so that pip does not look for another build of it afterwards.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@

clean:  ## remove the environment and build files
	rm -rf $(VENV) build *.egg-info

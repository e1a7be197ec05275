# Everything sets itself up: a fresh machine needs Python 3.11 or newer with pip, and make. A C++ compiler is optional.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test lint types docs bench claims readme clean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(READY) ## a virtual environment in .venv with the tested versions

# The stamp comes last, so that an interrupted installation is taken up again.
$(READY): pyproject.toml constraints.txt $(wildcard setup.py) $(wildcard src/fovea/kernels/native/*.[ch]pp src/fovea/kernels/native/*.h)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "fovea needs Python 3.11 or newer; say which with: make PYTHON=python3.11 ..."; exit 1; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing torch into $(VENV) (once; some minutes)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools wheel torch
	@echo "Installing fovea and what its tests and documents need"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev,docs]'
	@touch $(READY)

demo: $(READY) ## train a small super-resolution network, restore a photograph, write a report
	$(BIN)/fovea run hat

test: $(READY) ## all tests
	$(BIN)/python -m pytest -n auto --maxprocesses 8

lint: $(READY) ## style, and that folders import only from those below them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY) ## static types
	$(BIN)/pyright

docs: $(READY) ## the documentation, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY) ## measure attention on this machine, into benchmarks/results
	$(BIN)/python benchmarks/ocab_memory.py
	$(BIN)/python benchmarks/tiled_attention.py
	$(BIN)/python benchmarks/cpu_attention.py
	$(BIN)/python scripts/native.py
	$(BIN)/python scripts/readme.py

claims: $(READY) ## measure what the papers claim, into benchmarks/ledger
	$(BIN)/fovea claims

readme: $(READY) ## draw the README's picture and write its tables anew
	$(BIN)/python scripts/readme.py

clean: ## all that was built, but for the environment
	rm -rf build dist site .pytest_cache .ruff_cache .hypothesis .import_linter_cache src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

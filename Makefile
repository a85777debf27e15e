# Two commands do all the set-up: `make quickstart` and `make test`.
PYTHON ?= python3
TORCH ?= torch==2.13.0
OUT ?= runs/quickstart
BIN := .venv/bin

.PHONY: quickstart test lint docs

quickstart: .venv/installed
	$(BIN)/tutelage run recipes/quickstart.yaml --out $(OUT) --resume
	@echo "The report is $(OUT)/report.html"

test: .venv/installed-dev lint
	$(BIN)/python -m pytest -n 2

lint: .venv/installed-dev
	$(BIN)/ruff check src tests docs
	$(BIN)/mypy

.venv/python:
	$(PYTHON) -m venv .venv
	@touch $@

# torch goes first and alone: asked for by another package, pip would fetch a build with CUDA.
.venv/installed: .venv/python pyproject.toml
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $@

# The reference pages are made of the code; the site is written to site/.
docs: .venv/installed-docs
	$(BIN)/python docs/generate.py
	$(BIN)/python -m mkdocs build --strict

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	@touch $@

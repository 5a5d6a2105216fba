# `make` alone lists the targets. Everything lives in .venv; nothing is installed outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK ?= requirements/cpu.txt
# Where the CPU build of torch comes from when pip's own sources do not have it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
MODELS ?= deployments/models/local.yaml
HOST ?= 127.0.0.1
PORT ?= 8000
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps

.PHONY: help setup setup-dev serve test test-fast test-cluster test-sdk check format overhead soak clean

help:
	@echo "make serve [MODELS=FILE] [PORT=8000]  serve models here until Ctrl-C (default: tiny local ones)"
	@echo "make test                             all tests: unit, gateway, cluster (real engines), SDKs"
	@echo "make test-fast                        unit and gateway tests only, seconds"
	@echo "make check                            ruff and mypy"
	@echo "make format                           let ruff mend what it can"
	@echo "make soak [STREAMS=200] [SECONDS=120] hold many streams against a running 'make serve'"
	@echo "make setup | setup-dev                make .venv (with the test tools)"
	@echo "make clean                            remove .venv and caches"

$(VENV)/bin/python:
	@echo "==> making $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed (make PYTHON=python3.11 ...)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The lock is complete, so pip resolves nothing (--no-deps): fast, repeatable, and torchvision,
# triton and their like, which do not fit the CPU torch, stay out.
$(VENV)/.installed: $(LOCK) pyproject.toml | $(VENV)/bin/python
	@echo "==> installing the locked packages of $(LOCK) (about 3 GB, a few minutes the first time)"
	@set -e; torch=$$(grep '^torch==' $(LOCK)); \
	$(PIP) "$$torch" 2>/dev/null || \
		{ echo "    $$torch from $(TORCH_INDEX)"; $(PIP) --extra-index-url $(TORCH_INDEX) "$$torch"; }
	@$(BIN)/python scripts/install_lock.py $(LOCK)
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.txt
	@echo "==> installing the test tools"
	@$(BIN)/python scripts/install_lock.py requirements/dev.txt
	@touch $@

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

serve: setup
	@exec $(BIN)/python -m deployments.up --models $(MODELS) --host $(HOST) --port $(PORT)

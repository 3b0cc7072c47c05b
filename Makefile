# Everything a person does with a checkout. Each target does its own set-up; a second call is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run run-zero run-controls test check test-parity soak bench-train bench-engine clean

help:
	@echo "make run            the whole tiny R1, from documents to a distilled student (two cores, under 40 minutes)"
	@echo "make run-zero       R1-Zero alone (minutes)"
	@echo "make run-controls   R1-Zero, then what else could explain its gain"
	@echo "make test           the tests (minutes)          make check         lint, format, types"
	@echo "make test-parity    against transformers         make soak          the long tests"
	@echo "make bench-train    against transformers and TRL, interleaved"
	@echo "make bench-engine   the engine against llama.cpp and transformers, interleaved (hours)"
	@echo "make clean          remove the set-up, never a run"

# torch first and alone: another package must not choose its build.
$(VENV)/.base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tenth needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; call make with PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@

$(VENV)/.parity: $(VENV)/.dev
	$(BIN)/python -m pip install -q -e '.[dev,parity]'
	@touch $@

$(VENV)/.bench: $(VENV)/.base
	$(BIN)/python -m pip install -q -e '.[bench]'
	@touch $@

run: $(VENV)/.base
	$(BIN)/tenth run recipes/tiny/r1.toml $(ARGS)

run-zero: $(VENV)/.base
	$(BIN)/tenth run recipes/tiny/zero.toml $(ARGS)

run-controls: $(VENV)/.base
	$(BIN)/tenth run recipes/tiny/zero.toml controls.enabled=true $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-parity: $(VENV)/.parity
	$(BIN)/python -m pytest -m parity tests/parity $(ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow $(ARGS)
	$(BIN)/python -m pytest --hypothesis-profile=soak tests/base tests/checkpoint tests/data tests/fuzz tests/tasks tests/tokenizer

bench-train: $(VENV)/.bench
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.grpo

# llama.cpp is built from source for this very processor.
bench-engine: export CMAKE_ARGS ?= -DGGML_NATIVE=ON -DGGML_OPENMP=ON
bench-engine: $(VENV)/.bench
	$(BIN)/python -m benchmarks.engine --check
	$(BIN)/python -m benchmarks.engine $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

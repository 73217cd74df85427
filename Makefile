# inlay: `make help` lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ifeq ($(origin CC),default)
CC := gcc
endif

DEMO := firmware_demo/digits
MODEL ?= $(DEMO)/digits.onnx
NAME ?= $(basename $(notdir $(MODEL)))
OUT ?= build/$(NAME)
ifeq ($(MODEL),$(DEMO)/digits.onnx)
QUANTIZE ?= int8
CALIBRATION ?= $(DEMO)/calibration.npz
EVAL ?= $(DEMO)/evaluation.npz
FLAGS ?= --vectors 8
endif
QUANTIZE ?= float32
FLAGS ?=
TEST_FLAGS ?=

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo "  export takes MODEL NAME OUT QUANTIZE=float32|int8 CALIBRATION=samples.npz EVAL=labelled.npz FLAGS='...'"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.PHONY: export
export: $(VENV)/installed ## turn MODEL (default: the bundled digits network) into C under OUT, build and compare it
	CC="$(CC)" $(BIN)/inlay export $(MODEL) --out $(OUT) --name $(NAME) --quantize $(QUANTIZE) \
	    $(if $(CALIBRATION),--calibration $(CALIBRATION)) $(if $(EVAL),--eval $(EVAL)) $(FLAGS)

.PHONY: test
test: $(VENV)/installed-test ## the fast tests
	$(BIN)/python -m pytest -m "not slow" -n auto $(TEST_FLAGS)

.PHONY: parity
parity: $(VENV)/installed-test ## the slow tests: real models, frameworks, sanitizers, emulated cores
	$(BIN)/python -m pytest -m slow -n auto $(TEST_FLAGS)

.PHONY: firmware
firmware: export ## build the firmware demo for a Cortex-M4 and run it on an emulated board
	$(MAKE) -C firmware_demo run MODEL_DIR=../$(OUT)

.PHONY: train
train: ## train the bundled model again (needs torch and scikit-learn)
	$(BIN)/python $(DEMO)/train.py

.PHONY: bench
bench: $(VENV)/installed-test ## measure the MLPerf Tiny networks on emulated cores and on this machine (BENCH='--cores cortex-m4')
	$(BIN)/python -m tests.bench.suite $(BENCH)

.PHONY: tables
tables: BENCH := --write
tables: bench ## measure, and renew the tables of the README

.PHONY: lint
lint: $(VENV)/installed-dev ## ruff and mypy
	$(BIN)/ruff check toolchain tests firmware_demo
	$(BIN)/ruff format --check toolchain tests firmware_demo
	$(BIN)/mypy

.PHONY: clean
clean: ## remove what was built (the virtual environment stays)
	rm -rf build dist firmware_demo/build .pytest_cache .hypothesis .mypy_cache .ruff_cache

# make demo    install into .venv and solve a problem with the built-in model
# make test    install with the development tools and run every test but the slow ones
# make quick   the tests that start no process and run no model: what most changes need
# make check   lint, types, import rules and the documentation
# make docs    build the documentation into site/, strictly
# make coverage   the quick tests with their coverage, which must not fall below its floor
# make fuzz    hostile inputs at every door, for hours; DOOR=runs, CASES=20000, SEED=7
# make simulate   stories of the controller in which anything happens in any order; RUNS=20000, SEED=7
# make test-gpu    kernels on this machine's GPU against plain operations: BACKEND=cuda
# make test-slow   what takes ten minutes: the proof of examples/nano in small
SHELL  := /bin/bash -o pipefail
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# MLX's backend on Linux is an exclusive extra: `make demo BACKEND=cuda` for an NVIDIA GPU. A Mac needs none.
ifeq ($(shell uname -s),Darwin)
BACKEND ?=
else
BACKEND ?= cpu
endif
comma  := ,
EXTRAS  = $(if $(BACKEND),$(BACKEND))
# Today's pip needs a third of the time of that in Python 3.11; what is never imported need not be compiled.
INSTALL = $(BIN)/python -m pip install -q --no-compile -e
DEV     = $(if $(BACKEND),$(BACKEND)$(comma))dev

# The tests start hundreds of processes, which import the same packages: compiled once, they are read by all others.
unexport PYTHONDONTWRITEBYTECODE

# Whole files go to a worker each, so that what a file's tests share is made once.
WORKERS ?= 2
QUICK   = -m "not thorough and not slow and not gpu" $(addprefix --ignore=tests/engine/,mlx families vision)

.PHONY: demo test quick test-slow test-gpu check docs coverage format bench fuzz simulate clean

demo: $(VENV)/.installed-$(BACKEND)
	@cat examples/countdown.txt
	@$(BIN)/rsa solve examples/countdown.txt | $(BIN)/python examples/check_countdown.py examples/countdown.txt

test: $(VENV)/.dev-$(BACKEND)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not gpu" $(ARGS)

quick: $(VENV)/.dev-$(BACKEND)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(QUICK) $(ARGS)

test-slow: $(VENV)/.dev-$(BACKEND)
	$(BIN)/python -m pytest -m slow --timeout 1800 $(ARGS)

test-gpu: $(VENV)/.dev-$(BACKEND)
	$(BIN)/python -m pytest -m gpu --timeout 600 tests/engine $(ARGS)

check: $(VENV)/.dev-$(BACKEND)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict

docs: $(VENV)/.dev-$(BACKEND)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

coverage: $(VENV)/.dev-$(BACKEND)
	$(BIN)/coverage run -m pytest -q $(QUICK) $(ARGS)
	$(BIN)/coverage report

format: $(VENV)/.dev-$(BACKEND)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev-$(BACKEND)
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/fanout.py

fuzz: $(VENV)/.dev-$(BACKEND)
	$(BIN)/python benchmarks/fuzz.py $(if $(SEED),--seed $(SEED)) $(if $(CASES),--cases $(CASES)) $(addprefix --door ,$(DOOR))

simulate: $(VENV)/.dev-$(BACKEND)
	$(BIN)/python benchmarks/simulate.py $(if $(RUNS),--runs $(RUNS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

clean:
	rm -rf $(VENV) dist build site

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.installed-$(BACKEND): pyproject.toml | $(BIN)/python
	$(INSTALL) "$(if $(EXTRAS),.[$(EXTRAS)],.)"
	@touch $@

$(VENV)/.dev-$(BACKEND): pyproject.toml | $(BIN)/python
	$(INSTALL) ".[$(DEV)]"
	@touch $@ $(VENV)/.installed-$(BACKEND)

# make demo    install into .venv and solve a problem with the built-in model
# make test    install with the development tools and run every test
# make check   lint, types and import rules
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

.PHONY: demo test test-slow check format bench clean

demo: $(VENV)/.installed-$(BACKEND)
	@cat examples/countdown.txt
	@$(BIN)/rsa solve examples/countdown.txt | $(BIN)/python examples/check_countdown.py examples/countdown.txt

test: $(VENV)/.dev-$(BACKEND)
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: $(VENV)/.dev-$(BACKEND)
	$(BIN)/python -m pytest -m slow --timeout 1800 $(ARGS)

check: $(VENV)/.dev-$(BACKEND)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev-$(BACKEND)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev-$(BACKEND)
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/fanout.py

clean:
	rm -rf $(VENV) dist build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.installed-$(BACKEND): pyproject.toml | $(BIN)/python
	$(INSTALL) "$(if $(EXTRAS),.[$(EXTRAS)],.)"
	@touch $@

$(VENV)/.dev-$(BACKEND): pyproject.toml | $(BIN)/python
	$(INSTALL) ".[$(DEV)]"
	@touch $@ $(VENV)/.installed-$(BACKEND)

# Two commands do everything from a bare clone: `make demo` and `make test`. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# What may be set on the command line, e.g. `make test PYTHON=python3.12`:
PYTHON ?= python3
VENV ?= .venv
# More arguments for pip.
PIP_ARGS ?=
# Two test files at a time, each on one thread: the tests start processes of their own, and fit two cores.
PYTEST_ARGS ?= -n 2 --dist loadfile
# The demo has two processes; they share the cores.
DEMO_THREADS ?= $(shell cores=$$(nproc); echo $$((cores > 3 ? cores / 2 : 1)))

BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS)
DEMO := digits_r18_pwlu

EXTENSION_SOURCES := pwlu_ext/setup.py pwlu_ext/pyproject.toml \
    $(sort $(shell find pwlu_ext/csrc -type f) $(shell find pwlu_ext/pwlu -name '*.py' -o -name py.typed))
CPP_SOURCES = $(shell find pwlu_ext/csrc -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu')
SHELL_SOURCES := $(wildcard scripts/*.sh scripts/*.sbatch) .ci/run

.PHONY: help demo test lint format install clean FORCE

help: ## say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

demo: install ## train ResNet-18 with PWLU on handwritten digits through both phases (under 5 minutes)
	OMP_NUM_THREADS=$(DEMO_THREADS) $(BIN)/torchrun --standalone --nproc-per-node=2 \
	    train_imagenet.py --config configs/$(DEMO).yaml output=runs/$(DEMO)
	@printf '%-16s%s\n' "accuracy" "runs/$(DEMO)/metrics.jsonl" "learned curves" "runs/$(DEMO)/curves.png" \
	    "TensorBoard" "$(BIN)/tensorboard --logdir runs/$(DEMO)/tensorboard" \
	    "once more" "rm -r runs/$(DEMO) && make demo"

test: install $(STAMPS)/dev ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMPS)/requirements $(STAMPS)/dev ## check formatting, imports, types and shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES)
	$(BIN)/mypy
	for script in $(SHELL_SOURCES); do bash -n "$$script"; done
	$(BIN)/shellcheck --external-sources $(SHELL_SOURCES)

format: $(STAMPS)/dev ## apply the formatting that lint checks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_SOURCES)

install: $(STAMPS)/requirements $(STAMPS)/extension ## environment in .venv, with the extension built into it

clean: ## remove the environment, what was built, and caches (runs/ stays)
	rm -rf $(VENV) pwlu_ext/build pwlu_ext/*.egg-info pwlu_ext/pwlu/_build_info.json
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; name a Python 3.10-3.12: make PYTHON=... $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || { \
	    echo "error: $(PYTHON) is $$($(PYTHON) --version), but pwlu runs on 3.10, 3.11 and 3.12;" \
	        "name one of them: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/requirements: requirements.txt $(STAMPS)/venv
	@echo "installing requirements.txt into $(VENV) (the first time, torch is a long download)"
	$(PIP) -r requirements.txt
	@touch $@

$(STAMPS)/dev: requirements-dev.txt $(STAMPS)/venv
	$(PIP) -r requirements-dev.txt
	@touch $@

# Everything the built extension depends on; the file changes only when one of them does.
$(STAMPS)/extension-inputs: FORCE | $(STAMPS)/venv
	@{ echo "PWLU_BUILD_CUDA=$${PWLU_BUILD_CUDA:-auto} CUDA_HOME=$${CUDA_HOME:-} nvcc=$$(command -v nvcc || true)"; \
	    echo "TORCH_CUDA_ARCH_LIST=$${TORCH_CUDA_ARCH_LIST:-}"; cksum $(EXTENSION_SOURCES); } >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# A normal install: what is tested is what a user gets. build/temp* stays, so that only changed sources are compiled
# again; build/lib* does not, or files that no longer exist would be installed again.
$(STAMPS)/extension: $(STAMPS)/extension-inputs $(STAMPS)/requirements
	@command -v "$${CXX:-c++}" >/dev/null || { \
	    echo "error: no C++ compiler ($${CXX:-c++}); install one (Debian, Ubuntu: apt install g++) or set CXX" >&2; exit 1; }
	@echo "building the extension (a few minutes the first time)"
	rm -rf pwlu_ext/build/lib* pwlu_ext/build/bdist* pwlu_ext/*.egg-info
	$(PIP) --no-build-isolation --no-deps --force-reinstall ./pwlu_ext
	@touch $@

FORCE:

# `make help` lists what there is. Every target makes the environment that it needs, from a bare clone on.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# What may be set on the command line, e.g. `make test PYTHON=python3.12`:
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
# Two test files at a time, each on one thread: the tests start processes of their own.
PYTEST_ARGS ?= -n 2 --dist loadfile
# The other release of torch that `make test-wheel` takes: any from 2.10 on.
TORCH ?= 2.13.0
# For table-N and figure-N: scale smoke, small or full (configs/sweeps), and further arguments of tools.sweep.
SCALE ?= smoke
SWEEP ?=
# For table-4. On a GPU: make table-4 LATENCY=--training-step LATENCY_RECORD=results/latency/gpu.json
LATENCY ?= --device cpu --batch-size 1 --iterations 60 --warm-up 5
LATENCY_RECORD ?= results/latency/cpu.json
# For bench-data: an image folder, and e.g. DATA_SPEED="--gpus 8 --images-per-second resnet18=3000".
DATA ?= data/imagenet
DATA_SPEED ?=
DATA_SPEED_RECORD ?= runs/data_speed.json
# The demo has two processes; they share the cores.
DEMO_THREADS ?= $(shell cores=$$(nproc); echo $$((cores > 3 ? cores / 2 : 1)))

BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS)
# For `make test-wheel`: an environment with nothing but that torch, the wheel and pytest.
OTHER := $(VENV)/torch-$(TORCH)

EXTENSION_SOURCES := LICENSE $(addprefix pwlu_ext/,setup.py pyproject.toml MANIFEST.in README.md) \
    $(sort $(shell find pwlu_ext/csrc -type f) $(shell find pwlu_ext/pwlu -name '*.py' -o -name py.typed))
CPP_SOURCES = $(shell find pwlu_ext/csrc -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu')
BUILD_INFO := "import pwlu, torch; print('pwlu on torch', torch.__version__, pwlu.build_info())"
SHELL_SOURCES := $(wildcard scripts/*.sh scripts/*.sbatch) .ci/run

.PHONY: help bench-data demo demo-coco test test-wheel wheel lint docs format onnx-header install clean FORCE

help: ## say what there is
	@sed -n 's/^\([a-z1-9%-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | sed 's/%/N/' | expand -t 20

demo: RUN := digits_r18_pwlu
demo: PROGRAM := train_imagenet.py
demo-coco: RUN := digits_mask_rcnn_pwlu
demo-coco: PROGRAM := train_coco.py
demo: install ## train ResNet-18 with PWLU on handwritten digits through both phases (a few minutes)
demo-coco: install ## train Mask R-CNN with PWLU on handwritten digits on canvases through both phases (under 10 minutes)
demo demo-coco:
	OMP_NUM_THREADS=$(DEMO_THREADS) $(BIN)/torchrun --standalone --nproc-per-node=2 \
	    $(PROGRAM) --config configs/$(RUN).yaml output=runs/$(RUN)
	@printf '%-16s%s\n' "results" "runs/$(RUN)/: metrics.jsonl, curves.png, for detectors detections.png" \
	    "TensorBoard" "$(BIN)/tensorboard --logdir runs/$(RUN)/tensorboard" "once more" "rm -r runs/$(RUN) && make $@"

RUNS = runs/sweeps/$(SCALE)
# Numbers of scale smoke mean nothing: they stay beside their runs, and no page shows them.
PICTURES = $(if $(filter smoke,$(SCALE)),$(RUNS),results)/figures
REPORT = $(if $(filter smoke,$(SCALE)),,$(BIN)/python -m tools.report)

table-%: install FORCE ## make Table N of the paper: 2, 3, 5, 6 or 7 (SCALE=smoke, small or full; SWEEP="data.root=...")
	$(BIN)/python -m tools.sweep --table $* --scale $(SCALE) $(SWEEP)
	$(BIN)/python -m tools.collect --table $* --scale $(SCALE)
	$(REPORT)

table-4: install ## measure Table 4, the times of inference (LATENCY="...", LATENCY_RECORD=...)
	$(BIN)/python -m tools.latency --output $(LATENCY_RECORD) $(LATENCY)
	$(BIN)/python -m tools.latency.figure $(LATENCY_RECORD)
	$(BIN)/python -m tools.report

bench-data: install ## measure images a second of one core, by decoder (DATA=FOLDER, DATA_SPEED="...")
	$(BIN)/python -m tools.data_speed $(DATA) --output $(DATA_SPEED_RECORD) $(DATA_SPEED)

study-%: install FORCE ## make study N, one of configs/sweeps/study_N.yaml (SWEEP="data.root=..."); hours on two cores
	$(BIN)/python -m tools.sweep --study $* $(SWEEP)
	$(BIN)/python -m tools.collect --study $*
	$(BIN)/python -m tools.study.figures --study $*
	$(BIN)/python -m tools.report

STUDIED = runs/sweeps/small/study_
PICTURE = results/figures/small_study_
study-records: install ## boundaries' IOUs, learned shapes and movements of the studies' runs, for results/STUDY.md
	$(BIN)/python -m tools.functions.boundary_iou $(STUDIED)realignment/channel-wise_fix-init-{3,6,10}_seed0 \
	    $(STUDIED)starts/r18_pwlu-relu_seed0 --labels fix-init-3 fix-init-6 fix-init-10 stat-realign \
	    --output $(PICTURE)iou.json
	$(BIN)/python -m tools.functions.shapes $(STUDIED)starts*/*_pwlu-relu_seed0 --output $(PICTURE)shapes.json
	$(BIN)/python -m tools.functions.signal $(STUDIED)starts/r18_pwlu-relu_seed0 --output $(PICTURE)signal.json
	$(BIN)/python -m tools.report

figure-1 figure-5: figure-%: table-2
	$(BIN)/python -m tools.tables.improvements --figures $* --scale $(SCALE)
	$(REPORT)

figure-6: table-6 ## make Figure 6, how boundaries cover their inputs, of runs of Table 6; figure-1, 5 and 7 alike
	$(BIN)/python -m tools.functions.boundary_iou $(RUNS)/table6/channel-wise_{fix-init-10,stat-realign}_seed0 \
	    --labels fix-init-10 stat-realign --output $(PICTURES)/$(SCALE)_figure6.json
	$(REPORT)

figure-7: install
	$(BIN)/python -m tools.sweep --table 2 --cells '*_pwlu' --scale $(SCALE) $(SWEEP)
	$(BIN)/python -m tools.functions.plot $(RUNS)/table2/*_pwlu_seed0 --output $(PICTURES)/$(SCALE)_figure7
	$(REPORT)

test: install $(STAMPS)/dev ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

wheel: $(STAMPS)/wheel ## build the package's wheel and source distribution into dist/

test-wheel: $(STAMPS)/wheel $(OTHER)/installed ## test the wheel on another torch, in an environment of its own (TORCH=2.13.0)
	$(OTHER)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --force-reinstall dist/*.whl
	@$(OTHER)/bin/python -W ignore -c $(BUILD_INFO)
	OMP_NUM_THREADS=1 $(OTHER)/bin/python -m pytest $(PYTEST_ARGS) pwlu_ext/tests

lint: $(STAMPS)/requirements $(STAMPS)/dev ## check formatting, imports, types and shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES)
	$(BIN)/mypy
	for script in $(SHELL_SOURCES); do bash -n "$$script"; done
	$(BIN)/shellcheck --external-sources $(SHELL_SOURCES)

docs: $(STAMPS)/dev ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

format: $(STAMPS)/dev ## apply the formatting that lint checks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_SOURCES)

onnx-header: $(STAMPS)/onnx-header ## .venv/onnxruntime, a folder for PWLU_ONNXRUNTIME_INCLUDE

install: $(STAMPS)/requirements $(STAMPS)/extension ## environment in .venv, with the extension built into it

clean: ## remove the environment, what was built, and caches (runs/ stays)
	rm -rf $(VENV) dist site pwlu_ext/build pwlu_ext/*.egg-info pwlu_ext/pwlu/_build_info.json
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || { \
	    echo "error: pwlu needs Python 3.11 to 3.14, but PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	        "name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/requirements: requirements.txt $(STAMPS)/venv
	@echo "installing requirements.txt into $(VENV) (the first time, torch is a long download)"
	$(PIP) -r requirements.txt
	@touch $@

$(STAMPS)/dev: requirements-dev.txt $(STAMPS)/venv
	$(PIP) -r requirements-dev.txt
	@touch $@

# ONNX Runtime's packages have no header; this one has it for operators of its own. Its Python files are not used: neither
# what they depend on nor which Pythons they are for matters.
$(STAMPS)/onnx-header: $(STAMPS)/venv
	$(PIP) --no-deps --ignore-requires-python --no-compile --target $(VENV)/amd-quark amd-quark==0.13
	ln -sfn amd-quark/quark/onnx/operators/custom_ops/include/onnxruntime-1.17.0/onnxruntime/core/session \
	    $(VENV)/onnxruntime
	@touch $@

# Everything the built extension depends on; the file changes only when one of them does.
$(STAMPS)/extension-inputs: FORCE | $(STAMPS)/venv
	@{ echo "PWLU_BUILD_CUDA=$${PWLU_BUILD_CUDA:-auto} CUDA_HOME=$${CUDA_HOME:-} nvcc=$$(command -v nvcc || true)"; \
	    echo "TORCH_CUDA_ARCH_LIST=$${TORCH_CUDA_ARCH_LIST:-} PWLU_ONNXRUNTIME_INCLUDE=$${PWLU_ONNXRUNTIME_INCLUDE:-}"; \
	    cksum $(EXTENSION_SOURCES); } >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# A normal install: what is tested is what a user gets.
$(STAMPS)/extension: $(STAMPS)/extension-inputs $(STAMPS)/requirements
	@command -v "$${CXX:-c++}" >/dev/null || { \
	    echo "error: no C++ compiler ($${CXX:-c++}); install one (Debian, Ubuntu: apt install g++) or set CXX" >&2; exit 1; }
	@echo "building the extension (a few minutes the first time)"
	rm -rf pwlu_ext/*.egg-info
	$(PIP) --no-build-isolation --no-deps --force-reinstall ./pwlu_ext
	@$(BIN)/python -c $(BUILD_INFO)
	@touch $@

# After the install, whose compiled files it takes. Both come from the source tree, so that CUDA is not compiled twice.
$(STAMPS)/wheel: $(STAMPS)/extension $(STAMPS)/dev
	rm -rf dist pwlu_ext/*.egg-info
	$(BIN)/python -m build --quiet --no-isolation --sdist --wheel --outdir dist pwlu_ext
	@ls -l dist
	@touch $@

# The versions of what the tests need are those of requirements-dev.txt.
$(OTHER)/installed: requirements-dev.txt $(STAMPS)/venv
	@echo "installing torch $(TORCH) into $(OTHER)"
	$(PYTHON) -m venv --clear $(OTHER)
	$(OTHER)/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c requirements-dev.txt \
	    torch==$(TORCH) pytest pytest-xdist hypothesis
	@touch $@

FORCE:

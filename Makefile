# From a fresh machine (Python 3.11 to 3.13 with pip, venv and headers, g++, make) to tests or to the main job.
PYTHON ?= python3
VENV ?= .venv
SWEEP ?=
GPU ?=
JOBS ?= 2
TRITON ?= 3.9.0
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Where torch for CUDA is already installed there is no .venv: its Python runs the project as it lies here.
HERE = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

.PHONY: help venv sweep test check types tests bench gpu triton clean

help:
	@echo "make sweep   set up, then every variant x every path (SWEEP='--full ...' for options)"
	@echo "make test    set up, then lint, types and tests"
	@echo "make check   lint, types and tests in the environment that is there"
	@echo "make bench   the hot operators and paths under pytest-benchmark"
	@echo "make gpu     check and measure the fused path on this machine's GPU (GPU=--rehearse rehearses)"
	@echo "make triton  compile the shipped kernels for every GPU with a version of Triton (TRITON=3.7.1)"
	@echo "make clean   remove the environment and what was built or measured"

venv: $(VENV)/.installed

# Torch comes first and alone, so that no dependency of another package can choose a different one.
$(VENV)/.installed: pyproject.toml constraints.txt CMakeLists.txt $(wildcard kernels/cpu/* kernels/cpu/core/*)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt torch==2.13.0
	$(PIP) install -c constraints.txt -e ".[dev,ort,openvino,ncnn,trt,dali,heic]"
	touch $@

sweep: venv
	$(BIN)/python -m bench.sweep $(SWEEP)

test: venv
	$(MAKE) check

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) -j 2 types tests

types:
	$(BIN)/mypy

# A file's tests stay with one worker: what they share is made once.
tests:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

bench: venv
	$(BIN)/python -m pytest bench --benchmark-only

gpu:
	$(HERE) -m bench.gpu $(GPU)

# The tables hold for every Triton that a torch since 2.11 brings, whichever is installed here.
triton: build/triton-$(TRITON)
	PYTHONPATH=$< $(HERE) -m fasthg.kernels.triton.offline

build/triton-%:
	$(HERE) -m pip install --no-deps --target $@ triton==$*

clean:
	rm -rf $(VENV) build out .mypy_cache .ruff_cache .pytest_cache .benchmarks

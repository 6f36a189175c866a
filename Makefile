# `make demo` and `make test` set everything up by themselves, in .venv; nothing else is needed than
# Python 3.11 or newer with its venv module.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
# about 45 minutes on one core; one alone: make bench BENCH=benchmarks/blocks.py
BENCH ?= $(addprefix benchmarks/,operation.py blocks.py memory.py denoise.py whole_network.py)
# one thread per test process: on shared cores more of them are slower
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# ONNX Runtime Web, for examples/stream.html: the version is also in that page
ORT := onnxruntime-web@1.30.0
ORT_FILES := ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm

# the tests start hundreds of Pythons, each of which would compile torch again
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup browser demo test lint format bench bench-demo docs clean

help:
	@echo "make demo    set up and run the main job on the embedded data set"
	@echo "make test    set up, lint and run all tests"
	@echo "make lint    ruff and mypy             make format  rewrite the sources in the house style"
	@echo "make bench   measure against peers     make docs    build the site into site/"
	@echo "make bench-demo   demo and ablation with three seeds, how a block should start: two hours"
	@echo "make browser put ONNX Runtime Web beside examples/stream.html; on Debian, install Chromium"
	@echo "make clean   remove what was built, .venv included; runs/ and demo/ stay"

setup: $(READY)

# the stamp is the last thing written, so an interrupted set-up is begun again
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "nonlocalnet needs Python 3.11 or newer, and $(PYTHON) is %d.%d: make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv; then \
	    echo "installing (several GB where torch brings CUDA)"; \
	    $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[all]'; \
	else \
	    echo "installing with pip, which takes some minutes"; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'; \
	fi
	@touch $@

demo: $(READY)
	$(BIN)/nonlocalnet demo

# Beside Python; where one of them cannot be had, the tests that need it are skipped with the reason.
browser: examples/ort/$(ORT)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	    || { [ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ] && echo "installing Chromium" \
	        && export DEBIAN_FRONTEND=noninteractive && apt-get update -qq \
	        && apt-get install -qq --no-install-recommends chromium >/dev/null; } \
	    || echo "no Chromium: the browser tests will be skipped"

# by way of a folder that is renamed: an interrupted run leaves nothing half there
examples/ort/$(ORT):
	@cd examples && rm -rf .ort && mkdir .ort && cd .ort \
	    && file=$$(npm pack --silent --fetch-retries=1 $(ORT)) \
	    && tar -xzf "$$file" $(addprefix package/dist/,$(ORT_FILES)) && touch package/dist/$(ORT) \
	    && rm -rf ../ort && mv package/dist ../ort && rm -rf ../.ort \
	    || echo "no npm, or it reaches nothing: the browser tests will be skipped"

test: lint browser
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY)
	@for file in $(BENCH); do \
	    echo "== $$file"; $(ONE_THREAD) NUMBA_NUM_THREADS=1 $(BIN)/python $$file || exit 1; \
	done
	$(BIN)/python benchmarks/table.py

bench-demo: $(READY)
	$(ONE_THREAD) $(BIN)/python benchmarks/reunion.py
	$(ONE_THREAD) $(BIN)/python benchmarks/block_start.py
	$(ONE_THREAD) $(BIN)/python benchmarks/ablation.py

docs: $(READY)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv examples/ort examples/.ort site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

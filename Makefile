# Everything that a person or a machine runs here. Each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo example test lint types bench bench-gpu docs format clean

setup: $(READY)

$(READY): pyproject.toml tools/setup_venv.py
	$(PYTHON) tools/setup_venv.py $(VENV)
	@touch $@

demo: $(READY)
	$(BIN)/python -m reel_modal demo --output demo

example: $(READY)
	$(BIN)/python -m examples.fastapi_app --folder demo/app

test: $(READY)
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python tests/typing
	PYTHONPATH=src $(BIN)/pyright --pythonpath $(BIN)/python --verifytypes reel_modal --ignoreexternal

bench: $(READY)
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks

# What runs is whatever Python has onnxruntime-gpu: nothing is installed, nothing is fetched.
bench-gpu:
	PYTHONPATH=src:. $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.upscale_gpu

docs: $(READY)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo dist docs/_build benchmarks/out

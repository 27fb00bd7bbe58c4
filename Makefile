# Everything that a person or a machine runs here. Each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo example test coverage test-fast test-failed test-pythons test-lowest test-ffmpegs test-image test-gvisor lint types bench bench-gpu tables lock networks docs format clean

setup: $(READY)

$(READY): pyproject.toml tools/setup_venv.py
	$(PYTHON) tools/setup_venv.py $(VENV)
	@touch $@

demo: $(READY)
	$(BIN)/python -m reel_modal demo --output demo

example: $(READY)
	$(BIN)/python -m examples.fastapi_app --folder demo/app

# Four workers, also on two cores: many tests wait for processes. A file stays on one worker; conftest.py has the order.
WORKERS ?= 4
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Tracing makes plain Python about twice as slow, so a run measures the coverage only in CI.
COVERAGE := --cov --cov-report=term

test: $(READY)
	$(BIN)/python -m pytest $(if $(CI),$(COVERAGE)) $(PARALLEL)

coverage: $(READY)
	$(BIN)/python -m pytest $(COVERAGE) $(PARALLEL)

# The unit tests: about a minute.
test-fast: $(READY)
	$(BIN)/python -m pytest -q -m "unit and not slow" tests/unit $(PARALLEL)

# The tests that failed in the last run, alone. It fails if that run ended without naming any.
test-failed: $(READY)
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures=none

# Unit tests and the demo on each Python of this machine, with the newest packages that pip finds for it.
test-pythons:
	$(PYTHON) tools/test_pythons.py

# All tests with the lowest version of each package that pyproject.toml allows.
test-lowest: $(READY)
	$(BIN)/python -m pip install --quiet --group lowest
	mkdir -p .venvs
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --only-binary :all: --python $(BIN)/python \
		--extra models --extra otel --extra starlette --no-header --annotation-style line pyproject.toml --output-file .venvs/resolved.txt
	grep 'via .*reel-modal' .venvs/resolved.txt > .venvs/lowest.txt
	$(PYTHON) tools/setup_venv.py .venvs/lowest --group test --constraint .venvs/lowest.txt
	.venvs/lowest/bin/python -m pytest $(PARALLEL)

# The media tests with each ffmpeg; FFMPEGS="PATH 7.1" chooses some, without it all are tested.
test-ffmpegs: $(READY)
	$(BIN)/python tools/test_ffmpegs.py $(if $(FFMPEGS),--builds $(FFMPEGS))

# Every function in its real image, started by Modal's entrypoint. Needs Linux, root, mmdebstrap and bubblewrap.
test-image: $(READY)
	$(BIN)/python -m tests.image.build
	unshare --net $(BIN)/python -m pytest -q tests/image/check_containers.py

# The same in gVisor, whose kernel Modal uses too; needs Debian's runsc as well.
test-gvisor: $(READY)
	$(BIN)/python -m tests.image.build
	IMAGE_RUNTIME=gvisor unshare --net $(BIN)/python -m pytest -q tests/image/check_containers.py

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

tables: $(READY)
	$(BIN)/python tools/request_tables.py

# The lock files of the images, after a change of a pin; UPGRADE=1 takes the newest versions of indirect packages too.
lock: $(READY)
	$(BIN)/python -m pip install --quiet --group lowest
	$(BIN)/python -m tools.lock_images $(if $(UPGRADE),--upgrade)

# The files of the bundled networks, from their own weights: after a change of the graph around them.
networks: $(READY)
	$(BIN)/python -m training.wrap

docs: $(READY)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venvs .pytest_cache demo dist docs/_build benchmarks/out

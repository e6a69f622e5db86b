PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

help:  ## print the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: .venv/installed  ## make the virtual environment .venv from the hashed lock file

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("Python 3.11 to 3.13 is needed; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	@echo "Installing into .venv; this takes some minutes the first time."
	@$(PYTHON) -m venv .venv
	@# The lock names every dependency: no resolving, in which older releases of pip fetch what it does not name (extras).
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@# compat: found by its path. A finder comes after a folder called nightprice, such as this clone seen from above.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@touch $@

airflow: .venv-airflow/installed  ## make the virtual environment .venv-airflow for the tests of the schedule, from a hashed lock file of its own

.venv-airflow/installed: deploy/airflow/requirements.lock
	@$(PYTHON) -m venv .venv-airflow
	@.venv-airflow/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

demo: install  ## the whole main job on 40,000 generated listings, in about a minute
	@$(BIN)/nightprice demo

demo-flights: install  ## the same on another problem, 40,000 real flights, in a few minutes (examples/flights)
	@examples/flights/demo.sh

check: install  ## the inner loop, under a minute: style, types, and the tests that start no Ray, server, browser or command
	@$(MAKE) --no-print-directory -j2 lint fast-tests

fast-tests: install
	@$(BIN)/python -m pytest -m "not slow" -q --numprocesses 2

test: lint  ## style, types, and every test (NIGHTPRICE_TEST_DATA=DIR adds those on real listings)
	@$(BIN)/python -m pytest

lint: install  ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install  ## put the code into the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench-start: install  ## seconds from each command to its result on a small file, as multiples of a bare start of Ray
	@$(BIN)/python -m benchmarks.start $(ARGS)

bench-process: install  ## rows/s and memory of process, beside the notebook's pandas and Polars
	@$(BIN)/python -m benchmarks.process $(ARGS)

bench-train: install  ## seconds and memory of training, 1 and 2 workers, beside plain XGBoost
	@$(BIN)/python -m benchmarks.train $(ARGS)

bench-predict: install  ## rows/s and memory of batch scoring, beside plain XGBoost and ONNX Runtime on the finished matrix
	@$(BIN)/python -m benchmarks.predict $(ARGS)

bench-engines: install  ## microseconds a row of the model in ONNX Runtime, XGBoost and, if they are installed, Treelite and Numba
	@$(BIN)/python -m benchmarks.engines $(ARGS)

bench-serve: install  ## requests/s and rows/s of the service, beside Flask, uvicorn and Ray Serve's defaults (needs wrk)
	@$(BIN)/python -m benchmarks.serve $(ARGS)

bench-autoscale: install  ## seconds until replicas follow a step in the load, a promotion and a death
	@$(BIN)/python -m benchmarks.autoscale $(ARGS)

bench-scale: install  ## how cost grows with shards, nodes, workers and replicas, in miniature (needs root, and wrk)
	@$(BIN)/python -m benchmarks.scale $(ARGS)

bench-memory: install  ## memory of a replica over a million requests (needs wrk)
	@$(BIN)/python -m benchmarks.serve_memory $(ARGS)

attack: install  ## hostile requests to a service of its own, or to ARGS='--url URL --pid PID': answers, memory, and what a well-behaved caller notices
	@$(BIN)/python -m benchmarks.attack $(ARGS)

image:  ## build the images and run them, without Docker (needs root, buildah, debootstrap; docs/image.md)
	BASE_IMAGE=$${BASE_IMAGE-debian-root} deploy/image/build.sh
	$(PYTHON) -m deploy.image.smoke_test

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
# The images' locks: the same versions, of fewer packages.
lock:  ## resolve pyproject.toml anew into requirements.lock and the locks of the images and of Airflow (needs uv; LOCK_OPTIONS=--upgrade for newer versions)
	$(COMPILE) --all-extras $(LOCK_OPTIONS) pyproject.toml --output-file requirements.lock
	$(COMPILE) --constraints requirements.lock --extra serve pyproject.toml --output-file deploy/image/serving.lock
	$(COMPILE) --constraints requirements.lock --extra pipeline --extra serve --extra sql --extra bigquery --extra aws pyproject.toml \
		--output-file deploy/image/pipeline.lock
	echo setuptools | $(COMPILE) --constraints requirements.lock - --output-file deploy/image/build.lock
	$(COMPILE) $(LOCK_OPTIONS) deploy/airflow/requirements.in --output-file deploy/airflow/requirements.lock

.PHONY: help install airflow demo demo-flights check fast-tests test lint format bench-start bench-process bench-train bench-predict bench-engines bench-serve bench-autoscale bench-scale bench-memory attack image lock

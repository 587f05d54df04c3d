# Everything a clean clone needs. PYTHON names the interpreter that makes the environment (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
SWEEP := $(BIN)/sweep

.PHONY: help install quickstart demo test test-quick test-lowest test-slow test-faults benchmarks gpu-check check format schema map docs release lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed  ## the locked environment in .venv

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install  ## draw the demo data set under data/
	@test -d data/FashionDataset || $(SWEEP) data demo data/FashionDataset

quickstart: demo  ## from nothing to a submission, some minutes on a CPU
	$(SWEEP) run search_spaces/quickstart.yaml
	$(SWEEP) leaderboard quickstart
	$(SWEEP) best quickstart --export submission

test-quick: install  ## what starts no process: nine tenths of the fast suite in a quarter of its time
	$(BIN)/python -m pytest -m "not process and not slow and not many" -n 2 --dist worksteal

test: install  ## the fast suite
	$(BIN)/python -m pytest -m "not slow and not many" -n 2 --dist worksteal

test-slow: install  ## the rest: more kills, slower samplers
	$(BIN)/python -m pytest -m slow --ignore tests/faults

test-lowest:  ## the tests without processes, with the lowest versions that pyproject.toml allows; 8 GB, in .venv-lowest
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv 'setuptools>=77'
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -r pyproject.toml --extra dev
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	.venv-lowest/bin/python -m pytest -m "not process and not slow and not many" -n 2 --dist worksteal

FIRST ?= 0
CASES ?=

test-faults: install  ## the fault matrix; FIRST=N: other seeds; CASES="K1 K2": every seed of these. Writes docs/explanation/faults.md
	$(BIN)/python -m pytest tests/faults tests/space/test_yaml_io.py -n 3 --dist worksteal --first-seed $(FIRST) --every-seed-of "$(CASES)" --table docs/explanation/faults.md

BENCHMARKS := feed epoch stall augmentation overhead warm memory scale sweep

benchmarks: install  ## the quick benchmarks, a quarter of an hour on two quiet cores
	@failed=; for name in $(BENCHMARKS); do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py --quick || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "gates that did not hold:$$failed"; exit 1; }

DEVICE ?= cuda
ONLY ?=

gpu-check: install  ## the acceptance on one GPU, eight minutes at most; DEVICE=cpu: what needs no CUDA; ONLY=env,waits
	$(BIN)/python -m benchmarks.gpu_check --device $(DEVICE) --only "$(ONLY)"

check: install  ## lint, format, types, imports, architecture, words, documents, schema
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/space/test_docs.py tests/test_words.py tests/test_docs.py

format: install  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: install  ## write search_spaces/schema.json, and the keys and commands of the reference
	$(BIN)/python -m sweeper.space.docs
	$(BIN)/python docs/write_commands.py

map: install  ## draw docs/explanation/packages-*.svg from the imports
	$(BIN)/python docs/draw_packages.py

docs: .venv-docs/installed  ## the documents as a site, in site/
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

.venv-docs/installed: docs/requirements.lock
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r docs/requirements.lock
	@touch $@

release: install  ## sdist and wheel, in dist/
	rm -rf dist build
	$(BIN)/python -c "from setuptools import build_meta; print(build_meta.build_sdist('dist'), build_meta.build_wheel('dist'))" | tail -n 1

lock:  ## resolve the exact versions again
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11 \
	  --extra dev --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11 \
	  --output-file docs/requirements.lock docs/requirements.in

clean:  ## remove the environment; data and results stay
	rm -rf .venv .venv-docs site .mypy_cache .ruff_cache .pytest_cache *.egg-info

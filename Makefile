# The two commands: `make demo` and `make test`. Each sets up its own .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
DATA ?= ../shared/data
TIMES ?= 20
# Podman's own format of images has no health check.
BUILDER ?= podman build --format docker
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# One thread a process: parallelism comes from sites and test workers.
export OMP_NUM_THREADS ?= 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: demo studies test again check slow bench benchmark-page docs wheel release bundle images lock clean help

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/' | expand -t 10

demo: $(VENV)/.run ## eight synthetic hospitals train one model, privately; about a minute
	$(BIN)/consilium-simulate demo

studies: $(VENV)/.dev ## every example study in all settings, one table; DATA=folder of the records
	$(BIN)/consilium-simulate studies --data $(DATA) --out runs/studies

# The order is drawn anew each time; its seed stands in the first lines of what is printed, and
# ORDER=--random-order-seed=SEED repeats it. Plain pytest runs in the order of the files.
test: $(VENV)/.dev ## the tests, but for the slow ones, in random order
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --random-order $(ORDER)

again: $(VENV)/.dev ## the same TIMES=20 times, each in another order; says what failed
	$(BIN)/python tests/campaign.py --times $(TIMES)

# Three workers for two cores: many of these wait for processes that they started.
slow: $(VENV)/.dev ## the slow tests; at the end, which took longest
	$(BIN)/python -m pytest -n 3 --dist worksteal -m slow --durations=40 --durations-min=30

check: $(VENV)/.dev ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## measured ratios against named competitors, on all cores; one table at the end
	@export BENCH_ROWS=$$(mktemp); missed=0; for script in benchmarks/*.py; do \
	  echo "== $$script"; env -u OMP_NUM_THREADS $(BIN)/python $$script || missed=1; done; \
	echo "== all"; $(BIN)/python benchmarks/parts/table.py $$BENCH_ROWS; rm -f $$BENCH_ROWS; exit $$missed

benchmark-page: $(VENV)/.dev ## a page and figure of example studies beside rivals; DATA=folder of the records
	$(BIN)/python benchmarks/parts/page.py --data $(DATA) --runs runs/benchmark --out docs/benchmark.md

wheel: $(VENV)/.run ## the source archive and the wheel made from it, into dist/
	rm -rf dist
	$(BIN)/python -c "from setuptools.build_meta import build_sdist; build_sdist('dist')"
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  --wheel-dir dist dist/*.tar.gz

release: $(VENV)/.run $(VENV)/.release ## archive, wheel, bill of materials, checksums, into dist/: the same bytes each time
	rm -rf dist
	.ci/release $(BIN)/python $(VENV)/release/bin/cyclonedx-py dist

bundle: release ## one file, in dist/, to install from on a machine without a network
	.ci/bundle $(BIN)/python dist/*.whl requirements.lock dist

images: wheel ## container images of coordinator and site; BUILDER="docker build" for another builder
	for side in coordinator site; do $(BUILDER) $(BUILD_OPTIONS) -f deploy/Containerfile --target $$side \
	  -t localhost/consilium-$$side:$(VERSION) . || exit 1; done

docs: $(VENV)/.docs ## all pages, the commands and the rooms as one site: build/docs/index.html
	rm -rf build/docs
	PYTHONPATH=$(CURDIR) $(BIN)/python docs/site/assemble.py build/docs-source
	PYTHONPATH=$(CURDIR) $(BIN)/sphinx-build --quiet --fail-on-warning --keep-going \
	  -d build/docs-cache build/docs-source build/docs

lock: ## pin the newest versions that pyproject.toml allows, from a fresh environment
	rm -rf $(VENV)/lock && $(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet $(TORCH) && $(VENV)/lock/bin/pip install --quiet .
	{ sed -n 1p requirements.lock; $(VENV)/lock/bin/pip freeze --all --exclude consilium-fl --exclude pip | sed 's/+cpu//'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock && rm -rf $(VENV)/lock

clean: ## remove the environment, caches, builds and runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist runs

# torch goes first, by its exact version: the lock then asks for nothing more of it.
$(VENV)/.run: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/it")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	touch $@

$(VENV)/.docs: $(VENV)/.dev requirements-docs.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.lock
	touch $@

# An environment of its own: nothing of it is needed to run or to test.
$(VENV)/.release: requirements-release.lock $(VENV)/.run
	test -x $(VENV)/release/bin/python || $(PYTHON) -m venv $(VENV)/release
	$(VENV)/release/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-release.lock
	touch $@

# What checks container recipe, compose files and chart; an environment of its own, too.
$(VENV)/.deploy: requirements-deploy.lock $(VENV)/.run
	test -x $(VENV)/deploy/bin/python || $(PYTHON) -m venv $(VENV)/deploy
	$(VENV)/deploy/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-deploy.lock
	touch $@

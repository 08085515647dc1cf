# The two commands are `make demo` and `make test`; each makes .venv itself if it is not there.
PYTHON ?= python3
BIN := .venv/bin
BUILD ?= build
# What is installed is compiled when it is first imported: most of it never is. Where the environment forbids bytecode, each of
# many processes would compile all it imports.
export PYTHONDONTWRITEBYTECODE =
# Threads of numerical libraries in many processes at once would wait for one another.
test test-all seaweedfs: export OMP_NUM_THREADS = 1
test test-all seaweedfs: export OPENBLAS_NUM_THREADS = 1
# Tests wait for servers and other processes a third of their time: three at once, with mypy beside, keep two cores busy.
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# uv takes a seventh of pip's CPU, but does not read pip's settings: pip brings torch, of which this machine may have a wheel of
# its own, and all else where uv finds no index.
PIP = $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all pytest seaweedfs lint api docs audit benchmarks clean

# The installation compiles the sources in C++.
.venv/installed: pyproject.toml constraints.txt $(wildcard sedflow_dist/native/*.cpp sedflow_dist/native/*.h)
	$(PYTHON) -m venv .venv
	$(PIP) --no-compile torch uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[test]' || $(PIP) -e '.[test]'
	touch $@

demo: .venv/installed  ## the whole chain on 10,000 real galaxies, figures in demo/figures
	$(BIN)/sedflow demo

test: .venv/installed  ## style, types, all tests but the slow ones
	$(MAKE) --no-print-directory --jobs 2 lint pytest ONLY='-m "not slow"'

test-all: .venv/installed  ## all tests; as root, Debian's packages of the servers that they run are installed first
	tests/debian_packages.sh
	$(MAKE) --no-print-directory --jobs 2 lint pytest
	$(MAKE) --no-print-directory seaweedfs

pytest: .venv/installed
	$(PYTEST) $(ONLY)

# Conditions, races and faults of storage on another S3 server than moto.
seaweedfs: .venv/installed
	$(PYTEST) --s3 seaweedfs $(addprefix tests/storage_schemas/test_,conditions.py races.py storage_faults.py)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

MODULES = $(wildcard $(foreach package,sedflow_dist storage_schemas cluster jobs,$(package)/*.py $(package)/*/*.py))

api: .venv/installed  ## a page of every module, from its docstrings, in build/api
	$(BIN)/pdoc --docformat google --output-directory $(BUILD)/api $(subst /,.,$(patsubst %/__init__,%,$(filter-out %/__main__,$(MODULES:.py=))))

docs: .venv/installed  ## the documentation as a site, in build/docs; a broken link is a failure
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky -c docs . $(BUILD)/docs

audit:  ## known vulnerabilities of the pinned dependencies; needs the network
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

benchmarks: .venv/installed  ## prints figures; benchmarks/RESULTS.md keeps some
	$(BIN)/python benchmarks/forward_model.py
	$(BIN)/python benchmarks/fsps_direct.py
	$(BIN)/python benchmarks/sampler.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/inference.py

clean:
	rm -rf .venv build demo

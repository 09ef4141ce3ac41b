# `make demo` and `make test` install everything they need into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# tiny models are several times faster on one thread; two test processes fill two cores
TEST_ENV := OMP_NUM_THREADS=1

.PHONY: install demo test test-quick test-install test-faults check check-native bench-quick docs clean

install: $(INSTALLED)

# torch first: what follows is then content with it and fetches no second one
# and a link beside fairseq, where it looks for a bare --user-dir fairseq_entmax
$(INSTALLED): setup.py constraints.txt $(wildcard fairseq_entmax/kernels/native/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,plot,explore,dev]'
	ln -sfn $(CURDIR)/fairseq_entmax $$($(BIN)/python -c "import sysconfig as s; print(s.get_path('purelib'))")/fairseq_entmax
	touch $@

demo: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo/run.sh

test: $(INSTALLED)
	$(TEST_ENV) $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not faults" tests

# programs that are killed, files that are damaged, readers that get noise
test-faults: $(INSTALLED)
	$(TEST_ENV) $(BIN)/python -m pytest -q -n 2 --dist loadfile tests/faults

# the package itself, without commands and training; a folder by its name would import its settings
# in the process that only waits
SKIPPED := $(addprefix --ignore=,tests/cli tests/examples tests/faults tests/scripts tests/transduction) \
	--ignore-glob='tests/test_*.py'

test-quick: $(INSTALLED)
	$(TEST_ENV) $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not faults" $(SKIPPED) tests

# wheel, sdist and -e, each in an empty environment
test-install:
	PYTHON=$(PYTHON) bash scripts/check_install.sh

# reads only: style, types, layering
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TEST_ENV) $(BIN)/python -m pytest -q tests/test_layering.py

# the site, docs/_build/index.html; a warning is an error
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx --quiet -W --keep-going -b html docs docs/_build

# the C kernels under the address and undefined-behaviour sanitizers of gcc
check-native: $(INSTALLED)
	PYTHON=$(BIN)/python $(TEST_ENV) bash scripts/check_native.sh

# a report, no test: which ratios have moved by more than a third since the stored run
bench-quick: $(INSTALLED)
	$(TEST_ENV) $(BIN)/python scripts/benchmark.py --quick --stored scripts/benchmarks/stored.json \
		output-layer loss mapping attention-rows learned-alpha any-alpha small-calls next-token decode

clean:
	rm -rf $(VENV) build dist *.egg-info demo docs/_build docs/examples

# Every target makes the environment it needs in .venv and installs what was tested (constraints.txt).
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest
EXAMPLES := harness-jax harness-ner harness-markdown-badge

.PHONY: help setup demo test test-torch test-tensorflow test-examples $(addprefix test-,$(EXAMPLES)) test-slow test-gpu docs lint check bench \
  reference published schema clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $(READY)

setup: $(READY)  ## make .venv with everything in it

demo: $(READY)  ## run the NLP task on both backends and print the comparison
	$(BIN)/harness run --task nlp --backend torch,tensorflow

test: $(READY)  ## the fast tests (PyTorch and TensorFlow never share a process)
	$(PYTEST) -q -n logical --dist loadfile --no-loadscope-reorder -m "not slow and not gpu and not torch and not tensorflow"
	$(MAKE) --jobs=2 test-torch test-tensorflow

test-torch: $(READY)  ## of the fast tests those that import PyTorch
	$(PYTEST) -q -m "torch and not tensorflow and not slow and not gpu"

test-tensorflow: $(READY)  ## of the fast tests those that import TensorFlow
	$(PYTEST) -q -m "tensorflow and not torch and not slow and not gpu"

# --use-pep517: seqeval comes as source with a setup script only, which older pips may fail to build otherwise.
test-examples: $(READY)  ## the packages in examples/, installed as anybody's, with their own fast tests
	$(BIN)/python -m pip install --quiet --use-pep517 --constraint constraints.txt $(foreach name,$(EXAMPLES),'./examples/$(name)[test]')
	$(MAKE) --jobs=2 $(addprefix test-,$(EXAMPLES))

$(addprefix test-,$(EXAMPLES)): test-%:
	cd examples/$* && $(CURDIR)/$(PYTEST) -q -m "not slow" tests

test-slow: $(READY)  ## the long tests: default runs at full length, every model's parity, what plugin templates promise
	$(PYTEST) -q -m "slow and not gpu and not tensorflow"
	$(PYTEST) -q -m "slow and not gpu and tensorflow"

test-gpu: $(READY)  ## the tests that need a GPU
	$(PYTEST) -q -rs -m "gpu and not tensorflow"
	$(PYTEST) -q -rs -m "gpu and tensorflow"

docs: $(READY)  ## build the documentation site in build/site, and check its links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/site

lint: $(READY)  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check:  ## what CI runs
	.ci/run

bench: $(READY)  ## the harness's own cost, and its peers', against bare loops (pytest-benchmark)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,bench]'
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.loadgen
	$(BIN)/python -m benchmarks.site

reference: $(READY)  ## carry out the default runs that results/reference lacks; write the README's table and figure
	$(BIN)/python -m benchmarks.reference

published: $(READY)  ## carry out the runs of docs/results.md that results/reference lacks (hours), print the table
	$(BIN)/python -m benchmarks.published run
	$(BIN)/python -m benchmarks.published table

schema: $(READY)  ## write docs/reference/record.schema.json again
	$(BIN)/python -c 'from harness.records.store import record_schema; print(record_schema())' > docs/reference/record.schema.json

clean:  ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build *.egg-info

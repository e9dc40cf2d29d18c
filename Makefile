# Every target creates the environment it needs in .venv, with the tested versions from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest
EXAMPLES := harness-jax harness-ner harness-vit harness-lightgbm harness-markdown-badge harness-openvino

# Each test that starts Python would otherwise compile the imported modules again where this variable is set.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test test-torch test-tensorflow test-examples $(addprefix test-,$(EXAMPLES)) test-slow test-cluster test-gpu docs lint check bench \
  reference published schema clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $(READY)

setup: $(READY)  ## create .venv with all dependencies

demo: $(READY)  ## run the NLP task on PyTorch and TensorFlow and print the comparison
	$(BIN)/harness run --task nlp --backend torch,tensorflow

test: $(READY)  ## run the fast tests
	$(PYTEST) -q -n logical --dist loadfile --no-loadscope-reorder -m "not slow and not gpu and not torch and not tensorflow"
	$(MAKE) --jobs=2 test-torch test-tensorflow

test-torch: $(READY)  ## run the fast tests that import PyTorch
	$(PYTEST) -q -m "torch and not tensorflow and not slow and not gpu" $$(grep -rl --include='*.py' 'mark\.torch' tests)

test-tensorflow: $(READY)  ## run the fast tests that import TensorFlow
	$(PYTEST) -q -m "tensorflow and not torch and not slow and not gpu" $$(grep -rl --include='*.py' 'mark\.tensorflow' tests)

# --use-pep517: seqeval is distributed as source with a setup script only, which older versions of pip fail to build.
test-examples: $(READY)  ## install the packages in examples/ and run their fast tests
	$(BIN)/python -m pip install --quiet --use-pep517 --constraint constraints.txt $(foreach name,$(EXAMPLES),'./examples/$(name)[test]')
	$(MAKE) --jobs=2 $(addprefix test-,$(EXAMPLES))

# Each package has its own cache, which contains the lock that keeps two processes from measuring at the same time.
$(addprefix test-,$(EXAMPLES)): test-%:
	cd examples/$* && HARNESS_CACHE=$(CURDIR)/build/cache-$* $(CURDIR)/$(PYTEST) -q -m "not slow" tests

test-slow: $(READY)  ## run the long tests, such as the default runs at full length
	$(PYTEST) -q -m "slow and not gpu and not tensorflow"
	$(PYTEST) -q -m "slow and not gpu and tensorflow"

test-cluster: $(READY)  ## run all tests of the Ray executor on several raylets of this machine
	$(PYTEST) -q tests/builtin/ray

test-gpu: $(READY)  ## run the tests that need a GPU
	$(PYTEST) -q -rs -m "gpu and not tensorflow"
	$(PYTEST) -q -rs -m "gpu and tensorflow"

docs: $(READY)  ## build the documentation site in build/site, and check its links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/site

lint: $(READY)  ## check formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check:  ## run what CI runs
	.ci/run

bench: $(READY)  ## measure the overhead of harness and of comparable tools over bare loops
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,bench]'
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.loadgen
	$(BIN)/python -m benchmarks.site

reference: $(READY)  ## execute the missing runs of the README and docs/results.md, and write their tables and figure
	$(BIN)/python -m benchmarks.reference

published: $(READY)  ## execute the missing runs that reproduce published results (takes hours), and print their table
	$(BIN)/python -m benchmarks.published run
	$(BIN)/python -m benchmarks.published table

schema: $(READY)  ## write the JSON Schemas in docs/reference
	$(BIN)/python -c 'from harness.records.store import record_schema; print(record_schema())' > docs/reference/record.schema.json
	$(BIN)/python -c 'from harness.plan.suite import schema; print(schema())' > docs/reference/suite.schema.json

clean:  ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build *.egg-info

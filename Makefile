# What people and .ci/run do here. Needs Python 3.11 or newer with venv, and pip; everything else goes into $(VENV).

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2

BIN  := $(VENV)/bin
DEMO := demo-out

# The source tree as the package `mergec`, on the path before what is installed.
TREE  := $(CURDIR)/$(VENV)/tree
TEST  ?= tests

.PHONY: help demo test test-extras generation quick check explore sweep lint format types mutants model-types
.PHONY: bench-check bench install clean

help:
	@echo 'make demo         train three tiny models, merge them, and see who can do what'
	@echo 'make test         the tests, on an install as users have it'
	@echo 'make test-extras  those with the tools that people use next: diffusers, sentence-transformers, GGUF'
	@echo 'make generation   compile llama-cpp-python for them, which takes six minutes of a core'
	@echo 'make quick        those that are not slow, on the source tree: about a minute'
	@echo 'make check        TEST=tests/fmt or TEST="tests/fmt -k comments": some tests, on the source tree'
	@echo 'make explore      drawn tests with other examples, 10 times as many, also of one TEST'
	@echo 'make sweep        every model type of transformers, against transformers (ONLY=llama,bart for some)'
	@echo 'make lint         ruff: rules and format'
	@echo 'make format       let ruff rewrite the files'
	@echo 'make types        mypy'
	@echo 'make mutants      does a test notice when the compiler is changed a little? (MUTANTS="--help" for more)'
	@echo 'make model-types  ask transformers anew what its model types are (20 minutes)'
	@echo 'make bench-check  are the numbers of the benchmark merges right?'
	@echo 'make bench        time mergec against mergekit (needs 20 GB of disk, and the network)'
	@echo 'make clean        remove what the targets above have made'

demo: install
	rm -rf $(DEMO)
	$(BIN)/python examples/demo/train.py $(DEMO)
	@echo; echo '$$ mergec --explain examples/demo/demo.mrg'
	@$(BIN)/mergec --explain examples/demo/demo.mrg
	@echo; echo '$$ mergec examples/demo/demo.mrg -o $(DEMO)/merged'
	@$(BIN)/mergec examples/demo/demo.mrg -o $(DEMO)/merged
	@echo; echo 'right answers to 200 fresh questions of each skill:'; echo
	@$(BIN)/python examples/demo/evaluate.py $(DEMO)

test: install
	$(BIN)/pytest -n $(JOBS)

test-extras: $(TREE)/.kernels $(VENV)/.extras
	@$(BIN)/python -c 'import llama_cpp' 2>/dev/null || echo 'tests/extras/test_llama_cpp.py is skipped, as' \
	    'llama-cpp-python is not installed: `make generation` compiles it, in six minutes of a core'
	PYTHONPATH=$(TREE) $(BIN)/pytest -n $(JOBS) tests/extras

quick: $(TREE)/.kernels
	PYTHONPATH=$(TREE) $(BIN)/pytest -n $(JOBS) -m 'not slow'

check: $(TREE)/.kernels
	PYTHONPATH=$(TREE) $(BIN)/pytest $(TEST)

explore: $(TREE)/.kernels
	MERGEC_TEST_EXPLORE=10 PYTHONPATH=$(TREE) $(BIN)/pytest -n $(JOBS) $(TEST)

# Goes on where it was stopped; ANEW=1 does all of them anew. What it finds is committed, and docs/families.md follows.
sweep: $(TREE)/.kernels
	PYTHONPATH=$(TREE) $(BIN)/python -m tools.sweep --jobs $(JOBS) $(if $(ONLY),--only $(ONLY)) $(if $(ANEW),--anew)
	UPDATE_DOCS=1 PYTHONPATH=$(TREE) $(BIN)/pytest tests/docs/test_generated.py

lint: $(VENV)/.dependencies
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.dependencies
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# On the ordinary install: the folders are not named as the package is, and mypy can't follow an editable one.
types: install
	$(BIN)/mypy -p mergec

mutants: install
	$(BIN)/python tests/mutants/run.py --jobs $(JOBS) $(MUTANTS)

model-types: install
	$(BIN)/python -m tools.model_types.generate --jobs $(JOBS)

bench-check: install
	$(BIN)/python benchmarks/run.py --check
	$(BIN)/python benchmarks/small.py --check

bench: install
	$(BIN)/python benchmarks/run.py

# The environment, once for each version of what it depends on.
$(VENV)/.dependencies: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo 'mergec needs Python 3.11 or newer: make PYTHON=python3.11 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	    echo 'this Python has no venv module (on Debian and Ubuntu: apt install python3-venv)' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt setuptools '.[dev]'
	touch $@

# What tests/extras needs besides: large, and none of it is ours, so `make test` does without.
$(VENV)/.extras: $(VENV)/.dependencies
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $$($(BIN)/python -c \
	    'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["extras"])')
	touch $@

# What generates from GGUF, of which there are no wheels.
generation: $(VENV)/.extras
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) CMAKE_ARGS='-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAMA_CURL=OFF -DLLAVA_BUILD=OFF' \
	    $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt llama-cpp-python

# After an edit there is nothing to install: the tree is what is tested. Its kernels are compiled in place when their
# sources are newer; without a compiler there are none, and mergec does without.
$(TREE)/.kernels: $(VENV)/.dependencies $(wildcard runtime/native/*.c runtime/native/*.h)
	@mkdir -p $(TREE)
	@ln -sfn $(CURDIR) $(TREE)/mergec
	@rm -f runtime/native/_kernels.*.so
	@$(BIN)/python -W ignore -c 'import setuptools; setuptools.setup()' --quiet build_ext --inplace
	@rm -rf build mergec.egg-info
	@touch $@

# The package itself, afresh every time: an ordinary install, so that tests see what users get. Build folders are
# removed first, lest a module that was deleted here lives on in the install.
install: $(VENV)/.dependencies
	@rm -rf build mergec.egg-info
	@$(BIN)/pip uninstall --quiet --disable-pip-version-check --yes mergec 2>/dev/null
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation .
	@rm -rf build mergec.egg-info

clean:
	rm -rf $(VENV) $(DEMO) runtime/native/*.so build dist mergec.egg-info benchmarks/out .mypy_cache .ruff_cache .pytest_cache .hypothesis

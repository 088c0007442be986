# Targets: demo, test, test-all, check, types, fuzz, sanitize, bench, docs. Each makes and reuses .venv; PYTHON chooses its interpreter (3.10 to 3.14).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests at a time; a job that has none left takes over half of what another still has.
JOBS ?= 2
SIDE_BY_SIDE := -n $(JOBS) --dist worksteal
TYPED := build/typed
SOURCES := setup.py pyproject.toml requirements.txt requirements-dev.txt $(wildcard csrc/*/*)
# The only files that may have more than 400 lines.
LONG := csrc/mixer/mixer.cc csrc/cuda/parallel.h $(wildcard ngram_eval/scorers/*/reference.py)
EXAMPLES := $(wildcard examples/*.py)
CPP := $(wildcard $(addprefix csrc/*/*.,cc h cu) tests/csrc/*.cu $(addprefix benchmarks/limits/*.,cc h cu))

.PHONY: demo test test-all check types fuzz sanitize bench docs

demo: $(VENV)/installed
	$(BIN)/python -m ngram_eval.run

test: $(VENV)/installed
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

test-all: $(VENV)/installed sanitize
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# SEED: of other files; each reader's file i follows from it. Failures are kept in build/fuzz.
SECONDS ?= 60
SEED ?= 0
fuzz: $(VENV)/installed
	$(BIN)/python -m tests.fuzz.fuzz --seconds $(SECONDS) --seed $(SEED)

sanitize: $(VENV)/installed
	$(BIN)/python -m tests.sanitize

check: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run -Werror $(CPP)
	@! grep -l pybind11 $(filter-out csrc/python/%,$(CPP))
	@! wc -l $(filter-out $(LONG),$(CPP) $(shell git ls-files '*.py')) | awk '$$1 > 400 && $$2 != "total"' | grep .
	cd $(TYPED) && PYTHONPATH=. $(CURDIR)/$(BIN)/lint-imports --config $(CURDIR)/.importlinter

# mypy reads folders, not package mappings: it is given the package in its installed shape.
types: $(VENV)/installed
	rm -rf $(TYPED) && mkdir -p $(TYPED)/ngram_eval
	ln -s $(CURDIR)/ngram_eval/* $(TYPED)/ngram_eval/
	ln -s $(CURDIR)/kernels $(TYPED)/ngram_eval/kernels
	ln -s $(CURDIR)/train $(TYPED)/ngram_eval/train
	ln -s $(CURDIR)/benchmarks $(CURDIR)/tests $(CURDIR)/examples/*.py $(TYPED)/
	MYPYPATH=$(TYPED) $(BIN)/mypy -p ngram_eval -p benchmarks -p tests $(EXAMPLES:examples/%.py=-m %)
	if $(BIN)/python -c "import mkdocs" 2> /dev/null; then MYPYPATH=$(TYPED) $(BIN)/mypy docs/_site; fi # not on every Python

# DATA: shards of real text; the embedded sample is too short for figures worth keeping. Figures worth keeping are written
# by each script's --out.
DATA ?= ngram_eval/assets/sample_000000.bin
bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.hashed_counts --data $(DATA)
	$(BIN)/python -m benchmarks.last_block
	$(BIN)/python -m benchmarks.forward_once
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.export_sizes
	$(BIN)/python -m benchmarks.exact_counts --data $(DATA)
	$(BIN)/python -m benchmarks.blends
	$(BIN)/python -m benchmarks.codec tests/data/sample.txt --presets exact mixer
	$(BIN)/python -m benchmarks.mixer --text tests/data/sample.txt --long 1000000
	$(BIN)/python -m benchmarks.mixer_speed --text tests/data/sample.txt
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.demo
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.long_stream --tokens 100000000

# build/site/index.html; for the search, `python -m http.server -d build/site`.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The package is installed editable; what it is built from changing, it is built again.
$(VENV)/installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -e '.[docs]'
	touch $@

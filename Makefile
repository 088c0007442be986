# demo | test | test-all | check | bench: each makes and reuses .venv. PYTHON chooses the interpreter (3.10 to 3.13).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml requirements.txt $(wildcard csrc/*)

.PHONY: demo test test-all check bench
demo: $(VENV)/installed
	$(BIN)/python -m ngram_eval.run

test: $(VENV)/installed
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/installed
	$(BIN)/python -m pytest

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# mypy reads folders, not package mappings: give it the package in its installed shape.
	rm -rf build/typed && mkdir -p build/typed/ngram_eval
	ln -s $(CURDIR)/ngram_eval/* build/typed/ngram_eval/ && ln -s $(CURDIR)/train build/typed/ngram_eval/train
	cd build/typed && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p ngram_eval
	$(BIN)/mypy tests benchmarks

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.hashed_counts
	$(BIN)/python -m benchmarks.last_block
	$(BIN)/python -m benchmarks.demo

# The package is installed editable; it is built again when what it is built from changes.
$(VENV)/installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e .
	touch $@

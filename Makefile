# `make demo` runs the whole pipeline, `make test` the tests; both make .venv first, if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DATA ?= examples/starter
OUTPUT ?= output/demo

.PHONY: help install demo test lint format golden docs docker clean

help:
	@echo 'make demo [DATA=folder]  the whole pipeline on a small real model'
	@echo 'make test                the tests'
	@echo 'make lint                ruff, format, mypy'
	@echo 'make golden              write the golden losses and flags anew; the diff is the review'
	@echo 'make docs                make the parts of docs/ anew that come from the code'
	@echo 'make docker              an image with CUDA'
	@echo 'make clean               remove what was built; output/ stays'

install: $(INSTALLED)

$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bigbench,dev,demo,lm-eval,qlora,server,tensorboard,yaml]'
	touch $@

demo: $(INSTALLED)
	PYTHON=$(abspath $(BIN)/python) DATA='$(DATA)' OUTPUT='$(OUTPUT)' bash scripts/demo.sh

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(INSTALLED)
	GOLDEN=write $(BIN)/python -m pytest tests/golden tests/architecture

docs: $(INSTALLED)
	$(BIN)/python scripts/fill_docs.py

docker:
	docker build -t safe_align .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -exec rm -rf {} +

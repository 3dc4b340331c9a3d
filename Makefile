# Everything runs from here: `make` alone lists the targets. A fresh machine needs Python 3.11 or newer and GNU make; `make venv` does the rest.
# Another interpreter: make venv PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

WINGS := realization kernels models probes
SOURCES := $(shell find $(WINGS) -name '*.py')
BENCHMARKS := $(wildcard benchmarks/[a-z]*.py)
LESSONS := $(wildcard notebooks/*.md)
EXECUTED := $(LESSONS:notebooks/%.md=notebooks/executed/%.ipynb)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv test lint format docs notebooks report bench clean distclean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP)  ## make .venv with all that the other targets need

# pip reads dependency groups from version 25.1 on. The editable install puts the four wings on the path.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev -e .
	@touch $@

# Two processes, a file to each at a time: one torch thread each keeps two cores busy.
test: venv  ## run the tests and doctests; TESTS="tests/house -x" narrows them
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(TESTS)

lint: venv  ## ruff (rules and format) and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

format: venv  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: venv notebooks  ## build the site into docs/_build/html; warnings are errors
	$(BIN)/sphinx-build -n -W --keep-going -b html docs docs/_build/html

notebooks: venv $(EXECUTED)  ## run the lessons, write them as notebooks/executed/*.ipynb

# A lesson runs again when its text or the library changes; an .ipynb appears only when every cell has run.
notebooks/executed/%.ipynb: notebooks/%.md $(SOURCES) | $(STAMP)
	@mkdir -p $(@D)/.running
	$(BIN)/jupytext --quiet --to ipynb --output $(@D)/.running/$(@F) $<
	$(BIN)/jupyter-execute --inplace $(@D)/.running/$(@F)
	@mv $(@D)/.running/$(@F) $@

report: venv  ## compare the checkpoints of the zoo on one page: report/index.html
	$(BIN)/solomonic report --out-dir report

bench: venv  ## run every benchmark
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done

clean:  ## remove what the targets made, except .venv
	rm -rf docs/_build docs/lessons docs/api/generated notebooks/executed report dist .pytest_cache .ruff_cache .hypothesis

distclean: clean  ## remove .venv too
	rm -rf $(VENV)

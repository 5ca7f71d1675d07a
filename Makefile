# Everything a reader or a contributor does with this repository. `make` alone lists the targets.
VENV ?= .venv
PY := $(VENV)/bin/python
# Where torch comes from, if not from your default package index. A machine without a GPU saves
# gigabytes with:  make book TORCH_INDEX=https://download.pytorch.org/whl/cpu
export TORCH_INDEX ?=
# matplotlib's cache of fonts and its settings, kept with the environment that they belong to.
export MPLCONFIGDIR := $(abspath $(VENV))/matplotlib
# A new lock or new metadata changes this name, so the next command installs again.
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help install book test lint notebooks colab clean

help:
	@echo "make book       build the executed book into _build/html (installs what it needs first)"
	@echo "make test       check style and spelling, run all tests (installs what it needs first)"
	@echo "make notebooks  write the .ipynb beside each chapter, for Colab and Binder"
	@echo "make colab      run every chapter in the profile colab, record times and outcomes (hours)"
	@echo "make lint       check style and spelling only"
	@echo "make clean      remove what was built; the environment $(VENV) stays"

$(STAMP): | requirements.lock pyproject.toml
	@book/_tools/install.sh "$(VENV)"
	@rm -f $(VENV)/.installed-* && touch $@

install: $(STAMP)

book: $(STAMP)
	@$(PY) book/_tools/build.py

notebooks: $(STAMP)
	@$(PY) book/_tools/export.py

colab: $(STAMP)
	@$(PY) book/_tools/colab.py

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/codespell

test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2
	@echo "All tests passed. What was skipped, and why, is listed above."

clean:
	rm -rf _build dist .pytest_cache .ruff_cache .hypothesis

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed-in

export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: help
help:  ## show this list
	@echo "Usage: make <target>"
	@sed -n 's/^\([a-z-]*\):.*  ## /  \1#/p' Makefile | while IFS='#' read -r name text; do \
		printf '  %-12s %s\n' $$name "$$text"; done

.PHONY: lab
lab: $(STAMP)  ## install what is missing, then open JupyterLab on the first lesson
	$(BIN)/python -m jupyterlab --ServerApp.root_dir=. notebooks/00_start_here.ipynb

.PHONY: test
test: $(STAMP)  ## run all tests and every notebook
	$(BIN)/python -m pytest

.PHONY: test-all
test-all: test lint  ## the same, then the slow tests and the style of the code
	$(BIN)/python -m pytest -m slow tests

.PHONY: lint
lint: $(STAMP)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

# Progress bars are off, so that whatever is left on stderr is worth reading (and a test refuses it).
.PHONY: notebooks
notebooks: $(STAMP)  ## run every lesson from top to bottom and store its outputs
	TQDM_DISABLE=1 $(BIN)/python -m nbconvert --to notebook --inplace --execute \
		--ExecutePreprocessor.record_timing=False notebooks/*.ipynb
	$(BIN)/python -m nbconvert --coalesce-streams notebooks/*.ipynb

.PHONY: experiments
experiments: $(STAMP)  ## measure what is missing in results/ (delete a file there to remake it)
	$(BIN)/python -m helpers.experiments

# Versions in the lock stay as they are; delete the line of a package to let it move to its newest.
.PHONY: lock
lock: $(STAMP)  ## resolve requirements.txt into requirements.lock again
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
		--annotation-style line --custom-compile-command "make lock" \
		requirements.txt pyproject.toml --extra test --output-file requirements.lock

.PHONY: clean
clean:  ## remove the environment and what tools left behind
	rm -rf .venv .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -r {} +
	find . -name .ipynb_checkpoints -prune -exec rm -r {} +

# The stamp is written last and names this folder: an interrupted installation, a moved folder or
# a Python that has gone all lead to a new environment; a changed lock only to an update.
ifneq "$(shell $(BIN)/python -c '' 2>/dev/null && cat $(STAMP) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(STAMP)
define NEW_VENV
@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	echo "The course needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is" \
		"'`$(PYTHON) --version 2>&1 | tail -1`': name another one, for example: make lab PYTHON=python3.12"; \
	exit 1; }
@$(PYTHON) -c 'import platform, sys; sys.exit((sys.platform, platform.machine()) == ("darwin", "x86_64"))' || { \
	echo "TensorFlow has no packages for a Mac's Intel Python: on Apple silicon name an arm64 one:" \
		"make lab PYTHON=/opt/homebrew/bin/python3.12"; exit 1; }
@echo "Installing the course into .venv: this happens once and takes a few minutes."
$(PYTHON) -m venv --clear .venv
endef
endif

$(STAMP): requirements.lock pyproject.toml ipython_kernel_config.py
	$(NEW_VENV)
	$(BIN)/python -m pip install -r requirements.lock
	@echo "$(CURDIR)" > $@

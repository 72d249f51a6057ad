PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed-in
TOOLS := .venv/tools-installed
PHOTOS := .venv/photos-installed

# What students get. Everything else stays with the instructor.
STUDENTS := .gitignore LICENSE LICENSE-CC-BY-4.0 Makefile README.md exercises helpers \
	ipython_kernel_config.py jupyterlab_overrides.json notebooks pyproject.toml requirements-photos.lock requirements.lock \
	requirements.txt results

export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: help
help:  ## show this list
	@echo "Usage: make <target>"
	@sed -n 's/^\([a-z-]*\):.*  ## /  \1#/p' Makefile | while IFS='#' read -r name text; do \
		printf '  %-12s %s\n' $$name "$$text"; done

# FOLDER is one that helpers.prefetch has filled. Make hands it to the shell in the environment.
ifneq "$(FOLDER)" ""
USE_FOLDER := FOLDER="$$(CDPATH= cd -- "$$FOLDER" && pwd)" && export COURSE_TRACK=photos \
	TFDS_DATA_DIR="$$FOLDER/tensorflow_datasets" KERAS_HOME="$$FOLDER/keras_home" \
	TFHUB_CACHE_DIR="$$FOLDER/tfhub_cache" &&
endif
.PHONY: lab folder
lab: folder $(STAMP) $(if $(USE_FOLDER)$(filter photos,$(COURSE_TRACK)),$(PHOTOS))  ## install what is missing, then open JupyterLab; FOLDER=... for the photos in it
	$(USE_FOLDER) $(BIN)/python -m jupyterlab --ServerApp.root_dir=. notebooks/00_start_here.ipynb
folder:
	@test -z "$$FOLDER" || test -d "$$FOLDER/keras_home" || { echo "'$$FOLDER' is not a folder" \
		"that python -m helpers.prefetch has filled: name the one that has keras_home in it."; exit 1; }

# Students have neither tests/ nor the tools: there it runs the notebooks.
.PHONY: test
test: $(if $(wildcard requirements-test.lock),$(TOOLS),$(STAMP))  ## run all tests and every notebook
	$(BIN)/python -m pytest

.PHONY: test-all
test-all: lint test slow  ## the same, the style of the code and the slow tests

.PHONY: slow
slow: $(TOOLS)
	$(BIN)/python -m pytest -m slow tests

.PHONY: lint
lint: $(TOOLS)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

# Progress bars are off, so that whatever is left on stderr is worth reading (and a test refuses it).
.PHONY: notebooks
notebooks: $(STAMP)  ## run every lesson from top to bottom and store its outputs
	TQDM_DISABLE=1 $(BIN)/python -m nbconvert --to notebook --inplace --execute \
		--ExecutePreprocessor.record_timing=False notebooks/*.ipynb
	$(BIN)/python -m nbconvert --coalesce-streams notebooks/*.ipynb

# nbgrader works in a folder of its own: it leaves nothing here, and a wrong solution changes nothing.
.PHONY: exercises
exercises: solutions $(TOOLS)  ## generate exercises/ from solutions/ (answers written there are lost)
	rm -rf .generated && mkdir -p .generated exercises && cp -R solutions nbgrader_config.py .generated
	cd .generated && for set in solutions/*/; do $(abspath $(BIN))/python -m nbgrader generate_assignment \
		--no-db --Application.log_level=WARN "$$(basename "$$set")" || exit 1; done
	rm -rf exercises/*/ && mv .generated/exercises/*/ exercises && rm -r .generated

BUNDLE := transfer-learning-course
GIT := git -c safe.directory='*'
.PHONY: release
release: exercises  ## pack what students get, without solutions and tests, into release/
	rm -rf release && mkdir -p release/$(BUNDLE)
	@test ! -e .git || ! $(GIT) ls-files --others --exclude-standard exercises | grep . || \
		{ echo "These would be missing: git does not know them yet."; exit 1; }
	if [ -e .git ]; then $(GIT) ls-files $(STUDENTS); else find $(STUDENTS) -type f \
		! -path '*/__pycache__/*' ! -path '*/.ipynb_checkpoints/*'; fi > release/files
	tar -cf release/files.tar -T release/files && tar -xf release/files.tar -C release/$(BUNDLE)
	cd release && $(abspath $(BIN))/python -m zipfile -c $(BUNDLE).zip $(BUNDLE)
	rm -r release/$(BUNDLE) release/files*

# Make hands SUBMISSIONS to the shell in the environment: its name may hold anything.
.PHONY: grade
grade: $(TOOLS)  ## grade SUBMISSIONS=<folder> into <folder>-graded (OPTIONS="--set vgg16 --jobs 4")
	@test -n "$$SUBMISSIONS" || { echo "Name the folder of the submissions: make grade" \
		"SUBMISSIONS=submitted"; exit 1; }
	@$(BIN)/python -m helpers.grading $(OPTIONS) -- "$$SUBMISSIONS"

.PHONY: experiments
experiments: $(STAMP)  ## measure what is missing in results/ (delete a file there to remake it)
	$(BIN)/python -m helpers.experiments
	$(BIN)/python -m helpers.small_cnn

# Versions in the locks stay as they are; delete the line of a package to let it move to its newest.
# What both locks name has the same version in both.
RESOLVE := $(BIN)/python -m uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
	--annotation-style line --custom-compile-command "make lock"
.PHONY: lock
lock: $(STAMP)  ## resolve requirements.txt and the tools of pyproject.toml into the locks again
	$(BIN)/python -m pip install --quiet uv
	$(RESOLVE) requirements.txt --output-file requirements.lock
	grep -v '^-e' requirements.lock | $(RESOLVE) pyproject.toml --extra photos \
		--constraint - --output-file requirements-photos.lock
	cat requirements.lock requirements-photos.lock | grep -v '^-e' | $(RESOLVE) pyproject.toml \
		--extra instructor --extra dask --extra photos --extra test \
		--constraint - --output-file requirements-test.lock

.PHONY: clean
clean:  ## remove the environment and what tools left behind
	rm -rf .venv .pytest_cache .ruff_cache .generated release
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

$(STAMP): requirements.lock pyproject.toml ipython_kernel_config.py jupyterlab_overrides.json
	$(NEW_VENV)
	$(BIN)/python -m pip install -r requirements.lock
	@echo "$(CURDIR)" > $@

# What the tests and the instructor need beyond what a student needs: it goes on top.
$(TOOLS): requirements-test.lock $(STAMP)
	$(BIN)/python -m pip install -r requirements-test.lock
	@touch $@

# What the photos track needs beyond the drawn one.
$(PHOTOS): requirements-photos.lock $(STAMP)
	$(BIN)/python -m pip install -r requirements-photos.lock
	@touch $@

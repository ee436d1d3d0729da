# make course    sets up, runs notebooks 01 to 07, says where the results are
# make study     runs notebooks 08 to 11
# make figures   draws figures/ again from figures/data and phantoms
# make test      sets up, runs all checks and tests
# make torture  runs all hostile inputs and faults, a line a suite
# make bundle    one archive for a room without a network
# Variables: PROFILE=cpu IMAGES=phantom FROM=04 TO=06 FORCE=1 PYTHON=python3.12

PROFILE ?= cpu
IMAGES ?=
FROM ?= 01
TO ?= 07
FORCE ?=
PYTHON ?=

VENV := .venv
READY := $(VENV)/.ready
SCALE := $(VENV)/.scale
IN := $(VENV)/bin/python

# Waiting threads sleep: threads that spin make two busy cores slower than one.
export OMP_WAIT_POLICY ?= PASSIVE
# The clone's own packages, whatever the user has at home.
export PYTHONNOUSERSITE := 1

# In an unpacked bundle no package index is asked.
ifneq ($(wildcard wheels),)
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := wheels
endif

COURSE = $(IN) -m llamaxr_utils course --profile $(PROFILE) \
	$(if $(IMAGES),--images $(IMAGES)) $(if $(FORCE),--force)

.PHONY: setup course study figures test torture check lab bundle publish tidy
.DEFAULT_GOAL := course

setup: $(READY)

# Versions stand in constraints.txt. The stamp is written last, so a broken
# installation is taken up again by the next call, with the same Python.
$(READY): constraints.txt pyproject.toml
	@for p in $(or $(PYTHON),$(wildcard $(IN)) python3.11 python3.12 \
	        python3.13 python3); do \
	    $$p -c 'import sys; sys.exit(not (3, 11, 5) <= sys.version_info < (3, 14))' \
	        2>/dev/null && python=$$p && break; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "  What: No Python for the course was found."; \
	    echo "  Why:  It needs 3.11.5 to 3.13."; \
	    echo "  Do:   Install one, or name it: make setup PYTHON=python3.11"; \
	    exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$($$python --version), a few minutes ..."; \
	$$python -m venv $(VENV) || { \
	    echo "  What: The virtual environment was not made."; \
	    echo "  Why:  On Debian and Ubuntu, venv is a package of its own."; \
	    echo "  Do:   apt-get install python3-venv, then the same command."; \
	    exit 1; \
	}
	$(IN) -m pip install --quiet -c constraints.txt -e '.[course,dev]'
	@$(IN) -m pip install --quiet --no-deps -c constraints.txt \
	    unsloth unsloth-zoo \
	    || echo "Without unsloth: training uses transformers and peft alone."
	@touch $@

course: $(READY)
	@$(COURSE) --from $(FROM) --to $(TO)

# 11 collects what is there, other runs included: it is never up to date.
study: $(READY)
	@$(COURSE) --from 08 --to 10
	@$(COURSE) --from 11 --to 11 --force

figures: $(READY)
	@$(IN) figures/draw.py

check: $(READY)
	@$(IN) -m ruff check --quiet .
	@$(IN) -m mypy --no-error-summary

# Ray, for the tests of sweeps on a cluster; without it they are skipped.
$(SCALE): $(READY)
	@$(IN) -m pip install --quiet -c constraints.txt -e '.[course,dev,scale]' \
	    || echo "Without Ray: the tests of clusters are skipped."
	@touch $@

test: check $(SCALE)
	@$(IN) -m pytest -n logical --maxprocesses 4 --dist loadfile \
	    --no-loadscope-reorder

torture: $(READY)
	@LLAMAXR_TORTURE=1 $(IN) -m pytest tests/torture -q --durations=0 \
	    -n logical --maxprocesses 4

lab: $(READY)
	@$(IN) -m jupyterlab --ServerApp.root_dir=. \
	    --LabApp.default_url=/lab/tree/notebooks/01_explore_data.ipynb

# One archive for a room without a network; PLATFORM=win_amd64 for others.
bundle: $(READY)
	@$(IN) notebooks/bundle.py $(PLATFORM)

# The address of your copy on GitHub, for Colab's badges and setup cells.
publish: $(READY)
	@$(IN) notebooks/publish.py "$(URL)"

tidy: $(READY)
	@$(IN) -m jupyter nbconvert --clear-output --inplace notebooks/*.ipynb

.DEFAULT_GOAL := help
.PHONY: help replicate-all replicate-quick check record report test bench faults validate clean

PYTHON ?= python3
INSTALLED := .venv/.installed

help: ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

replicate-all: $(INSTALLED) ## run every replication at published scale, and check it against expected/
	.venv/bin/replicate run

replicate-quick: $(INSTALLED) ## the same on a named part of each, in minutes
	.venv/bin/replicate run --profile quick

check: $(INSTALLED) ## judge the stored results again, without training
	.venv/bin/replicate check

record: $(INSTALLED) ## make the stored results the reference in expected/, and show what changes
	.venv/bin/replicate record

report: $(INSTALLED) ## write the report on the stored results, results/report/report.html
	.venv/bin/replicate report

test: $(INSTALLED) ## lint, types and tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy common replications tests
	.venv/bin/pytest -n auto

faults: $(INSTALLED) ## kill runs at 150 random moments, and see that all tables come out the same
	.venv/bin/python -m tests.kills --kills 50

bench: $(INSTALLED) ## time training beside the plain way and the machine's ceiling, in minutes
	.venv/bin/replicate bench

validate: $(INSTALLED) ## ask whether the checks work: faults planted, other seeds; hours
	.venv/bin/python -m tests.validation faults
	.venv/bin/python -m tests.validation seeds

clean: ## remove the environment, results and caches
	rm -rf .venv results .hypothesis .mypy_cache .ruff_cache .pytest_cache *.egg-info build

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	# torch first and by its exact version: on its own it is found in whatever build the installer is set up for
	.venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt setuptools torch
	.venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[dev,ray]'
	touch $@

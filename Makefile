.DEFAULT_GOAL := help
.PHONY: help install replicate-all replicate-quick replicate-decided check record report test docs keys picture bench faults gpu \
	validate lock audit clean

PYTHON ?= python3
INSTALLED := .venv/.installed
PIP := .venv/bin/pip install --quiet --disable-pip-version-check
# pinned without hashes, and so not in the lock: each build of torch (CUDA, CPU only) is a different file from its own
# index, and needs different packages, whose versions it pins itself
TORCH := torch==2.13.0

help: ## show this help
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "%-18s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## set up .venv, with the command replicate in .venv/bin

replicate-all: $(INSTALLED) ## run every replication at published scale, and check it against expected/
	.venv/bin/replicate run

replicate-quick: $(INSTALLED) ## run the quick profile of every replication, in minutes
	.venv/bin/replicate run --profile quick

replicate-decided: $(INSTALLED) ## as replicate-all, with more networks until each claim is decided, in hours
	.venv/bin/replicate run --profile decided

check: $(INSTALLED) ## judge the stored results again, without training
	.venv/bin/replicate check

record: $(INSTALLED) ## make the stored results the reference in expected/, and show what changes
	.venv/bin/replicate record

report: $(INSTALLED) ## write the report on the stored results, results/report/report.html
	.venv/bin/replicate report

test: $(INSTALLED) ## run the linter, the type checker and the tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy common docs replications tests
	.venv/bin/pytest -n auto --dist worksteal

docs: $(INSTALLED) ## build the documentation in docs/_build/html; broken references are errors
	.venv/bin/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build/html

keys: $(INSTALLED) ## write the schemas and the reference for the keys of specs and claims
	.venv/bin/python -m docs.keys

picture: $(INSTALLED) ## draw the README's picture from results/ (needs Chromium)
	.venv/bin/python -m docs.picture

faults: $(INSTALLED) ## kill runs at 150 random moments, and check that all tables come out the same
	.venv/bin/python -m tests.kills --kills 50

gpu: $(INSTALLED) ## test, run and time everything on a GPU, in at most 8 minutes
	.venv/bin/python -m tests.gpu

bench: $(INSTALLED) ## time training against a plain loop and the machine's ceiling, in minutes
	.venv/bin/replicate bench

validate: $(INSTALLED) ## test the checks themselves, with planted faults, other seeds and known truths; takes hours
	.venv/bin/python -m tests.validation faults
	.venv/bin/python -m tests.validation seeds
	.venv/bin/python -m tests.validation looks

lock: .venv/bin/uv ## pin and hash the dependencies of pyproject.toml in requirements.lock, for all platforms
	.venv/bin/uv pip compile --quiet --universal --fork-strategy fewest --generate-hashes --all-extras --no-annotate \
		--no-emit-package torch --no-emit-package pip --custom-compile-command 'make lock' \
		--output-file requirements.lock pyproject.toml

audit: $(INSTALLED) ## look for known security advisories on the pinned packages
	@{ grep -o '^[^ ]*==[^ ]*' requirements.lock; echo $(TORCH); } | .venv/bin/pip-audit --vulnerability-service osv \
		--timeout 15 --progress-spinner off --disable-pip --no-deps --requirement /dev/stdin

clean: ## remove the environment, results and caches
	rm -rf .venv results docs/_build .hypothesis .mypy_cache .ruff_cache .pytest_cache *.egg-info build dist

.venv/bin/uv:  # only what locking needs: the current lock may not be installable with what is declared
	$(PYTHON) -m venv .venv
	$(PIP) 'uv>=0.13,<1'

$(INSTALLED): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(PIP) --no-deps --require-hashes --requirement requirements.lock
	$(PIP) $(TORCH)
	$(PIP) --no-deps --no-build-isolation --editable .
	.venv/bin/pip check
	touch $@

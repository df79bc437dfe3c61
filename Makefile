.DEFAULT_GOAL := help
.PHONY: help install replicate-all replicate-quick check record report test docs keys picture bench faults validate \
	lock audit clean

PYTHON ?= python3
INSTALLED := .venv/.installed
PIP := .venv/bin/pip install --quiet --disable-pip-version-check
# pinned without hashes, and so left out of the lock: each build of torch (CUDA, CPU only) is another file, from an index of
# its own, and needs other packages, whose versions it pins itself
TORCH := torch==2.13.0

help: ## show this help
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "%-18s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## set up .venv, with the command replicate in .venv/bin

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
	.venv/bin/mypy common docs replications tests
	.venv/bin/pytest -n auto

docs: $(INSTALLED) ## build the documentation in docs/_build, with broken references as errors
	.venv/bin/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build

keys: $(INSTALLED) ## write the schemas and the reference of the keys of specs and claims
	.venv/bin/python -m docs.keys

picture: $(INSTALLED) ## draw the picture of the README from results/, which needs Chromium
	.venv/bin/python -m docs.picture

faults: $(INSTALLED) ## kill runs at 150 random moments, and see that all tables come out the same
	.venv/bin/python -m tests.kills --kills 50

bench: $(INSTALLED) ## time training beside the plain way and the machine's ceiling, in minutes
	.venv/bin/replicate bench

validate: $(INSTALLED) ## ask whether the checks work: faults planted, other seeds; hours
	.venv/bin/python -m tests.validation faults
	.venv/bin/python -m tests.validation seeds

lock: .venv/bin/uv ## pin and hash in requirements.lock what pyproject.toml asks for, for all platforms
	.venv/bin/uv pip compile --quiet --universal --fork-strategy fewest --generate-hashes --all-extras --no-annotate \
		--no-emit-package torch --no-emit-package pip --custom-compile-command 'make lock' \
		--output-file requirements.lock pyproject.toml

audit: $(INSTALLED) ## look for known advisories on the pinned packages
	@{ grep -o '^[^ ]*==[^ ]*' requirements.lock; echo $(TORCH); } | .venv/bin/pip-audit --vulnerability-service osv \
		--timeout 15 --progress-spinner off --disable-pip --no-deps --requirement /dev/stdin

clean: ## remove the environment, results and caches
	rm -rf .venv results docs/_build .hypothesis .mypy_cache .ruff_cache .pytest_cache *.egg-info build dist

.venv/bin/uv:  # all that a lock needs: what is declared may not be installable with the lock as it is
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

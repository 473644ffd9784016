# `make demo` and `make up` need Python 3.11 and make, nothing else: they make .venv themselves.

PYTHON ?= python3.11
ARGS ?=
BIN := .venv/bin

# The name of each stamp carries the lock's checksum: another lock, and it is installed again.
LOCKED := .venv/.installed-$(firstword $(shell cksum requirements.txt))
LOCKED_DEV := .venv/.installed-dev-$(firstword $(shell cksum requirements-dev.txt))

COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header -q

# --no-deps: the lock names everything, so nothing is left to resolve. It also takes the pip that Python 3.11.7
# brings (23.2.1) past prefect's "sqlalchemy[asyncio]", for which it refuses the lock's "sqlalchemy==".
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r

# `tidings`, the word that messages and pages use, for whoever has .venv/bin in the path.
define SHIM
printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s/.venv/bin/python" -m tidings "$$@"\n' "$(CURDIR)" "$(CURDIR)" \
	> $(BIN)/tidings && chmod +x $(BIN)/tidings
endef

.DEFAULT_GOAL := help
.PHONY: help demo up test chaos chaos-quick drill bench bench-quick lint format types check lock lock-check clean clean-data

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(LOCKED) ## everything once, in a fresh folder: webhooks in, mails out; exit 0 when all were delivered
	@$(BIN)/python -m tidings.local demo $(ARGS)

up: $(LOCKED) ## everything, kept running until Ctrl-C
	@$(BIN)/python -m tidings.local up $(ARGS)

test: $(LOCKED_DEV) ## every test that needs no account anywhere
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup $(ARGS)

chaos: $(LOCKED) ## 20 rounds of kills and faults under load; exit 0 when no mail was lost and none doubled
	@$(BIN)/python -m tidings.chaos $(ARGS)

chaos-quick: $(LOCKED) ## the same, 3 rounds
	@$(BIN)/python -m tidings.chaos --quick $(ARGS)

drill: $(LOCKED) ## break a running stack in every way that must raise an alert; exit 0 when none was missing or false
	@$(BIN)/python -m tidings.drill $(ARGS)

bench: $(LOCKED_DEV) ## every figure beside its baseline of the same run (wants wrk); exit 0 when all aims were met
	@$(BIN)/python -m tidings.bench $(ARGS)

bench-quick: $(LOCKED_DEV) ## the same in two minutes: small sizes, without growth and Prefect's own worker
	@$(BIN)/python -m tidings.bench --quick $(ARGS)

lint: $(LOCKED_DEV) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(LOCKED_DEV) ## ruff: mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(LOCKED_DEV) ## mypy, strict
	@$(BIN)/mypy

check: lint types test ## lint, types and test

lock: $(LOCKED_DEV) ## pin requirements.in and requirements-dev.in, keeping what is pinned already
	$(COMPILE) requirements.in -o requirements.txt $(ARGS)
	$(COMPILE) requirements-dev.in -o requirements-dev.txt $(ARGS)

# Compiled over a copy of the lock, so that only our own changes show and not what others released since.
lock-check: $(LOCKED_DEV) ## fails when a lock does not fit its .in file
	@new=$$(mktemp -d) && trap 'rm -r "$$new"' EXIT && for lock in requirements requirements-dev; do \
		cp $$lock.txt "$$new/$$lock.txt"; \
		$(COMPILE) $$lock.in -o "$$new/$$lock.txt" && diff -u $$lock.txt "$$new/$$lock.txt" \
		|| { echo "$$lock.txt does not fit $$lock.in: run make lock"; exit 1; }; \
	done

clean: ## caches and .venv; never data
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-data: $(LOCKED) ## the local stack's data folder, .tidings
	@$(BIN)/python -m tidings.local clean

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
		|| { echo "Tidings needs Python 3.11, and $(PYTHON) is not that: make … PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv --clear .venv

$(LOCKED): | $(BIN)/pip
	@echo "Installing requirements.txt into .venv …"
	@$(INSTALL) requirements.txt
	@rm -f .venv/.installed-[0-9]* && touch $@
	@$(SHIM)

$(LOCKED_DEV): | $(BIN)/pip
	@echo "Installing requirements-dev.txt into .venv …"
	@$(INSTALL) requirements-dev.txt
	@rm -f .venv/.installed-dev-* $(LOCKED) && touch $@ $(LOCKED)
	@$(SHIM)

# Every target sets up what it needs: a fresh machine wants Python 3.11+ and make, nothing more.
PYTHON ?= python3
PYTEST ?= pytest
BIN := .venv/bin

.PHONY: run test check torture lock clean

run: .venv/ready          ## Usher against a local Whop, with an embedded Redis
	@$(BIN)/usher up

test: .venv/ready         ## every test, against a real server on a free port
	@$(BIN)/python -m $(PYTEST)

check: .venv/ready        ## formatting, linters, types
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

torture: .venv/ready      ## the proofs that take an hour: PARTS="soak" for one, figures in torture/
	@PYTHONPATH=tests:. $(BIN)/python -m torture $(PARTS)

lock: .venv/ready         ## pin the whole tree anew after a change in pyproject.toml
	@sh requirements/lock.sh $(BIN)

.venv/ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Usher needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up .venv (once; about half a minute) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

clean:                    ## forget the virtual environment and the local data
	@rm -rf .venv .usher

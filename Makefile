# make run | test | check | setup | repro | clean. Everything sets itself up; nothing but a package
# registry is needed. PARAMS=other.yaml runs another params file, ARGS="-S key=value" overrides.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt
PARAMS ?= params.yaml
ARGS ?=
WORKERS ?= 3

# Tests and checks must pass without a network, an account or telemetry.
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 \
  PREFECT_SERVER_ANALYTICS_ENABLED=false MLFLOW_DISABLE_TELEMETRY=true DVC_NO_ANALYTICS=1

.PHONY: run plan test check format setup repro constraints clean distclean

run: $(STAMP)
	@$(BIN)/shrinkflow run --params $(PARAMS) $(ARGS)

plan: $(STAMP)
	@$(BIN)/shrinkflow plan --params $(PARAMS) $(ARGS)

# Three tests at a time, one thread each: many of them wait for servers of their own.
test: $(STAMP)
	@$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# DVC runs `python` from the PATH: it has to be the one of the environment.
repro: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro $(ARGS)

setup: $(STAMP)

# Python compiles what is imported, when it is: less than half of what there is. An old pip takes
# twice as long.
$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (a few minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) --upgrade pip
	@$(INSTALL) torch -e ".[demo,dev]"
	@touch $(STAMP)

# After a change of pyproject.toml: install, run the tests, then write down what was installed.
constraints:
	@$(BIN)/python -m pip freeze --all --exclude-editable | sed 's/^\(torch==[0-9.]*\)+.*/\1/' \
	  | { head -1 constraints.txt; cat; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt

clean:
	rm -rf artifacts .shrinkflow runs/*/artifacts runs/*/.shrinkflow .dvc/cache .dvc/tmp
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print | xargs rm -rf

distclean: clean
	rm -rf $(VENV) *.egg-info
